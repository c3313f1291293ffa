"""CPU slices that are stopped and continued: accounts on a hand-turned clock, then real processes."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flexray.devices.enforcers import duty_beat
from flexray.devices.enforcers.cpu_amounts import CpuLimits
from flexray.devices.enforcers.duty import Duty
from flexray.devices.enforcers.duty_beat import Beat
from flexray.devices.enforcers.duty_lending import Lending, rates
from flexray.devices.enforcers.enforcer import Cell, NotResizable
from flexray.devices.enforcers.process_use import Known, cpu_nanoseconds, descendants, known, state_of
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.devices import Device, DeviceType, Family

PROC = Path("/proc")
DEVICE = Device("n/cpu0", "n", 0, DeviceType("cpu/x86_64", MemoryMiB(4096)), Family.CPU, "cpu", cores=(0,))
QUARTER = Cell("s1", (DEVICE,), Share(250), Share(250), MemoryMiB(100))
pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="processes cannot be held by descriptors here")


class Burner:
    """A process on a core of its own that works whenever it is not stopped."""

    def __init__(self, known: Known) -> None:
        self.known, self.running, self.owed = known, True, 0

    def send(self, number: int) -> None:
        self.running = number == duty_beat.signal.SIGCONT

    def spent(self) -> int:
        owed, self.owed = self.owed, 0
        return owed

    def close(self) -> None:
        pass


def play(
    beats: list[Beat], seconds: float, demand: Callable[[int, float], float] = lambda beat, now: 1.0
) -> list[float]:
    """Cores that each used; ``demand`` says how many of its core a beat's process wants at a time."""
    used, lending = [0.0] * len(beats), Lending()
    for tick in range(int(seconds * 1000)):
        now = 1.0 + tick / 1000
        for number, beat in enumerate(beats):
            for member in beat._members.values():
                work = demand(number, now - 1.0) / 1000 if member.running else 0.0
                member.owed += round(work * 1e9)
                used[number] += work
        lending.update([("d", beat) for beat in beats], now)
        for beat in beats:
            if beat.next <= now:
                beat.step(now)
    return [one / seconds for one in used]


@pytest.fixture
def beat(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Beat]:
    monkeypatch.setattr(duty_beat, "Member", Burner)

    def make(share: int, cap: int = 0, cores: int = 1, processes: int = 1) -> Beat:
        made = Beat(CpuLimits(cap or share, share), cores, 1.0)
        made.meet([Known(number, 0) for number in range(processes)])
        return made

    return make


@pytest.mark.parametrize("share", [10, 100, 250, 500, 900])
def test_the_average_is_the_share(beat: Callable[..., Beat], share: int) -> None:
    (used,) = play([beat(share)], 20.0)
    assert used == pytest.approx(share / 1000, abs=0.01)


def test_all_processes_count_together(beat: Callable[..., Beat]) -> None:
    (used,) = play([beat(500, cores=4, processes=3)], 20.0, lambda number, now: 1.0)
    assert used == pytest.approx(0.5, abs=0.02)


def test_a_whole_device_is_never_stopped(beat: Callable[..., Beat]) -> None:
    assert play([beat(1000)], 5.0) == [pytest.approx(1.0)]


def test_what_was_not_used_is_kept_for_a_moment_only(beat: Callable[..., Beat]) -> None:
    (used,) = play([beat(250)], 10.0, lambda number, now: 0.0 if now < 5.0 else 1.0)
    assert used == pytest.approx(0.125, abs=0.01), "five idle seconds are not made up for"


def test_a_burst_takes_what_is_idle_and_gives_it_back(beat: Callable[..., Beat]) -> None:
    lone = beat(250, 1000)
    assert play([lone], 5.0) == [pytest.approx(1.0, abs=0.02)]
    both = [beat(250, 1000), beat(750)]
    guest, owner = play(both, 20.0, lambda number, now: 1.0 if number == 0 or now >= 10.0 else 0.0)
    assert guest == pytest.approx((1.0 + 0.25) / 2, abs=0.04)
    assert owner == pytest.approx(0.75 / 2, abs=0.03)


def test_idle_cores_are_divided_by_share_up_to_the_caps() -> None:
    slices = [(CpuLimits(1000, 200), 0.2), (CpuLimits(300, 200), 0.2), (CpuLimits(400, 400), 0.0)]
    assert rates(1, slices) == [pytest.approx(0.5), pytest.approx(0.3), pytest.approx(0.4)]


# -- real processes ------------------------------------------------------------------------------------------------

BURN = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); print(flush=True)\nwhile True: pass"
FAMILY = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'while True: pass']); " + BURN


@pytest.fixture
def duty(tmp_path: Path) -> Iterator[Duty]:
    enforcer = Duty(state=tmp_path)
    yield enforcer
    enforcer.sweep([])


@pytest.fixture
def start() -> Iterator[Callable[[str, str], int]]:
    begun: list[subprocess.Popen[str]] = []

    def run(program: str, file: str) -> int:
        begun.append(subprocess.Popen([sys.executable, "-c", program, file], stdout=subprocess.PIPE, text=True))
        out = begun[-1].stdout
        assert out is not None
        out.readline()
        return begun[-1].pid

    yield run
    for process in begun:
        for member in descendants(PROC, [one for one in [known(PROC, process.pid)] if one]):
            os.kill(member.pid, 9)
        process.wait()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_process_that_burns_is_stopped_and_goes_on(duty: Duty, start: Callable[[str, str], int]) -> None:
    assert duty.probe([DEVICE])[DEVICE.id].usable
    (file,) = duty.prepare(QUARTER).join
    pid = start(BURN, file)
    before, began = cpu_nanoseconds(pid), time.monotonic()
    for state in "TRTR":
        until(lambda state=state: state_of(PROC, pid) == state)  # type: ignore[misc]
    time.sleep(0.5)
    after, passed = cpu_nanoseconds(pid), time.monotonic() - began
    assert before is not None and after is not None
    assert (after - before) / 1e9 / passed < 0.6, "it holds 0.25; unheld it takes all of its core"
    usage = duty.usage(QUARTER, [pid])
    assert usage.busy_seconds is not None and usage.busy_seconds > 0 and usage.memory is not None
    duty.release(QUARTER)
    until(lambda: state_of(PROC, pid) == "R")
    assert not Path(file).exists()


def test_children_are_stopped_with_it(duty: Duty, start: Callable[[str, str], int]) -> None:
    file = Path(duty.prepare(QUARTER).join[0])
    pid = start(FAMILY, str(file))
    until(lambda: len(file.read_text().split()) == 2)  # the whole family is told where the slice told its own number
    (child,) = {int(word) for word in file.read_text().split()} - {pid}
    until(lambda: state_of(PROC, child) == "T")


def test_what_a_dead_agent_left_stopped_goes_on(tmp_path: Path, start: Callable[[str, str], int]) -> None:
    folder = tmp_path / "duty/s1"
    folder.mkdir(parents=True)
    pid = start(BURN, str(folder / "pids"))
    os.kill(pid, duty_beat.signal.SIGSTOP)
    until(lambda: state_of(PROC, pid) == "T")
    Duty(state=tmp_path).sweep(["s1"])
    assert folder.exists() and state_of(PROC, pid) == "T"
    Duty(state=tmp_path).sweep([])
    until(lambda: state_of(PROC, pid) == "R")
    assert not folder.exists()


def test_it_is_resized_while_it_runs(duty: Duty) -> None:
    with pytest.raises(NotResizable, match="not known here"):
        duty.resize(QUARTER)
    duty.prepare(QUARTER)
    duty.resize(dataclasses.replace(QUARTER, share=Share(500), burst=Share(500)))
    fewer = dataclasses.replace(QUARTER, memory=MemoryMiB(50))
    duty.resize(fewer)
    assert duty.prepare(fewer).data_limit == 50, "its process moves the limit of its heap"


def test_without_proc_it_does_not_work(tmp_path: Path) -> None:
    support = Duty(root=tmp_path, state=tmp_path).probe([DEVICE])[DEVICE.id]
    assert not support.usable and "does not tell of processes" in support.reason
