"""The probe process for real: started, killed, hung, disturbed, orphaned."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flexray.devices.backend import NodeFacts, Sample
from flexray.devices.child import ProbeChild
from flexray.errors import BackendUnavailable
from flexray.model.amounts import MemoryMiB
from flexray.model.devices import BackendReport, Device, DeviceType, Family

FACTS = NodeFacts("n", fake="T4.910B3")
DEVICE = Device("n/gpu0", "n", 0, DeviceType("acme/X1", MemoryMiB(1024)), Family.GPU, "odd")

ODD = """
import ctypes, os, signal, sys, threading
from flexray.devices.backend import Sample
from flexray.devices.fake import FakeBackend
from flexray.devices.probe import serve
class Odd(FakeBackend):
    def health(self, device):
        if device.index == 0:
            os.kill(os.getpid(), signal.SIGSEGV)
        if device.index == 1:
            threading.Event().wait()
        if device.index == 2:
            raise RuntimeError("no idea")
        print("printed", flush=True)
        os.write(1, b"written\\n")
        ctypes.CDLL(None).puts(b"put by C")
        ctypes.CDLL(None).fflush(None)
        return super().health(device)
    def sample(self, device):
        return Sample(utilisation=1.0)
serve({"odd": Odd()})
"""


def odd_command() -> list[str]:
    return [sys.executable, "-c", f"import sys; sys.path = {sys.path!r}{ODD}"]


@pytest.fixture
def odd() -> ProbeChild:
    return ProbeChild(command=odd_command())


def on(index: int) -> Device:
    return Device("n/gpu0", "n", index, DeviceType("acme/X1", MemoryMiB(1024)), Family.GPU, "odd")


def wait_for_death(pid: int) -> None:
    """Wait until a child of this process has ended, leaving it to its parent's books."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_it_answers_with_typed_values(child: ProbeChild, tmp_path: Path) -> None:
    assert child.pid is None, "started on demand only"
    devices, reports = child.discover(FACTS)
    assert [device.id for device in devices] == ["n/gpu0", "n/npu0"]
    assert all(isinstance(device, Device) for device in devices)
    assert reports == (BackendReport("fake", 2),)
    assert child.health(devices[0]).ok
    assert child.sample(devices[0]) == Sample()
    assert child.pid not in (None, os.getpid())


def test_one_process_serves_many_requests(child: ProbeChild) -> None:
    child.discover(FACTS)
    first = child.pid
    child.discover(FACTS)
    assert child.pid == first


def test_it_leads_a_process_group_of_its_own(child: ProbeChild) -> None:
    child.discover(FACTS)
    assert child.pid is not None and os.getpgid(child.pid) == child.pid


def test_the_script_of_fake_devices_reaches_it(tmp_path: Path) -> None:
    script = tmp_path / "faults.json"
    probe = ProbeChild(fake_script=script)
    try:
        (gpu, _), _ = probe.discover(FACTS)
        assert probe.health(gpu).ok
        script.write_text('{"gpu0": {"health": "XID 79", "utilisation": 3}}')
        assert probe.health(gpu).reason == "XID 79"
        assert probe.sample(gpu).utilisation == 3.0
    finally:
        probe.close()


def test_a_killed_child_is_replaced(child: ProbeChild) -> None:
    before = child.discover(FACTS)
    pid = child.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for_death(pid)
    assert child.discover(FACTS) == before
    assert child.pid != pid


def test_a_crash_while_asked_is_an_error_and_the_next_request_works(odd: ProbeChild) -> None:
    try:
        with pytest.raises(BackendUnavailable, match=r"health.*died.*SIGSEGV"):
            odd.health(on(0))
        assert odd.pid is None
        assert odd.sample(DEVICE).utilisation == 1.0
    finally:
        odd.close()


def test_a_hanging_child_is_killed_and_replaced(odd: ProbeChild) -> None:
    try:
        odd.sample(DEVICE)
        pid = odd.pid
        assert pid is not None
        with pytest.raises(BackendUnavailable, match=r"health.*no answer in 0\.3 s"):
            odd.health(on(1), timeout=0.3)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert odd.sample(DEVICE).utilisation == 1.0
    finally:
        odd.close()


def test_an_exception_in_a_backend_costs_only_its_request(odd: ProbeChild) -> None:
    try:
        with pytest.raises(BackendUnavailable, match="health: RuntimeError: no idea"):
            odd.health(on(2))
        pid = odd.pid
        assert odd.sample(DEVICE).utilisation == 1.0
        assert odd.pid == pid
    finally:
        odd.close()


def test_what_libraries_print_goes_to_standard_error(odd: ProbeChild, capfd: pytest.CaptureFixture[str]) -> None:
    try:
        assert odd.health(on(3)).ok
    finally:
        odd.close()
    output, errors = capfd.readouterr()
    assert {"printed", "written", "put by C"} <= set(errors.splitlines())
    assert output == ""


def test_lines_that_are_no_answer_are_skipped() -> None:
    script = (
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    number = json.loads(line)['id']\n"
        "    for reply in ('garbage', '[]', json.dumps({'id': number - 1, 'ok': 'old'}), json.dumps({'id': number})):\n"
        "        print(reply)\n"
        "    print(json.dumps({'id': number, 'ok': {'ok': True, 'reason': ''}}), flush=True)\n"
    )
    probe = ProbeChild(command=[sys.executable, "-c", script])
    try:
        assert probe.health(DEVICE).ok
        assert probe.health(DEVICE).ok
    finally:
        probe.close()


@pytest.mark.parametrize("op", ["fly", "health"])
def test_a_request_that_makes_no_sense_is_refused(child: ProbeChild, op: str) -> None:
    with pytest.raises(BackendUnavailable, match=op):
        child.ask(op)
    assert child.discover(FACTS)[0]


def test_a_command_that_does_not_exist_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="cannot be started"):
        ProbeChild(command=[str(tmp_path / "nothing")]).health(DEVICE)


def test_requests_of_many_threads_get_their_own_answers(tmp_path: Path) -> None:
    script = tmp_path / "faults.json"
    script.write_text(json.dumps({f"gpu{i}": {"utilisation": i} for i in range(8)}))
    probe = ProbeChild(fake_script=script)
    wrong: list[object] = []

    def watch(device: Device) -> None:
        for _ in range(20):
            found = probe.sample(device).utilisation
            if found != device.index:
                wrong.append((device.id, found))

    try:
        devices, _ = probe.discover(NodeFacts("n", fake="8xT4"))
        threads = [threading.Thread(target=watch, args=(device,)) for device in devices]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        probe.close()
    assert len(devices) == 8 and not wrong


def test_closing_ends_the_process_and_a_later_request_starts_another(child: ProbeChild) -> None:
    child.discover(FACTS)
    pid = child.pid
    assert pid is not None
    child.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert child.discover(FACTS)[0]
    assert child.pid != pid


def test_the_module_answers_every_line_and_ends_with_its_input() -> None:
    requests = [
        {"id": 1, "op": "discover", "facts": {"node": "n", "fake": "T4"}},
        {"id": 2, "op": "health", "device": {"backend": "nobody"}},
    ]
    text = "\n".join([*map(json.dumps, requests), "", "not json"])
    done = subprocess.run(
        [sys.executable, "-m", "flexray.devices.probe"],
        input=text,
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr
    first, second, third = map(json.loads, done.stdout.splitlines())
    assert first["id"] == 1 and first["ok"]["devices"][0]["id"] == "n/gpu0"
    assert second["id"] == 2 and "error" in second
    assert third["id"] is None and "error" in third


def test_an_orphan_ends_even_while_a_library_call_hangs() -> None:
    command = odd_command()
    command[-1] = command[-1].replace("serve(", "import flexray.devices.probe as p; p.LAST_WORDS_S = 0.1; serve(")
    orphan = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert orphan.stdin is not None and orphan.stdout is not None
    request = {"id": 1, "op": "sample", "device": {"id": "n/gpu1", "node": "n", "index": 1, "backend": "odd"}}
    request["device"] |= {"type": {"name": "acme/X1", "memory": 1}, "family": "gpu"}  # type: ignore[operator]
    try:
        orphan.stdin.write(json.dumps(request).encode() + b"\n")
        orphan.stdin.flush()
        assert b'"ok"' in orphan.stdout.readline(), "it serves"
        orphan.stdin.write(json.dumps({**request, "op": "health"}).encode() + b"\n")
        orphan.stdin.close()
        assert orphan.wait(timeout=20) == 1, "its input ended during a call that never returns"
        orphan.stdout.close()
    finally:
        orphan.kill()
        orphan.wait()
