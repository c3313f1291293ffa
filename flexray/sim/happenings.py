"""What a scenario makes happen to nodes, devices and requests."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import TypeVar

from flexray.errors import UsageError
from flexray.model.devices import Device, DeviceState, Inventory
from flexray.model.lease import RequestId
from flexray.sim.clock import Happening, Simulation
from flexray.sim.reading import did_you_mean

_T = TypeVar("_T")

#: event -> (why a device takes nothing new, whether that begins or ends).
_MARKS = {
    "cordon": ("cordoned", True),
    "uncordon": ("cordoned", False),
    "device_sick": ("sick", True),
    "device_well": ("sick", False),
}


def happening_of(
    what: str, target: str, nodes: Mapping[str, Inventory], members: Mapping[str, list[RequestId]]
) -> Happening:
    """The act of one event of a scenario. Raises UsageError for a node, device or request that is not there.

    ``nodes`` are the inventories of the scenario, ``members`` the requests that a name stands for.
    """
    if what == "cancel":
        jobs = _find(what, target, members)
        return lambda simulation: _each(simulation, jobs)
    if what == "node_down":
        _find(what, target, nodes)
        return lambda simulation: simulation.lose(target)
    if what == "node_up":
        whole = _find(what, target, nodes)
        return lambda simulation: _join(simulation, whole)
    return _mark_change(what, target, nodes)


def _each(simulation: Simulation, jobs: list[RequestId]) -> None:
    for job in jobs:
        simulation.cancel(job)


def _join(simulation: Simulation, inventory: Inventory) -> None:
    if inventory.node not in simulation.inventories:
        simulation.report(_marked(simulation, inventory))


def _mark_change(what: str, target: str, nodes: Mapping[str, Inventory]) -> Happening:
    devices = {device.id: node for node, inventory in nodes.items() for device in inventory.devices}
    if what.startswith("device_"):
        node, chosen = _find(what, target, devices), {target}
    elif target in nodes:
        node, chosen = target, {device.id for device in nodes[target].devices}
    else:
        node, chosen = _find(what, target, {**{name: name for name in nodes}, **devices}), {target}
    mark, begins = _MARKS[what]
    return lambda simulation: _set_mark(simulation, node, chosen, mark, begins)


def _set_mark(simulation: Simulation, node: str, chosen: Collection[str], mark: str, begins: bool) -> None:
    for device in chosen:
        marks = simulation.marks.setdefault(device, set())
        marks.add(mark) if begins else marks.discard(mark)
    inventory = simulation.inventories.get(node)
    if inventory is not None:  # a node that is down says so when it is back
        simulation.report(_marked(simulation, inventory))


def _marked(simulation: Simulation, inventory: Inventory) -> Inventory:
    """An inventory whose devices take nothing new while there is a reason; the core knows one state for all reasons."""

    def state(device: Device) -> DeviceState:
        return DeviceState.SICK if simulation.marks.get(device.id) else DeviceState.READY

    devices = tuple(dataclasses.replace(device, state=state(device)) for device in inventory.devices)
    return dataclasses.replace(inventory, devices=devices)


def _find(what: str, target: str, known: Mapping[str, _T]) -> _T:
    try:
        return known[target]
    except KeyError:
        raise UsageError(f"events: {what}: there is no {target!r}.{did_you_mean(target, known)}") from None
