"""Preemptible work on real Ray moves to the device that suits it, by its own will or by force."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import flexray as flex
from cluster.conftest import until

pytestmark = pytest.mark.usefixtures("pool")

CONFIG = {"fake_devices": "1xA100-80GB.1xT4", "rematch_seconds": 1, "grace_seconds": 1}
SUITS_A100 = {"nvidia/A100*": 1.0, "nvidia/T4": 0.2}


def hold(file: str) -> str:
    """Keep the device as long as the file is there; empties the file when it has the device."""
    Path(file).write_text("")
    while Path(file).exists():
        time.sleep(0.05)
    return flex.current().device.type.name


def train(listens: bool, file: str) -> tuple[str, int]:
    """Work that is done at once on the A100 and never on the T4. Returns where it ran and which attempt it was."""
    here = flex.current()
    with Path(file).open("a") as log:
        log.write(f"{here.device.type.name}\n")
    while "T4" in here.device.type.name:
        if listens and here.should_yield():
            raise flex.errors.Preempted
        time.sleep(0.05)
    return here.device.type.name, here.attempt


@pytest.mark.parametrize("listens", [True, False], ids=["it gives way", "it is stopped"])
def test_work_moves_to_the_faster_device_when_that_comes_free(tmp_path: Path, listens: bool) -> None:
    busy, log = tmp_path / "busy", tmp_path / f"log-{listens}"
    busy.write_text("wanted")
    first = flex.task(gpu=1, types="nvidia/A100*")(hold).remote(str(busy))
    until(lambda: not busy.read_text())
    request = flex.Request(runtime=36_000.0, throughput=SUITS_A100, preemptible=True, checkpoint_every=10.0)
    # the priority makes it a class of its own: of one that has run, the pool knows how short it is
    work = flex.task(gpu=1, retries=0, priority=int(listens), request=request)(train).remote(listens, str(log))
    until(lambda: log.exists() and log.read_text() == "nvidia/T4\n")
    time.sleep(1.5)  # no round moves it while there is nowhere to go
    assert log.read_text() == "nvidia/T4\n"
    busy.unlink()
    assert first.result(60) == "nvidia/A100-80GB"
    assert work.result(60) == ("nvidia/A100-80GB", 2)  # by force too it costs none of its (no) retries
    assert log.read_text() == "nvidia/T4\nnvidia/A100-80GB\n"


def test_work_that_is_done_when_it_is_asked_to_stop_is_done(tmp_path: Path) -> None:
    busy, begun = tmp_path / "busy", tmp_path / "begun"
    busy.write_text("wanted")

    def finish() -> str:
        begun.touch()
        while not flex.current().should_yield():
            time.sleep(0.02)
        return "all there is"

    first = flex.task(gpu=1, types="nvidia/A100*")(hold).remote(str(busy))
    until(lambda: not busy.read_text())
    request = flex.Request(runtime=36_000.0, throughput=SUITS_A100, preemptible=True)
    work = flex.task(gpu=1, request=request)(finish).remote()
    until(begun.exists)
    time.sleep(1.1)
    busy.unlink()
    assert first.result(60) and work.result(60) == "all there is"
