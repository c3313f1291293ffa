"""The probe: a child process that asks backends, so that a crash in a maker's library kills only it.

``python -m flexray.devices.probe`` reads one JSON request per line on standard input and
answers one JSON line each on standard output, in order::

    {"id": 1, "op": "discover", "facts": {...}}    -> {"id": 1, "ok": {"devices": [...], "reports": [...]}}
    {"id": 2, "op": "health", "device": {...}}     -> {"id": 2, "ok": {"ok": true, "reason": ""}}
    {"id": 3, "op": "sample", "device": {...}}     -> {"id": 3, "error": "..."}

Nothing else reaches standard output, whatever libraries print. It ends when its input does.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import threading
from collections.abc import Mapping
from typing import Any

from flexray.devices.backend import DeviceBackend, NodeFacts
from flexray.devices.discover import discover, make_backends
from flexray.devices.fake import FakeBackend
from flexray.errors import UsageError
from flexray.model.devices import Device
from flexray.model.wire import from_plain, to_plain

LAST_WORDS_S = 5.0
"""Seconds a request may still run after the input has ended: its parent is gone."""


def serve(backends: Mapping[str, DeviceBackend]) -> None:
    """Answer requests until standard input ends. Takes over the process's standard streams."""
    answers = _take_stdout()
    requests: queue.Queue[str | None] = queue.Queue()
    done = threading.Event()
    threading.Thread(target=_read, args=(requests, done), daemon=True).start()
    while (line := requests.get()) is not None:  # unbounded: until its parent is gone
        text = json.dumps(answer(line, backends)) + "\n"
        try:
            _write(answers, text.encode())
        except BrokenPipeError:  # nobody reads any more; the reader may hold standard input, so no orderly exit
            os._exit(1)
    done.set()


def answer(line: str, backends: Mapping[str, DeviceBackend]) -> dict[str, Any]:
    """The answer to one request line. Never raises."""
    number = None
    try:
        request = json.loads(line)
        number = request.get("id")
        return {"id": number, "ok": to_plain(_do(request, backends))}
    except Exception as error:
        return {"id": number, "error": f"{type(error).__name__}: {error}"}


def _do(request: Mapping[str, Any], backends: Mapping[str, DeviceBackend]) -> object:
    operation = request.get("op")
    if operation == "discover":
        devices, reports = discover(from_plain(NodeFacts, request["facts"]), backends)
        return {"devices": devices, "reports": reports}
    if operation not in ("health", "sample"):
        raise UsageError(f"unknown operation {operation!r}")
    device = from_plain(Device, request["device"])
    backend = backends.get(device.backend)
    if backend is None:
        raise UsageError(f"no backend {device.backend!r}")
    return backend.health(device) if operation == "health" else backend.sample(device)


def _take_stdout() -> int:
    """Keep standard output for answers: whatever Python or C code prints goes to standard error instead."""
    answers = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return answers


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _read(requests: queue.Queue[str | None], done: threading.Event) -> None:
    """Pass lines on; when they end, end the process even if a library call never returns."""
    for line in sys.stdin:
        if line.strip():
            requests.put(line)
    requests.put(None)
    if not done.wait(LAST_WORDS_S):
        os._exit(1)


def main() -> None:
    """Serve the shipped backends."""
    parser = argparse.ArgumentParser(prog="python -m flexray.devices.probe", description=__doc__)
    parser.add_argument("--fake-script", help="JSON file with the faults of fake devices")
    arguments = parser.parse_args()
    serve({**make_backends(), "fake": FakeBackend(arguments.fake_script)})


if __name__ == "__main__":
    main()
