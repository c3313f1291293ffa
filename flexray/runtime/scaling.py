"""Nodes come when requests wait for them, and may go when nothing is on them: the pool beside Ray's autoscaler.

What those who wait lack is published as demand that Ray's autoscaler can meet (``demand.py``). A node on which nothing
was for a while is given back: its claims and its agent, either of which would keep it, go; its devices are
``released`` until the node leaves or they are needed again. No Ray here.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from flexray.config import Scaling
from flexray.core.scaling import Bundle, idle_nodes, lacking
from flexray.core.state import State
from flexray.model.devices import DeviceState, NewNode
from flexray.model.events import Event, NodeReported

_COMING_SECONDS = 60.0
"""So long after its node has come, or was claimed again, a device that is not claimed yet is expected to be."""

_log = logging.getLogger("flexray")


class Members(Protocol):
    """The nodes of the cluster, as far as they are needed here (``Nodes``)."""

    @property
    def head(self) -> str:
        """The node that cannot leave."""
        ...

    @property
    def given_back(self) -> frozenset[str]:
        """Nodes that Ray has again."""
        ...

    def release(self, node: str) -> None:
        """Give a node back to Ray."""
        ...

    def claim(self, node: str) -> None:
        """Have it again."""
        ...


class Scaler:
    """Looks now and then what is lacking, and what is not needed.

    Args:
        apply: gets what the core must know of nodes that are given back.
    """

    def __init__(self, config: Scaling, state: State, nodes: Members, apply: Callable[[Event], None]) -> None:
        self._config, self._state, self._nodes, self._apply = config, state, nodes, apply
        self._come: dict[str, float] = {}
        self._idle: dict[str, float] = {}
        #: kinds of nodes that did not bring what they were said to have, and what is to be done.
        self._wrong: dict[NewNode, str] = {}

    @property
    def notes(self) -> list[str]:
        """What people have to know."""
        return list(self._wrong.values())

    def look(self) -> Counter[Bundle]:
        """Claim again what is needed, give back what is idle; returns what nodes have to be added for."""
        state, now = self._state, self._state.now
        if state.recovery is not None:
            return Counter()
        known = state.pool.nodes
        self._come = {node: self._come.get(node, now) for node in known}
        coming = {node for node, since in self._come.items() if now - since < _COMING_SECONDS}
        lack = lacking(state, self._config.wait_seconds, coming)
        for node in lack.nodes:
            self._come[node] = now
            self._nodes.claim(node)
        self._give_back(now)
        return Counter(bundle for bundle in lack.bundles if bundle.node not in self._wrong)

    def came(self, bundle: Bundle, node: str) -> None:
        """A node has come that Ray takes for what was asked for. Where it is not, more of them would be of no use."""
        inventory, new = self._state.pool.nodes.get(node), bundle.node
        if inventory is None or new in self._wrong or any(d.type.name == new.type.name for d in inventory.devices):
            return
        types = ", ".join(sorted({device.type.name for device in inventory.devices})) or "no devices"
        self._wrong[new] = (
            f"no more nodes with {new.type.name} are asked for: node {inventory.name}, which came, has {types}."
            f" Correct scaling.nodes in the configuration (type, labels), and start the pool anew"
        )
        _log.warning("flexray: %s", self._wrong[new])

    def _give_back(self, now: float) -> None:
        away = (self._nodes.head, *self._nodes.given_back)
        idle = [node for node in idle_nodes(self._state) if node not in away]
        self._idle = {node: self._idle.get(node, now) for node in idle}
        for node, since in self._idle.items():
            if now - since >= self._config.idle_seconds:
                inventory = self._state.pool.nodes[node]
                devices = tuple(dataclasses.replace(d, state=DeviceState.RELEASED) for d in inventory.devices)
                self._apply(NodeReported(dataclasses.replace(inventory, devices=devices)))
                self._nodes.release(node)
