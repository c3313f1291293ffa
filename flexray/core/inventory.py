"""Nodes and devices that come, change and go."""

from __future__ import annotations

from flexray.core.cordons import Cordons
from flexray.core.placement import Pool
from flexray.core.records import SliceRecord
from flexray.core.slices import Slices
from flexray.model.devices import Inventory
from flexray.model.lease import SliceId


def apply_inventory(pool: Pool, slices: Slices, cordons: Cordons, inventory: Inventory) -> list[SliceRecord]:
    """Bring the pool in line with what a node says it has, and what operators have cordoned of it.

    Returns the slices whose device has left; it stays in the books, unusable, until
    they have ended.
    """
    if inventory.node not in pool.nodes:
        pool.host.add(inventory.node, (inventory.cpus, inventory.host_memory))
    cordons.find(inventory, pool.devices)
    pool.host.resize(inventory.node, (inventory.cpus, inventory.host_memory))
    pool.nodes[inventory.node] = inventory
    reported = {device.id for device in inventory.devices}
    for device in inventory.devices:
        pool.add_device(cordons.applied(device))
    left: dict[SliceId, SliceRecord] = {}
    for device in [d for d in pool.kinds.on_node(inventory.node) if d.id not in reported]:
        on_it = slices.by_device.get(device.id)
        if on_it:
            pool.retire_device(device.id)
            left.update(on_it)
        else:
            pool.remove_device(device.id)
    pool.changed(inventory.node)
    return list(left.values())


def drop_node(pool: Pool, node: str) -> None:
    """Forget a node all of whose slices have ended."""
    for device in pool.kinds.on_node(node):
        pool.remove_device(device.id)
    pool.host.remove(node)
    del pool.nodes[node]
    pool.changed(node)
