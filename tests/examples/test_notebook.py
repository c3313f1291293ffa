"""A notebook, run by a real kernel: calls, ``await``, a bar, the pool as a table, a cell that is run again."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

CELLS = [
    'import asyncio, flexray as flex\nflex.init(config={"fake_devices": "2xT4"})',
    "@flex.task(gpu=0.5)\ndef double(x):\n    return 2 * x\n\n[double.remote(x).result() for x in range(3)]",
    "[await double.remote(21), await asyncio.gather(double.remote(1), double.remote(2))]",
    '[future.result() for future in flex.progress([double.remote(5)], "a <bar>")]',
    "flex.pool()",
    "@flex.task(gpu=0.5)\ndef double(x):\n    return 20 * x\n\ndouble.remote(1).result()",
    "@flex.actor(gpu=0.5)\nclass Counter:\n    count = 0\n    def add(self):\n        self.count += 1\n"
    "        return self.count\n\ncounter = Counter.remote()\n[await counter.add.remote(), await counter.add.remote()]",
    "counter.stop()\nflex.shutdown()",
]


def test_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    with tempfile.TemporaryDirectory(prefix="fxn", dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)  # its sockets want a short name
        where = {"metadata": {"path": str(tmp_path)}}
        done = NotebookClient(notebook, timeout=120, resources=where).execute()
    outputs = [[one for one in cell.outputs if one.output_type != "stream"] for cell in done.cells]
    values = [json.loads(out[-1].data["text/plain"]) for out in (outputs[1], outputs[2], outputs[5], outputs[6])]
    assert values == [[0, 2, 4], [42, [2, 4]], 20, [1, 2]]
    bar, value = outputs[3]
    assert bar.data["text/html"] == "<progress value='1' max='1'></progress> a &lt;bar&gt;: 1 of 1"
    assert json.loads(value.data["text/plain"]) == [10]
    assert "2 devices" in outputs[4][0].data["text/html"] and "nvidia/T4" in outputs[4][0].data["text/html"]
    assert not [out for cell in outputs for out in cell if out.output_type == "error"]
