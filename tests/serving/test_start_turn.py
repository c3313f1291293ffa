"""Engines on one device start one after the other, also those of different processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flexray.errors import WaitTimeout
from flexray.serving.start_turn import start_turn

HOLDS = """
import sys, pathlib
from flexray.serving.start_turn import start_turn
with start_turn(["n/gpu0"], 30, pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_who_comes_second_waits_and_is_told_for_whom(tmp_path: Path) -> None:
    with (
        start_turn(["n/gpu0"], 1, tmp_path),
        pytest.raises(WaitTimeout, match=rf"n/gpu0 is still starting \(process {os.getpid()}\)"),
        start_turn(["n/gpu0"], 0, tmp_path),
    ):
        pytest.fail("two at once")
    with start_turn(["n/gpu0"], 0, tmp_path):  # it was given back
        pass


def test_other_devices_are_not_waited_for(tmp_path: Path) -> None:
    with start_turn(["n/gpu0"], 0, tmp_path), start_turn(["n/gpu1", "n/gpu2"], 0, tmp_path):
        pass


def test_a_failure_gives_back_all_of_several(tmp_path: Path) -> None:
    with start_turn(["n/gpu1"], 0, tmp_path), pytest.raises(WaitTimeout), start_turn(["n/gpu1", "n/gpu0"], 0, tmp_path):
        pytest.fail("one of them was held")
    with start_turn(["n/gpu0", "n/gpu1"], 0, tmp_path):
        pass


def test_engines_of_several_devices_do_not_wait_for_each_other_in_a_ring(tmp_path: Path) -> None:
    inside, most, done = 0, 0, []

    def start(devices: list[str]) -> None:
        nonlocal inside, most
        for _ in range(20):
            with start_turn(devices, 60, tmp_path):
                inside += 1
                most = max(most, inside)
                inside -= 1
        done.append(devices)

    threads = [threading.Thread(target=start, args=(those,)) for those in (["a", "b"], ["b", "a"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(done) == 2
    assert most == 1


def test_a_turn_ends_with_its_holder(tmp_path: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(WaitTimeout), start_turn(["n/gpu0"], 0, tmp_path):
            pytest.fail("the other process holds it")
        holder.send_signal(signal.SIGKILL)
        with start_turn(["n/gpu0"], 30, tmp_path):
            pass
