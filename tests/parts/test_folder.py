"""Checkpoints as bytes and as files: whole or not there, the last good one found, all of it deleted at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexray.errors import InvalidRequest, NotSerializable
from flexray.runtime.folder import Folder, check_place
from flexray.runtime.frozen import freeze, thaw, writable


def copy_of(state: Any) -> Any:
    frozen = freeze(state)
    return thaw(frozen.head, writable(frozen.buffers))


@pytest.fixture(params=["directory", "file URL", "fsspec"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "fsspec":
        pytest.importorskip("fsspec")
        return Folder(f"local://{tmp_path}", "me-1")
    return Folder({"directory": "", "file URL": "file://"}[request.param] + str(tmp_path), "me-1")


def files(tmp_path: Path) -> list[Path]:
    return sorted(path for path in tmp_path.rglob("*") if path.is_file())


# -- bytes -------------------------------------------------------------------------------------


def test_arrays_are_not_copied_into_the_pickle_and_come_back_writable() -> None:
    weights = np.arange(1_000_000, dtype=np.float32)
    state = {"weights": weights, "transposed": weights.reshape(1000, 1000).T, "step": 7, "name": "x"}
    frozen = freeze(state)
    assert len(frozen.head) < 1000 and frozen.size > 8_000_000
    assert np.shares_memory(np.frombuffer(frozen.buffers[0], np.float32), weights)
    back = thaw(frozen.head, writable(frozen.buffers))
    weights += 1
    assert back["step"] == 7 and back["weights"][3] == 3
    back["weights"] -= 1  # would raise on a view of Ray's memory
    assert (back["transposed"] == np.arange(1_000_000, dtype=np.float32).reshape(1000, 1000).T).all()


def test_tensors_of_every_kind_come_back() -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(300, 300)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 300)).sum().backward()
    optimizer.step()
    state = {
        "layer": layer.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "odd": [torch.tensor(3.5), torch.empty(0, 4), torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(4, 4).t()[1:]],
        "complex": torch.ones(3, dtype=torch.complex64).conj(),
        "sparse": torch.eye(3).to_sparse(),
        "graph": layer.weight * 2,
        "whole": layer,
    }
    frozen = freeze(state)
    assert len(frozen.head) < 12_000
    back = thaw(frozen.head, writable(frozen.buffers))
    for one, other in zip(state["odd"], back["odd"], strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    assert torch.equal(back["complex"], state["complex"])
    assert torch.equal(back["sparse"].to_dense(), torch.eye(3))
    assert torch.equal(back["random"], state["random"])
    assert torch.equal(back["graph"], state["graph"]) and back["graph"].requires_grad
    other = torch.nn.Linear(300, 300)
    other.load_state_dict(back["layer"])
    torch.optim.Adam(other.parameters()).load_state_dict(back["optimizer"])
    assert torch.equal(other.weight, layer.weight) and torch.equal(back["whole"].weight, layer.weight)
    assert isinstance(back["whole"].weight, torch.nn.Parameter)


@pytest.mark.parametrize("state", [None, 0, [], {"a": (1, b"x" * 200_000, bytearray(5))}, lambda x: x + 1])
def test_any_state_that_pickles_is_stored(state: Any) -> None:
    back = copy_of(state)
    assert back(1) == 2 if callable(state) else back == state and type(back) is type(state)


def test_what_cannot_be_stored_is_named() -> None:
    import threading

    with pytest.raises(NotSerializable, match=r"checkpoint of type dict cannot be stored.*lock"):
        freeze({"lock": threading.Lock()})


# -- files -------------------------------------------------------------------------------------


def test_the_last_one_is_found_and_the_one_before_deleted(folder: Folder, tmp_path: Path) -> None:
    assert folder.read() == (False, None)
    for step in range(3):
        folder.write(freeze({"step": step, "weights": np.full(1000, step)}))
        assert len(files(tmp_path)) == 1
    found, state = folder.read()
    assert found and state["step"] == 2 and (state["weights"] == 2).all()
    state["weights"] += 1
    folder.write(freeze(None))
    assert folder.read() == (True, None)
    folder.remove()
    assert files(tmp_path) == [] and folder.read() == (False, None)
    folder.remove()


def test_another_call_in_the_same_place_is_left_alone(tmp_path: Path) -> None:
    mine, other = Folder(str(tmp_path), "me-1"), Folder(str(tmp_path), "me-10")
    mine.write(freeze(1))
    other.write(freeze(10))
    mine.remove()
    assert other.read() == (True, 10)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


BREAKS = {
    "cut": cut,
    "last byte missing": lambda data: data[:-1],
    "empty": lambda data: b"",
    "not ours": lambda data: b"hello",
}
BREAKS |= {f"byte {at} wrong": flip(at) for at in (0, 8, 13, 40, -1000, -2)}


@pytest.mark.parametrize("damage", list(BREAKS))
def test_a_broken_file_is_passed_over_for_the_one_before(tmp_path: Path, damage: str) -> None:
    folder = Folder(str(tmp_path), "me-1")
    folder.write(freeze("first"))
    (first,) = files(tmp_path)
    good = first.read_bytes()
    folder.write(freeze(["second", np.ones(10_000)]))
    (second,) = files(tmp_path)
    first.write_bytes(good)  # as if the second's writer had been killed before it deleted the first
    data = second.read_bytes()
    assert folder.read()[1][0] == "second"
    at = BREAKS[damage]
    second.write_bytes(at(data))
    assert second.read_bytes() != data
    assert folder.read() == (True, "first")
    folder.write(freeze("third"))
    assert folder.read() == (True, "third") and len(files(tmp_path)) == 1


def test_a_writer_that_fails_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(str(tmp_path), "me-1")
    folder.write(freeze("good"))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.write(freeze("bad"))
    assert folder.read() == (True, "good") and len(files(tmp_path)) == 1


def test_a_name_is_there_only_with_all_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, seen = Folder(str(tmp_path), "me-1"), []
    folder.write(freeze("before"))
    synced = os.fsync

    def look(number: int) -> None:
        synced(number)
        seen.append(folder.read())

    monkeypatch.setattr(os, "fsync", look)
    folder.write(freeze("after"))
    assert seen == [(True, "before"), (True, "after")] and folder.read() == (True, "after")


def test_a_file_that_may_not_be_read_is_no_reason_to_start_afresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(str(tmp_path), "me-1")
    folder.write(freeze(1))
    monkeypatch.setattr("builtins.open", lambda *_: (_ for _ in ()).throw(PermissionError("no")))
    with pytest.raises(PermissionError):
        folder.read()


# -- what may be named -------------------------------------------------------------------------


def test_directories_need_no_fsspec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    check_place(str(tmp_path))
    check_place(f"file://{tmp_path}")
    Folder(f"file://{tmp_path}", "me-1").write(freeze(1))
    with pytest.raises(InvalidRequest, match=r"pip install fsspec\[s3\]"):
        check_place("s3://bucket/x")


def test_a_url_that_nothing_here_can_write_to_is_refused() -> None:
    pytest.importorskip("fsspec")
    check_place("memory://x")
    with pytest.raises(InvalidRequest, match="bogus"):
        check_place("bogus://bucket/x")
