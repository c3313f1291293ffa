"""The pool's demand for nodes, for Ray's autoscaler.

What the pool lacks are placement groups that nothing in the pool can meet, which is what Ray's autoscaler adds
nodes for; ``request_resources`` would take the place of what users ask for by it, and asks for all or nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from flexray.core.scaling import Bundle
from flexray.runtime.visible import RESOURCE_OF


class Demand:
    """Placement groups, one a bundle, that wait for nodes to be added. They end with the process that made them."""

    def __init__(self) -> None:
        self._groups: dict[Bundle, list[PlacementGroup]] = {}

    def publish(self, wanted: Counter[Bundle], known: Collection[str]) -> list[tuple[Bundle, str]]:
        """Have what is wanted waiting. Returns the bundles that were met since, and the nodes they were met on.

        A node that has come is held for its bundle until its agent is there to claim it.

        Args:
            known: nodes whose devices are in the pool's books: they are not to meet anything.
        """
        came = self._clear(known) if self._groups else []
        for bundle in [*self._groups.keys(), *wanted]:
            groups = self._groups.setdefault(bundle, [])
            while len(groups) > wanted[bundle]:
                remove_placement_group(groups.pop())
            while len(groups) < wanted[bundle]:
                groups.append(_ask(bundle, known))
        self._groups = {bundle: groups for bundle, groups in self._groups.items() if groups}
        return came

    def _clear(self, known: Collection[str]) -> list[tuple[Bundle, str]]:
        """Remove what was met on nodes that are known; the others come first, those that still wait last."""
        table, came = placement_group_table(), []
        for bundle, groups in self._groups.items():
            there = {group.id: _node_of(table.get(group.id.hex(), {})) for group in groups}
            for group in groups:
                if there[group.id] in known:
                    came.append((bundle, there[group.id]))
                    remove_placement_group(group)
            left = [group for group in groups if there[group.id] not in known]
            self._groups[bundle] = sorted(left, key=lambda group: not there[group.id])
        return came


def _node_of(entry: dict[str, Any]) -> str:
    """Where a placement group of one bundle is, "" while it waits."""
    met = entry.get("state") == "CREATED"
    return next(iter(entry["bundles_to_node_id"].values()), "") if met else ""


def _ask(bundle: Bundle, known: Collection[str]) -> PlacementGroup:
    resources: dict[str, float] = {RESOURCE_OF[bundle.node.family]: bundle.devices}
    if bundle.cpus:
        resources["CPU"] = bundle.cpus / 1000
    selector = dict(bundle.node.labels)
    if known:
        selector["ray.io/node-id"] = f"!in({','.join(sorted(known))})"
    return placement_group([resources], name="flexray-demand", bundle_label_selector=[selector])
