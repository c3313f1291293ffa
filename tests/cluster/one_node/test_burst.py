"""A slice that may burst uses what the others on its device leave idle, and gives it back when they want it."""

from __future__ import annotations

import hashlib
import threading
import time

import pytest

import flexray as flex

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
