"""Which mechanism holds which device, and what is left of it after a crash."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from flexray.devices.enforcement import Enforcement
from flexray.devices.enforcers.enforcer import Cell, NotResizable, SliceSetup, Support, Usage
from flexray.errors import IsolationFailed
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.devices import BackendReport, Device, DeviceType, Family
from flexray.model.isolation import Isolation, Strength

GPU = Device("n/gpu0", "n", 0, DeviceType("nvidia/T4", MemoryMiB(16384)), Family.GPU, "nvidia")
OTHER = dataclasses.replace(GPU, id="n/gpu1", index=1, type=DeviceType("nvidia/A100-80GB", MemoryMiB(81920)))


class Scripted:
    """An enforcer whose doings are files in a folder, so that they outlive it as real ones do."""

    def __init__(self, isolation: Isolation, folder: Path, works_on: Collection[str]) -> None:
        self.isolation = isolation
        self._folder, self._works_on = folder, works_on
        self.fails = False

    def probe(self, devices: Sequence[Device]) -> dict[str, Support]:
        good = Support(True, memory=Strength.HARD)
        return {d.id: good if d.id in self._works_on else Support(False, "no driver") for d in devices}

    def prepare(self, cell: Cell) -> SliceSetup:
        self._file(cell).write_text(str(cell.share))
        if self.fails:
            raise IsolationFailed("half made")
        return SliceSetup(self.isolation)

    def resize(self, cell: Cell) -> None:
        if cell.share > 500:
            raise NotResizable("too large")
        self._file(cell).write_text(str(cell.share))

    def usage(self, cell: Cell, pids: Collection[int]) -> Usage:
        return Usage(memory=len(pids))

    def release(self, cell: Cell) -> None:
        if self.fails:
            raise IsolationFailed("the command hangs")
        self._file(cell).unlink(missing_ok=True)

    def sweep(self, keep: Collection[str]) -> None:
        for path in self._folder.iterdir():
            if path.name not in keep:
                path.unlink()

    def _file(self, cell: Cell) -> Path:
        return self._folder / cell.slice


class Node:
    """A node with two mechanisms, the better one of which works on the second GPU only."""

    def __init__(self, folder: Path, wanted: dict[str, str] | None = None) -> None:
        self.state = folder / "state"
        self.made = folder / "made"
        for path in (self.state, self.made):
            path.mkdir(exist_ok=True)
        self.mig = Scripted(Isolation.MIG, self.made, [OTHER.id])
        self.mps = Scripted(Isolation.MPS, self.made, [GPU.id, OTHER.id])
        makers = {"nvidia": (lambda node, state: self.mig, lambda node, state: self.mps)}
        self.enforcement = Enforcement("n", self.state, wanted, makers)
        self.devices = self.enforcement.equip([GPU, OTHER])

    @property
    def things(self) -> list[str]:
        return sorted(path.name for path in self.made.iterdir())

    @property
    def noted(self) -> list[str]:
        return [row["cell"]["slice"] for row in json.loads((self.state / "cells.json").read_text())]

    def cell(self, name: str, share: int = 250) -> Cell:
        return Cell(name, (self.devices[0],), Share(share), Share(share), MemoryMiB(1024))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_each_device_gets_the_best_that_works_there(node: Node) -> None:
    assert [device.isolation for device in node.devices] == [Isolation.MPS, Isolation.MIG]
    assert node.devices[0].guarantee.memory is Strength.HARD
    assert node.enforcement.reports() == (
        BackendReport("isolation mig", 1, "no driver"),
        BackendReport("isolation mps", 1, ""),
    )


def test_the_operator_may_choose(tmp_path: Path) -> None:
    node = Node(tmp_path, {"nvidia/A100*": "mps", "nvidia/*": "mig"})
    assert [device.isolation for device in node.devices] == [Isolation.NONE, Isolation.MPS]


def test_a_device_nobody_can_hold_is_offered_as_what_it_is(tmp_path: Path) -> None:
    enforcement = Enforcement("n", tmp_path, None, {})
    (device,) = enforcement.equip([GPU])
    cell = Cell("s", (device,), Share(250), Share(250), MemoryMiB(1))
    assert device.isolation is Isolation.NONE and enforcement.prepare(cell) == SliceSetup()
    assert enforcement.resize(cell) == SliceSetup(), "its share is kept in the books only"


def test_a_slice_is_noted_before_and_forgotten_after(node: Node) -> None:
    assert node.enforcement.prepare(node.cell("s1")).isolation is Isolation.MPS
    assert (node.things, node.noted) == (["s1"], ["s1"])
    assert node.enforcement.usage("s1", [1, 2]) == Usage(memory=2)
    node.enforcement.release("s1")
    assert (node.things, node.noted) == ([], [])
    node.enforcement.release("s1")
    assert node.enforcement.usage("s1", []) == Usage()


def test_what_could_not_be_made_is_undone(node: Node) -> None:
    node.mps.fails = True
    with pytest.raises(IsolationFailed, match="half made"):
        node.enforcement.prepare(node.cell("s1"))
    assert node.noted == ["s1"], "it could not be undone either, so it is still noted"
    node.mps.fails = False
    node.enforcement.close()
    assert node.things == []


def test_a_resize_that_is_refused_leaves_the_old_amounts_noted(node: Node) -> None:
    node.enforcement.prepare(node.cell("s1"))
    assert node.enforcement.resize(node.cell("s1", 400)).isolation is Isolation.MPS
    with pytest.raises(NotResizable):
        node.enforcement.resize(node.cell("s1", 600))
    (row,) = json.loads((node.state / "cells.json").read_text())
    assert row["cell"]["share"] == 400


def test_what_was_never_prepared_cannot_be_resized(node: Node) -> None:
    with pytest.raises(NotResizable, match="was it prepared"):
        node.enforcement.resize(node.cell("s1", 400))
    assert not node.things


def test_what_a_dead_agent_made_is_removed_by_the_next(node: Node, tmp_path: Path) -> None:
    node.enforcement.prepare(node.cell("s1"))
    (node.made / "never-noted").write_text("")
    after = Node(tmp_path)
    after.enforcement.recover()
    assert (after.things, after.noted) == ([], [])


def test_a_damaged_note_is_set_aside(node: Node, tmp_path: Path) -> None:
    node.enforcement.prepare(node.cell("s1"))
    (node.state / "cells.json").write_text('[{"isolation": "mps", "ce')
    after = Node(tmp_path)
    after.enforcement.recover()
    assert after.things == [] and (node.state / "cells.damaged").exists()


def test_what_cannot_be_removed_stays_noted(node: Node, tmp_path: Path) -> None:
    node.enforcement.prepare(node.cell("s1"))
    after = Node(tmp_path)
    after.mps.fails = True
    after.enforcement.recover()
    assert after.noted == ["s1"]


def test_one_mechanism_that_cannot_clean_up_keeps_no_other_from_it(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(keep: Collection[str]) -> None:
        raise IsolationFailed("the driver hangs")

    monkeypatch.setattr(node.mig, "sweep", fail)
    (node.made / "left behind").touch()
    node.enforcement.prepare(node.cell("s1"))
    node.enforcement.close()
    assert node.things == []
