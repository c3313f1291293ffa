"""What operators have cordoned: devices that take nothing new, whatever their nodes say of them.

A cordon is known by the device's id while its node lives. When a device is reported under another id, because its
node has left and come back, its cordon goes with it: by the maker's key, or, where it has none, by the node's name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from flexray.model.devices import MOVES_OFF, Cordon, Device, DeviceState, Inventory


class Cordons:
    """The cordons of operators, by the id of the device."""

    def __init__(self) -> None:
        self.by_device: dict[str, Cordon] = {}

    def find(self, inventory: Inventory, known: Iterable[str]) -> None:
        """Have cordons of devices that are not there any more follow those devices to a node's report.

        Args:
            known: ids of the devices that are in the pool, before the report.
        """
        here = {device.id for device in inventory.devices}
        lost = [one for one in self.by_device.values() if one.device not in here and one.device not in known]
        for device in inventory.devices if lost else ():
            cordon = next((one for one in lost if _is_same(one, device, inventory)), None)
            if cordon is not None and device.id not in self.by_device:
                lost.remove(cordon)
                del self.by_device[cordon.device]
                self.by_device[device.id] = dataclasses.replace(cordon, device=device.id, node=inventory.name)

    def applied(self, device: Device) -> Device:
        """The device as the pool is to see it. What a fault demands goes before what an operator wants."""
        cordon = self.by_device.get(device.id)
        if cordon is None:
            return device
        state = device.state
        if state not in MOVES_OFF:
            state = DeviceState.DRAINING if cordon.drain else DeviceState.CORDONED
        reason = "; ".join(filter(None, (device.reason, cordon.describe())))
        return dataclasses.replace(device, state=state, reason=reason)


def _is_same(cordon: Cordon, device: Device, inventory: Inventory) -> bool:
    if cordon.key or device.key:
        return cordon.key == device.key
    return cordon.node == inventory.name and _local(cordon.device) == _local(device.id)


def _local(device: str) -> str:
    """``gpu0`` of ``n1/gpu0``."""
    return device.rpartition("/")[2]
