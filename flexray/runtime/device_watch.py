"""Watches the devices of a node: their condition, what is seen on them, and processes that belong to nobody."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from flexray.devices.backend import Health, ProcessUse, Sample
from flexray.errors import FlexrayError
from flexray.model.condition import Condition, Fault, Severity, observe
from flexray.model.devices import Device, DeviceNote, DeviceState, ForeignProcess

_SILENT = frozenset({"cpu", "declared"})
"""Backends of devices of which nothing can be told."""

_NOTES = 5
"""So many notes of a device are kept, the latest."""

_NOTE_AGAIN = 60.0
"""What is noted of a device again within so many seconds is not news."""


class Maker(Protocol):
    """What is asked of a device's maker; each may raise FlexrayError, when the driver does not answer."""

    def health(self, device: Device) -> Health: ...

    def sample(self, device: Device) -> Sample: ...


class Slices(Protocol):
    """What is on the devices of a node."""

    def on_device(self, device: str) -> bool:
        """Whether a slice is there, one that starts or stops too."""

    def pids(self) -> Collection[int]:
        """The processes of all slices, as far as they are known."""


class DeviceWatch:
    """Looks at the devices of a node whenever it is told to. Its methods may block; call them one at a time.

    Args:
        recovery: seconds that a device has to be well after a fault.
        clock: seconds since 1970.
    """

    def __init__(self, maker: Maker, slices: Slices, recovery: float, clock: Callable[[], float]) -> None:
        self._maker, self._slices, self._recovery, self._clock = maker, slices, recovery, clock
        self._conditions: dict[str, Condition] = {}
        self._notes: dict[str, dict[str, float]] = {}
        #: (device, pid) -> when it was first seen, also by the last look alone.
        self._strangers: dict[tuple[str, int], ForeignProcess] = {}
        self.foreign: tuple[ForeignProcess, ...] = ()

    @property
    def notes(self) -> tuple[DeviceNote, ...]:
        """What was seen on the devices lately, by device, oldest first."""
        return tuple(DeviceNote(name, what, at) for name, told in self._notes.items() for what, at in told.items())

    def look(self, devices: Mapping[str, Device]) -> tuple[dict[str, tuple[DeviceState, str]], bool]:
        """Look at devices, by id.

        Returns the states of those that have another now, with the reasons, and whether there is any news.
        """
        before = (self.foreign, self.notes)
        watched = [device for device in devices.values() if device.backend not in _SILENT]
        states = {device.id: self._look(device) for device in watched}
        self._see_strangers(watched)
        changed = {d.id: states[d.id] for d in watched if states[d.id] != (d.state, d.reason)}
        return changed, bool(changed) or before != (self.foreign, self.notes)

    def _look(self, device: Device) -> tuple[DeviceState, str]:
        now = self._clock()
        health = self._health(device)
        for fault in health.faults:
            if fault.severity is Severity.NOTE:
                self._note(device.id, fault.describe(), now)
        empty = not self._slices.on_device(device.id)
        known = self._conditions.get(device.id) or Condition(device.state)
        condition = observe(known, health.fault, empty=empty, now=now, recovery=self._recovery)
        self._conditions[device.id] = condition
        return condition.state, condition.fault.describe() if condition.fault is not None else ""

    def _health(self, device: Device) -> Health:
        try:
            return self._maker.health(device)
        except FlexrayError as error:
            return Health.of([Fault("", Severity.PASSING, f"the driver does not answer: {error}")])

    def _note(self, device: str, what: str, now: float) -> None:
        told = self._notes.setdefault(device, {})
        if now - told.get(what, float("-inf")) < _NOTE_AGAIN:
            return
        told.pop(what, None)
        told[what] = now
        while len(told) > _NOTES:
            del told[next(iter(told))]

    def _see_strangers(self, devices: list[Device]) -> None:
        """A process counts once two looks have seen it: one that a slice has just started is not known at once."""
        own, before, now = set(self._slices.pids()), self._strangers, self._clock()
        self._strangers = {}
        for device in devices:
            for process in self._processes(device):
                key = (device.id, process.pid)
                if process.pid not in own:
                    first = ForeignProcess(*key, process.memory, now)
                    self._strangers[key] = before.get(key, first)
        self.foreign = tuple(one for key, one in self._strangers.items() if key in before)

    def _processes(self, device: Device) -> Collection[ProcessUse]:
        try:
            return self._maker.sample(device).processes
        except FlexrayError:  # its health says so
            return ()
