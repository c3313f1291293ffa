"""On a CPU device: slices borrow what others leave idle and give it back, and are held to the size they changed to."""

from __future__ import annotations

import hashlib
import threading
import time

import pytest

import flexray as flex
from cluster.conftest import until

pytestmark = pytest.mark.usefixtures("pool")

CONFIG = {"cpu_devices": 1}
LENDERS = ("cgroup", "duty", "turns")
Look = tuple[float, float]


@flex.actor(accelerator=0.25)
class Worker:
    def ready(self) -> tuple[str, float, float]:
        here = flex.current()
        return here.isolation, here.share, here.burst

    def work(self, begin: float, end: float, threads: int) -> list[Look]:
        """Keep so many cores busy from one time to another; (time, CPU seconds of this process) now and then."""
        looks, block = [], b"x" * 2**20  # hashing so much at once lets other threads of Python run

        def burn() -> None:
            while time.monotonic() < end:
                hashlib.sha256(block)

        time.sleep(max(0.0, begin - time.monotonic()))
        burners = [threading.Thread(target=burn) for _ in range(threads)]
        for burner in burners:
            burner.start()
        while time.monotonic() < end:
            looks.append((time.monotonic(), time.process_time()))
            time.sleep(0.05)
        for burner in burners:
            burner.join()
        return looks


@flex.actor(accelerator=0.25, memory="80MiB")
class Hoard:
    def __init__(self) -> None:
        self.kept = bytearray()

    def keep(self, mib: int) -> int:
        self.kept = bytearray()
        self.kept = bytearray(b"x") * (mib * 2**20)
        return len(self.kept) >> 20


def used(looks: list[Look], begin: float, end: float) -> float:
    """CPU seconds between two times."""
    inside = [look for look in looks if begin <= look[0] <= end]
    return inside[-1][1] - inside[0][1]


def test_what_is_idle_is_lent_and_comes_back_within_a_second() -> None:
    (device,) = flex.pool().devices
    if device.isolation not in LENDERS:
        pytest.skip(f"isolation {device.isolation} lends nothing")
    guest, owner = Worker.options(accelerator=(0.25, 1.0)).remote(), Worker.options(accelerator=0.75).remote()
    mechanism, share, burst = guest.ready.remote().result(60)
    assert (mechanism, share, burst) == (device.isolation, 0.25, 1.0)
    assert owner.ready.remote().result(60)[2] == 0.75, "no burst of its own"
    (shown,) = [piece for piece in flex.pool().slices if piece.burst == 1.0]
    assert shown.share == 0.25 and flex.pool().devices[0].share_held == 1.0, "the burst is not booked"

    cores = 4  # threads for whatever the device has; more than its cores do no harm
    start = time.monotonic() + 0.2
    wakes, stops = start + 1.5, start + 4.5
    alone = guest.work.remote(start, stops, cores)
    with_owner = owner.work.remote(wakes, stops, cores)
    guest_looks, owner_looks = alone.result(60), with_owner.result(60)
    idle = used(guest_looks, start + 0.25, wakes) / (wakes - start - 0.25)
    busy = used(guest_looks, wakes + 1, stops) / (stops - wakes - 1)
    both = busy + used(owner_looks, wakes + 1, stops) / (stops - wakes - 1)
    assert idle > 1.5 * busy, f"{idle:.2f} cores alone, {busy:.2f} beside the owner of the rest"
    assert busy < 0.4 * both, f"{busy:.2f} of {both:.2f} cores a second after their owner began"


def test_a_slice_is_held_to_the_size_it_changed_to() -> None:
    (device,) = flex.pool().devices
    if device.isolation not in LENDERS:
        pytest.skip(f"isolation {device.isolation} keeps the size that a slice began with")
    hoard = Hoard.remote()
    with pytest.raises((MemoryError, flex.errors.MemoryLimitExceeded, flex.errors.LeaseLost)):
        hoard.keep.remote(400).result(60)
    hoard = Hoard.remote()
    hoard.resize(memory="600MiB")
    assert hoard.keep.remote(400).result(60) == 400
    with pytest.raises(flex.errors.ResizeRefused, match=r"it uses 4\d\d MiB of memory"):
        hoard.resize(memory="100MiB")
    assert hoard.keep.remote(20).result(60) == 20
    hoard.resize(memory="100MiB", accelerator=0.5)
    (piece,) = [piece for piece in flex.pool().slices if piece.task_class.startswith("Hoard/") and piece.share == 0.5]
    assert piece.memory == 100


def test_what_slices_use_is_measured() -> None:
    if flex.pool().devices[0].isolation not in LENDERS:
        pytest.skip("nobody counts what a slice uses here")
    worker = Worker.options(accelerator=0.25).remote()
    worker.ready.remote().result(60)
    now = time.monotonic()
    worker.work.remote(now, now + 6, 1)
    until(lambda: any((piece.busy or 0) > 0.05 and piece.idle_seconds == 0.0 for piece in flex.pool().slices))
    assert all(piece.memory_used is not None for piece in flex.pool().slices if piece.busy is not None)
