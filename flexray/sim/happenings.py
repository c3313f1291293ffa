"""What a scenario makes happen to nodes, devices and requests."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeVar

from flexray.errors import UsageError
from flexray.model.devices import Cordon, Device, DeviceState, Inventory
from flexray.model.lease import RequestId
from flexray.sim.clock import Happening, Simulation
from flexray.sim.reading import did_you_mean

_T = TypeVar("_T")

#: event -> the state of the device from then on; None: it is well.
_FAULTS = {
    "device_suspect": DeviceState.SUSPECT,
    "device_sick": DeviceState.SICK,
    "device_lost": DeviceState.LOST,
    "device_well": None,
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
    if what not in _FAULTS:
        return _cordon(what, target, nodes)
    node = _find(what, target, {device.id: node for node, there in nodes.items() for device in there.devices})
    return lambda simulation: _set_fault(simulation, node, target, _FAULTS[what])


def _each(simulation: Simulation, jobs: list[RequestId]) -> None:
    for job in jobs:
        simulation.cancel(job)


def _join(simulation: Simulation, inventory: Inventory) -> None:
    if inventory.node not in simulation.inventories:
        simulation.report(_with_faults(simulation, inventory))


def _cordon(what: str, target: str, nodes: Mapping[str, Inventory]) -> Happening:
    """Operators cordon a device, or all of a node."""
    by_device = {device.id: (node, device) for node in nodes.values() for device in node.devices}
    if target in nodes:
        chosen = [(nodes[target], device) for device in nodes[target].devices]
    else:
        _find(what, target, dict.fromkeys([*nodes, *by_device], True))
        chosen = [by_device[target]]
    cordons = [Cordon(device.id, node.name, device.key, drain=what == "drain") for node, device in chosen]

    def act(simulation: Simulation) -> None:
        for cordon in cordons:
            if what == "uncordon":
                simulation.uncordon(cordon.device)
            else:
                simulation.cordon(cordon)

    return act


def _set_fault(simulation: Simulation, node: str, device: str, state: DeviceState | None) -> None:
    """A device has a fault, or None any more."""
    simulation.faults.pop(device, None)
    if state is not None:
        simulation.faults[device] = state
    inventory = simulation.inventories.get(node)
    if inventory is not None:  # a node that is down says so when it is back
        simulation.report(_with_faults(simulation, inventory))


def _with_faults(simulation: Simulation, inventory: Inventory) -> Inventory:
    def state(device: Device) -> DeviceState:
        return simulation.faults.get(device.id, DeviceState.READY)

    devices = tuple(dataclasses.replace(device, state=state(device)) for device in inventory.devices)
    return dataclasses.replace(inventory, devices=devices)


def _find(what: str, target: str, known: Mapping[str, _T]) -> _T:
    try:
        return known[target]
    except KeyError:
        raise UsageError(f"events: {what}: there is no {target!r}.{did_you_mean(target, known)}") from None
