"""What there is now, read off a snapshot: a value for each series of each gauge."""

from __future__ import annotations

from collections import Counter

from flexray.model.devices import DeviceState
from flexray.model.lifecycle import HOLDING, SliceState, WaitReason
from flexray.model.snapshot import Snapshot
from flexray.telemetry.tally import Key

_MIB = 2**20
_WASTING_SECONDS = 60.0
"""A holder that has used hardly any of its slice for so long wastes it."""
_HOST = "host"


def gauges(shot: Snapshot, clients: int) -> dict[Key, float]:
    """Every gauge of the pool. States and reasons that nothing is in are 0, so that no old value stays anywhere."""
    found: dict[Key, float] = {
        ("flexray.leases", ()): float(len(shot.running)),
        ("flexray.clients", ()): float(clients),
        ("flexray.scheduler.epoch", ()): float(shot.epoch),
    }
    _devices(shot, found)
    _slices(shot, found)
    _queues(shot, found)
    _waiting(shot, found)
    return found


def _add(found: dict[Key, float], name: str, value: float, *labels: str) -> None:
    key = (name, labels)
    found[key] = found.get(key, 0.0) + value


def _devices(shot: Snapshot, found: dict[Key, float]) -> None:
    for device in shot.devices:
        labels = (device.id, device.type, device.node)
        for state in DeviceState:
            here = float(device.state == state.value)
            found["flexray.device.state", (*labels, state.value)] = here
            _add(found, "flexray.pool.devices", here, device.type, state.value)
        memory, held = device.memory * _MIB, device.memory_held * _MIB
        values = {"compute.held": device.share_held, "memory.size": memory, "memory.held": held}
        for name, value in {**values, "slices": len(device.slices), "compute.used": 0, "memory.used": 0}.items():
            found[f"flexray.device.{name}", labels] = float(value)
        for name, value in {"compute.held": device.share_held, "memory.size": memory, "memory.held": held}.items():
            _add(found, f"flexray.pool.{name}", value, device.type)
        for name in ("compute.idle", "compute.wasted"):
            _add(found, f"flexray.pool.{name}", 0.0, device.type)


def _slices(shot: Snapshot, found: dict[Key, float]) -> None:
    states = Counter(one.state for one in shot.slices)
    for state in SliceState:
        found["flexray.slices", (state.value,)] = float(states[state.value])
    devices = {device.id: (device.id, device.type, device.node) for device in shot.devices}
    holding = {state.value for state in HOLDING}
    for one in shot.slices:
        if one.state not in holding:
            continue
        for labels in (devices[name] for name in one.devices if name in devices):
            _add(found, "flexray.device.compute.used", one.busy or 0.0, *labels)
            _add(found, "flexray.device.memory.used", (one.memory_used or 0) * _MIB, *labels)
            if one.state == SliceState.IDLE.value:
                _add(found, "flexray.pool.compute.idle", one.share, labels[1])
            elif one.request and (one.idle_seconds or 0.0) >= _WASTING_SECONDS:
                _add(found, "flexray.pool.compute.wasted", one.share, labels[1])


def _queues(shot: Snapshot, found: dict[Key, float]) -> None:
    oldest: dict[str, float] = {}
    for line in shot.classes:
        oldest[line.queue] = min(line.submitted, oldest.get(line.queue, line.submitted))
    for queue in shot.queues:
        guaranteed = queue.compute_guaranteed
        values = {
            "waiting": float(queue.waiting),
            "running": float(queue.running),
            "waiting.oldest": max(0.0, shot.now - oldest.get(queue.name, shot.now)),
            "devices.held": queue.devices_held,
            "compute.held": queue.compute_held,
            "compute.quota": guaranteed,
            "compute.entitled": queue.compute_entitled,
            "compute.borrowed": queue.compute_borrowed,
            "quota.utilization": queue.compute_held / guaranteed if guaranteed else 0.0,
        }
        for name, value in values.items():
            found[f"flexray.queue.{name}", (queue.name,)] = value


def _waiting(shot: Snapshot, found: dict[Key, float]) -> None:
    """By the reason of the first of each class; those whose slice is chosen have one of their own."""
    counts: Counter[str] = Counter()
    for line in shot.classes:
        counts[line.wait_reason] += line.waiting
    counts.update(one.wait_reason for one in shot.waiting if not one.position)
    for reason in WaitReason:
        found["flexray.requests.waiting", (reason.value,)] = float(counts[reason.value])
