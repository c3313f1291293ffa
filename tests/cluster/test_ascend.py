"""Ascend NPUs end to end: a double of npu-smi, Ray's own NPU resource, tasks on virtual NPUs."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flexray as flex

from .conftest import until

pytest.importorskip("flexray.catalog.parts", reason="the core does not place on fixed parts yet")

DOUBLES = Path(__file__).parents[1] / "doubles"


@pytest.fixture(scope="module")
def npus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A pool on one node with two NPUs, as npu-smi's double shows them; yields the double's state."""
    import ray

    folder = tmp_path_factory.mktemp("npus")
    command = folder / "npu-smi"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {DOUBLES / "npu-smi"} "$@"\n')
    command.chmod(0o755)
    state = folder / "npus.json"
    saved = {name: os.environ.get(name) for name in ("PATH", "FAKE_NPU_STATE")}
    os.environ.update(PATH=f"{folder}:{os.environ['PATH']}", FAKE_NPU_STATE=str(state))
    ray.init(num_cpus=4, resources={"NPU": 2}, include_dashboard=False, log_to_driver=False, logging_level="error")
    flex.init(config={"poll_seconds": 0.5, "isolation": {"ascend/*": "vnpu"}})
    until(lambda: [d.state for d in flex.pool().devices] == ["ready", "ready"], 60)
    yield state
    flex.shutdown()
    ray.shutdown()
    for name, value in saved.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def virtual(state: Path) -> list[tuple[int, str]]:
    """(id, template) of the virtual NPUs of the node."""
    chips = json.loads(state.read_text())["npus"]
    return [(one["id"], one["template"]) for chip in chips for one in chip.get("vnpus", [])]


def change(state: Path, chip: int, **values: Any) -> None:
    """Change what npu-smi's double says of a chip, in one step and between two of its calls."""
    with open(f"{state}.log") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        found = json.loads(state.read_text())
        found["npus"][chip].update(values)
        fresh = state.with_suffix(".changed")
        fresh.write_text(json.dumps(found))
        fresh.replace(state)


@flex.task(npu=0.25)
def where() -> dict[str, Any]:
    here = flex.current()
    return {
        "visible": os.environ["ASCEND_RT_VISIBLE_DEVICES"],
        "isolation": here.isolation,
        "guarantee": here.guarantee,
        "share": here.share,
        "memory": here.memory,
        "notes": here.notes,
    }


def test_a_part_of_an_npu_is_a_virtual_npu_until_the_pool_stops(npus: Path) -> None:
    from flexray.runtime.pool import stop_pool

    assert {(d.type, d.memory, d.backend) for d in flex.pool().devices} == {("ascend/910B3", 65536, "ascend")}
    quarter = where.remote().result(60)
    ((number, template),) = virtual(npus)
    assert (quarter["visible"], template) == (str(number), "vir05_1c_16g")
    assert (quarter["isolation"], quarter["guarantee"], quarter["share"]) == ("vnpu", "hardware", 0.25)
    assert quarter["memory"] == 16 * 2**30 and f"/dev/vdavinci{number}" in quarter["notes"][0]
    half = where.options(npu=0.3).remote().result(60)
    assert (half["share"], half["memory"]) == (0.5, 32 * 2**30), "rounded up to what the maker offers"
    whole = where.options(npu=1).remote().result(60)
    assert whole["visible"] in ("0", "1") and whole["notes"] == (), "its mask is Ray's"
    change(npus, 1, health="Critical")
    until(lambda: [d.state == "ready" for d in flex.pool().devices] == [True, False])
    flex.shutdown()
    stop_pool()
    assert virtual(npus) == []
