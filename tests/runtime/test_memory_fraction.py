"""Torch is told a slice's part of memory when it is imported, and sets it when it first uses the device."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flexray.runtime import after_import as hook
from flexray.runtime.after_import import after_import
from flexray.runtime.memory_fraction import apply_memory_fraction, limit_memory


class Accelerator:
    """``torch.cuda`` of a machine with two devices, which nobody has used yet."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.used = False
        self.fractions: dict[int, float] = {}

    def _lazy_call(self, action: Callable[[], None]) -> None:
        action() if self.used else self.waiting.append(action)

    def use(self) -> None:
        self.used = True
        for action in self.waiting:
            action()

    def device_count(self) -> int:
        return 2

    def set_per_process_memory_fraction(self, fraction: float, device: int) -> None:
        assert self.used, "setting it must not be what takes the device"
        self.fractions[device] = fraction


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module that can be imported, and has not been; the hook is gone afterwards."""
    (tmp_path / "mod_to_wait_for.py").write_text("ready = True\nloader = __spec__.loader\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = list(sys.meta_path)
    yield "mod_to_wait_for"
    sys.meta_path[:] = before
    sys.modules.pop("mod_to_wait_for", None)


def test_an_action_waits_for_the_import_and_is_done_once(package: str) -> None:
    seen: list[tuple[str, bool]] = []
    after_import(package, lambda module: seen.append((module.__name__, module.ready)))
    after_import(package, lambda module: 1 / 0)
    after_import(package, lambda module: seen.append(("second", module.ready)))
    assert package not in sys.modules and seen == []
    module = __import__(package)
    assert seen == [(package, True), ("second", True)], "one that fails stops nobody"
    __import__(package)
    assert len(seen) == 2
    after_import(package, lambda module: seen.append(("late", module.ready)))
    assert seen[2] == ("late", True)
    assert type(module.loader).__name__ == "SourceFileLoader", "it does not see that we were there"
    assert type(module.__spec__.loader).__name__ == "SourceFileLoader"


def test_a_module_that_does_not_exist_is_still_not_found(package: str) -> None:
    after_import("no_such_module_here", print)
    with pytest.raises(ModuleNotFoundError):
        __import__("no_such_module_here")


def test_an_import_that_fails_fails_as_without_us(package: str, tmp_path: Path) -> None:
    (tmp_path / "mod_that_breaks.py").write_text("raise KeyError('HOME')")
    after_import("mod_that_breaks", print)
    with pytest.raises(KeyError):
        __import__("mod_that_breaks")
    assert isinstance(sys.meta_path[0], hook._Finder)


def test_the_fraction_is_set_for_every_device_when_torch_first_uses_it() -> None:
    torch = types.ModuleType("torch")
    torch.cuda = Accelerator()  # type: ignore[attr-defined]
    torch.xpu = types.SimpleNamespace()  # type: ignore[attr-defined]
    apply_memory_fraction(0.25, torch)
    assert torch.cuda.fractions == {}
    torch.cuda.use()
    assert torch.cuda.fractions == {0: 0.25, 1: 0.25}
    apply_memory_fraction(0.5, torch)
    assert torch.cuda.fractions == {0: 0.5, 1: 0.5}, "while it is in use it is set at once"


def test_torch_npu_brings_torch_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    torch, torch_npu = types.ModuleType("torch"), types.ModuleType("torch_npu")
    torch.npu = Accelerator()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch_npu", torch_npu)
    limit_memory(0.5)
    torch.npu.use()
    assert torch.npu.fractions == {0: 0.5, 1: 0.5}


def test_the_real_torch_takes_it_without_being_imported_early_or_taking_a_device() -> None:
    pytest.importorskip("torch")
    program = """
import sys
from flexray.runtime.memory_fraction import limit_memory
limit_memory(0.25)
assert "torch" not in sys.modules
import torch
calls = []
torch.cuda.set_per_process_memory_fraction = lambda fraction, index: calls.append((fraction, index))
torch.cuda.device_count = lambda: 1
assert not torch.cuda.is_initialized()
for queued, _ in torch.cuda._queued_calls[1:]:
    queued()
assert calls == [(0.25, 0)], calls
print("ok", torch.ones(2).sum().item())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "ok 2.0\n"), done.stderr
