"""``flexray dashboard`` on a real pool: the command, its address, and a task that is seen to run and to end."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import flexray as flex
from cluster.conftest import until

pytestmark = pytest.mark.usefixtures("pool")

CONFIG = {"fake_devices": "2xA100-80GB"}


def work(end: str) -> None:
    Path(f"{end}.runs").touch()
    while not Path(end).exists():
        time.sleep(0.02)


def test_a_task_is_seen_from_its_start_to_its_end(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    end = tmp_path / "end"
    future = flex.task(gpu=0.5)(work).remote(str(end))
    code = "from flexray.cli import main; main()"
    command = [sys.executable, "-u", "-c", code, "dashboard", "--port", str(port), "--allow-changes"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        assert server.stdout is not None
        found = re.search(r"\?token=(\S+)", server.stdout.readline())
        assert found, "the address with its token is not printed"

        def get(path: str, body: dict[str, Any] | None = None) -> Any:
            sent = json.dumps(body).encode() if body is not None else None
            headers = {"Authorization": f"Bearer {found[1]}", "Content-Type": "application/json"}
            asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", sent, headers)
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return json.load(answer)

        until(lambda: (tmp_path / "end.runs").exists())
        until(lambda: get("/api/requests")["running"])
        name = get("/api/requests")["running"][0]["id"]
        story = get(f"/api/request/{name}")
        assert story["explanation"]["lease"] == [name, 1]
        assert story["explanation"]["scores"]
        device = story["explanation"]["devices"][0]
        assert get("/api/cordon", {"device": device, "reason": "fan"}) == {"devices": [device]}
        until(lambda: any(one["reason"].endswith("fan") for one in get("/api/devices")["devices"]))
        get("/api/uncordon", {"device": device})
        end.touch()
        future.result(timeout=60)
        del future
        until(lambda: [one for one in get("/api/history?since=0")["holdings"] if one["lease"][0] == name])
    finally:
        server.terminate()
        server.wait(30)
