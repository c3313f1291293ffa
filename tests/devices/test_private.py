"""What flexray keeps on a node is its user's only, and what somebody else put there first is not used."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flexray.devices.cells import CellFile
from flexray.devices.enforcers.enforcer import Cell
from flexray.devices.enforcers.mig_records import Record, write_records
from flexray.devices.enforcers.vnpu_records import Record as VnpuRecord
from flexray.devices.enforcers.vnpu_records import VnpuRecords
from flexray.devices.private import only_mine, own_folder, private_folder
from flexray.errors import DeviceError
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.isolation import Isolation


@pytest.fixture(autouse=True)
def open_to_all() -> Iterator[None]:
    """The loosest mask there is: what is private below is so by itself."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_level_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = own_folder("node", "more")
    assert folder == tmp_path / f"flexray-{os.getuid()}" / "node" / "more"
    assert [mode(level) for level in (folder, folder.parent, folder.parent.parent)] == [0o700] * 3
    assert own_folder("node", "more") == folder
    deep = private_folder(tmp_path / "a" / "b")
    assert (mode(deep), mode(deep.parent)) == (0o700, 0o700)


def test_a_folder_that_others_could_enter_is_closed(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o777)
    assert mode(private_folder(tmp_path / "open")) == 0o700


def test_a_link_is_refused_wherever_it_leads(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "nowhere").symlink_to(tmp_path / "not there")
    for link in ("link", "nowhere"):
        with pytest.raises(DeviceError, match=r"is a link, no folder, or another user's.*TMPDIR"):
            private_folder(tmp_path / link)
    assert mode(tmp_path / "elsewhere") == 0o755


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DeviceError, match="no folder"):
        private_folder(tmp_path / "file")


def test_another_users_folder_is_refused_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o777)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(DeviceError, match="another user's"):
        private_folder(theirs)
    assert mode(theirs) == 0o777


def test_another_user_who_was_there_first_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not by a folder above: what is below it could be exchanged."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first = tmp_path / f"flexray-{os.getuid()}"
    (first / "node").mkdir(parents=True)
    if os.geteuid() == 0:
        os.chown(first, 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(DeviceError, match="another user's"):
        own_folder("node")


def test_the_records_of_what_was_made_are_private(tmp_path: Path) -> None:
    cells = CellFile(private_folder(tmp_path / "state") / "cells.json")
    cells.add(Isolation.MIG, Cell("s1", (), Share(500), Share(500), MemoryMiB(10)))
    write_records(tmp_path / "mig" / "mig.json", [Record("GPU-1", "1g.5gb", 0, "s1", True)])
    VnpuRecords(tmp_path / "vnpu" / "vnpu.json").add("s1", VnpuRecord("0.0", 1, "vir04"))
    for file in ("state/cells.json", "mig/mig.json", "vnpu/vnpu.json"):
        assert (file, mode(tmp_path / file), mode((tmp_path / file).parent)) == (file, 0o600, 0o700)


def test_a_file_is_made_for_its_user_only(tmp_path: Path) -> None:
    with open(tmp_path / "new", "a", opener=only_mine) as file:
        file.write("x")
    assert mode(tmp_path / "new") == 0o600
