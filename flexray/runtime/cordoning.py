"""Cordons from the outside: which devices an operator means, and how cordons are kept."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from typing import Any

from flexray.errors import NotThere, UsageError
from flexray.model.devices import Cordon, Device, Inventory
from flexray.model.events import DeviceCordoned, DeviceUncordoned

_SHORTEST = 4
"""Characters of a node's id that are enough to name it, if no other begins so."""


def asked(
    change: Mapping[str, Any], nodes: Mapping[str, Inventory], cordons: Mapping[str, Cordon]
) -> list[DeviceCordoned | DeviceUncordoned]:
    """The events of a change. Raises UsageError when it names nothing, or several things.

    Args:
        change: ``{"cordon": target, "reason": ..., "drain": ...}`` or ``{"uncordon": target}``.
        nodes: those of the pool, by id.
        cordons: those there are, by device.
    """
    if "uncordon" in change:
        target = change["uncordon"]
        away = [name for name in cordons if name == target and not _is_there(name, nodes)]
        named = away or [device.id for _, device in devices_named(target, nodes)]
        return [DeviceUncordoned(name) for name in named]
    reason, drain = str(change.get("reason", "")), bool(change.get("drain", False))
    return [
        DeviceCordoned(Cordon(device.id, node.name, device.key, reason, drain))
        for node, device in devices_named(change["cordon"], nodes)
    ]


def devices_named(target: str, nodes: Mapping[str, Inventory]) -> list[tuple[Inventory, Device]]:
    """The device, or all devices of the node, that a word means.

    A device is called by its id, by the first characters of its node's id (``flexray status`` shows six) or its
    node's name with ``/gpu0``, or by its maker's key (UUID); a node by its id, the first characters of it, or its name.
    """
    pairs = [(node, device) for node in nodes.values() for device in node.devices]
    by_key = [pair for pair in pairs if target and target in (pair[1].id, pair[1].key)]
    if by_key:
        return by_key
    node_name, slash, local = target.rpartition("/")
    there = _nodes_named(node_name if slash else target, nodes)
    if len(there) > 1:
        ids = ", ".join(sorted(node.node for node in there))
        raise UsageError(f"{target!r} may mean any of several nodes: {ids}; give more of the node's id")
    found = [pair for pair in pairs if pair[0] in there and (not slash or pair[1].id.rpartition("/")[2] == local)]
    if not found:
        raise NotThere(f"there is no device or node {target!r}.{_suggestion(target, pairs)}")
    return found


def _nodes_named(name: str, nodes: Mapping[str, Inventory]) -> list[Inventory]:
    if name in nodes:
        return [nodes[name]]
    return [
        node for node in nodes.values() if node.name == name or (len(name) >= _SHORTEST and node.node.startswith(name))
    ]


def _suggestion(target: str, pairs: Collection[tuple[Inventory, Device]]) -> str:
    known = [_short(device.id) for _, device in pairs] + sorted({node.name for node, _ in pairs})
    near = difflib.get_close_matches(target, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{hint} Known: {', '.join(known[:12]) or 'none'}{', ...' if len(known) > 12 else ''}"


def _short(device: str) -> str:
    node, _, name = device.rpartition("/")
    return f"{node[:6]}/{name}"


def _is_there(name: str, nodes: Mapping[str, Inventory]) -> bool:
    return any(device.id == name for node in nodes.values() for device in node.devices)


def rows(cordons: Mapping[str, Cordon]) -> list[tuple[Any, ...]]:
    """Cordons as plain rows, to be kept."""
    return [dataclasses.astuple(cordon) for cordon in cordons.values()]


def from_rows(kept: list[list[Any]]) -> list[DeviceCordoned]:
    """The events that restore cordons from rows."""
    return [DeviceCordoned(Cordon(*row)) for row in kept]
