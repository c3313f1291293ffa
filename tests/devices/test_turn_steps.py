"""Torch's steps take turns by themselves, and nothing of the user's code notices; ``flex.turn()`` for all else."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import flexray as flex
from flexray.devices.enforcers.enforcer import Cell
from flexray.devices.enforcers.turns import SOCKET, Turns
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.devices import Device, DeviceType, Family
from flexray.runtime import turns as turns_of_process
from flexray.runtime.after_import import after_import
from flexray.runtime.torch_steps import take_turns

GPU = Device("ab12/gpu0", "ab12", 0, DeviceType("nvidia/T4", MemoryMiB(16000)), Family.GPU, "fake")


class Steps:
    """Counts what the hooks say."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def begin(self) -> None:
        self.said.append("begin")

    def end(self) -> None:
        self.said.append("end")

    def stay_open(self, begun: float) -> None:
        self.said.append("open")

    def rest(self) -> None:
        self.said.append("rest")


@pytest.fixture
def steps() -> Iterator[Steps]:
    counted = Steps()
    handles = take_turns(torch, counted)
    yield counted
    for undo in handles:
        undo()


def nested() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(4, 2)))


def test_inference_is_one_step_of_the_outermost_module(steps: Steps) -> None:
    model = nested().eval()
    with torch.no_grad():
        model(torch.ones(1, 4))
        model(torch.ones(1, 4))
    assert steps.said == ["begin", "end"] * 2


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad])
def test_modules_in_training_mode_without_gradients_are_inference(steps: Steps, context: type) -> None:
    with context():
        nested()(torch.ones(1, 4))
    assert steps.said == ["begin", "end"]


def test_a_training_step_ends_with_the_optimizer(steps: Steps) -> None:
    model, loss = nested(), torch.nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        loss(model(torch.ones(1, 4)), torch.ones(1, 2)).backward()
        optimizer.step()
    assert steps.said == ["begin", "open", "end", "begin", "open", "end", "rest"] * 2


def test_training_is_what_it_was(steps: Steps) -> None:
    def train() -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nested()
        optimizer = torch.optim.Adam(model.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = model(torch.ones(1, 4))
            out.sum().backward()
            optimizer.step()
        return [parameter.detach().clone() for parameter in model.parameters()]

    hooked = train()
    said = len(steps.said)
    assert said
    assert all(map(torch.equal, hooked, train()))


@pytest.mark.parametrize("workers", [0, 1])
def test_the_next_batch_ends_a_step(steps: Steps, workers: int) -> None:
    for _ in torch.utils.data.DataLoader(range(3), batch_size=1, num_workers=workers):
        steps.said.append("batch")
    assert steps.said == ["rest", "batch"] * 3 + ["rest"]


class Doubling(torch.utils.data.Dataset):
    """Has a module in its workers."""

    def __init__(self) -> None:
        self.module = torch.nn.Linear(1, 1)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        with torch.no_grad():
            return self.module(torch.ones(1))


class Refusing(Steps):
    def begin(self) -> None:
        raise AssertionError("a loader's worker takes no turn")


def test_workers_of_a_data_loader_take_none() -> None:
    handles = take_turns(torch, Refusing())
    try:
        loader = torch.utils.data.DataLoader(Doubling(), num_workers=1, multiprocessing_context="fork")
        assert len(list(loader)) == 2
    finally:
        for undo in handles:
            undo()


def test_a_forward_pass_that_raises_ends_its_step(steps: Steps) -> None:
    model = nested()
    with pytest.raises(RuntimeError):
        model(torch.ones(1, 5))
    model.eval()(torch.ones(1, 4))
    assert (steps.said.count("begin"), steps.said.count("end")) == (2, 2)


class Interrupted(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x is STOP:
            raise KeyboardInterrupt
        return self.inner(x)


STOP = torch.ones(1, 4)


def test_an_interrupted_pass_is_over(steps: Steps) -> None:
    model = Interrupted().eval()
    with pytest.raises(KeyboardInterrupt):
        model(STOP)
    model(torch.ones(1, 4))
    assert steps.said == ["begin", "end", "begin", "end"]


def test_threads_have_steps_of_their_own(steps: Steps) -> None:
    model = nested().eval()
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        with torch.no_grad():
            for _ in range(50):
                model(torch.ones(1, 4))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (steps.said.count("begin"), steps.said.count("end")) == (200, 200)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_scripted_traced_exported_and_symbolic_modules_work(steps: Steps) -> None:
    model, x = nested().eval(), torch.ones(1, 4)
    expected = model(x)
    made = [
        torch.jit.script(model),
        torch.jit.trace(model, x),
        torch.fx.symbolic_trace(model),
        torch.export.export(model, (x,)).module(),
    ]
    for other in made:
        steps.said.clear()
        assert torch.equal(other(x), expected)
        assert (steps.said.count("begin"), steps.said.count("end")) == (1, 1)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_module_is_one_step_and_one_graph(steps: Steps, backend: str) -> None:
    torch._dynamo.reset()
    model, x = nested().eval(), torch.ones(1, 4)
    expected = model(x)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for _ in range(2):
        steps.said.clear()
        with warnings.catch_warnings():
            warnings.filterwarnings("error", category=UserWarning)
            warnings.filters.append(warnings.filters.pop(0))  # type: ignore[attr-defined]
            assert torch.allclose(compiled(x), expected)
        assert steps.said == ["begin", "end"]
    torch._dynamo.reset()


def test_training_a_compiled_module(steps: Steps) -> None:
    torch._dynamo.reset()
    model = torch.compile(nested(), fullgraph=True, backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        steps.said.clear()
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        assert steps.said == ["begin", "open", "end", "rest"]
    torch._dynamo.reset()


def test_a_compiled_function_compiles_whole(steps: Steps) -> None:
    torch._dynamo.reset()
    model = nested().eval()
    function = torch.compile(lambda x: model(x) + 1, fullgraph=True, backend="eager")
    assert function(torch.ones(1, 4)).shape == (1, 2)
    torch._dynamo.reset()


def test_the_capture_of_a_graph_is_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    class Graph:
        def capture_begin(self) -> None:
            counted.said.append("capture")

        def capture_end(self) -> None:
            raise RuntimeError("capture failed")

    counted = Steps()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    handles = take_turns(torch, counted)
    graph = Graph()
    graph.capture_begin()
    with pytest.raises(RuntimeError, match="capture failed"):
        graph.capture_end()
    for undo in handles:
        undo()
    assert counted.said == ["begin", "capture", "end"]


# -- flex.turn() and the slice's process -----------------------------------------------------


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process that is no slice yet."""
    monkeypatch.setattr(turns_of_process, "_gate", None)
    monkeypatch.setattr(turns_of_process, "_looked", False)
    monkeypatch.delenv(SOCKET, raising=False)
    yield
    turns_of_process._forget()


def test_outside_a_slice_a_turn_is_nothing(gate: None) -> None:
    with flex.turn(), flex.turn():
        pass
    assert turns_of_process._gate is None


def test_a_turn_in_a_slice(gate: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(turns_of_process.SWITCH, "off")
    monkeypatch.setattr(turns_of_process, "after_import", lambda *_: pytest.fail("hooks are switched off"))
    enforcer = Turns(tmp_path)
    cell = Cell("a", (GPU,), Share(500), Share(1000), MemoryMiB(1))
    done: list[str] = []
    monkeypatch.setattr(turns_of_process, "synchronise", lambda: done.append("synchronised"))
    turns_of_process.enter_turns(enforcer.prepare(cell).turns)
    with flex.turn():
        with flex.turn():
            pass
        assert done == []
        assert enforcer.held()["a"].turns == 1
    assert done[:1] == ["synchronised"]
    with pytest.raises(ZeroDivisionError), flex.turn():
        1 / 0  # noqa: B018
    assert turns_of_process._gate is not None and not turns_of_process._gate._busy
    enforcer.release(cell)


def test_no_socket_no_turns(gate: None) -> None:
    turns_of_process.enter_turns("")
    assert turns_of_process._gate is None


def test_devices_that_work_by_themselves_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("cuda"))
    turns_of_process._backends.cache_clear()
    try:
        turns_of_process.synchronise()
    finally:
        turns_of_process._backends.cache_clear()
    assert done == ["cuda"]


SLICE = """
import os, sys
from flexray.runtime.turns import enter_turns
enter_turns(sys.argv[1])
assert "torch" not in sys.modules
import torch
model = torch.nn.Linear(2, 2).eval()
with torch.no_grad():
    model(torch.ones(1, 2))
print(torch.__spec__.loader.__class__.__name__, flush=True)
"""
CHILD = """
import flexray as flex
with flex.turn():
    print("in turn", flush=True)
"""


def test_a_slices_process(tmp_path: Path) -> None:
    """Torch is imported after the slice has entered; its first step takes a turn."""
    enforcer = Turns(tmp_path)
    cell = Cell("a", (GPU,), Share(500), Share(1000), MemoryMiB(1))
    path = enforcer.prepare(cell).turns
    said = subprocess.run([sys.executable, "-c", SLICE, path], check=True, capture_output=True, text=True)
    assert (said.stdout, said.stderr) == ("SourceFileLoader\n", "")
    assert enforcer.held()["a"].turns == 1
    enforcer.release(cell)


def test_a_process_that_a_slice_starts_finds_its_turns(tmp_path: Path) -> None:
    enforcer = Turns(tmp_path)
    cell = Cell("a", (GPU,), Share(500), Share(1000), MemoryMiB(1))
    setup = enforcer.prepare(cell)
    subprocess.run([sys.executable, "-c", CHILD], env={**os.environ, **setup.env}, check=True, capture_output=True)
    assert enforcer.held()["a"].turns == 1
    enforcer.release(cell)


# -- after an import -------------------------------------------------------------------------


def test_after_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "turn_example.py").write_text("x = 1\n")
    seen: list[int] = []
    finders = list(sys.meta_path)
    after_import("turn_example", lambda module: seen.append(module.x))
    importlib.import_module("turn_example")
    assert seen == [1] and sys.meta_path == finders
    after_import("turn_example", lambda module: seen.append(2))
    assert seen == [1, 2]
    monkeypatch.delitem(sys.modules, "turn_example")


def test_an_import_that_fails_may_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    seen: list[str] = []
    after_import("turn_example_2", lambda module: seen.append(module.__name__))
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("turn_example_2")
    (tmp_path / "turn_example_2.py").write_text("import no_such_module\n")
    importlib.invalidate_caches()
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        importlib.import_module("turn_example_2")
    (tmp_path / "turn_example_2.py").write_text("value = 'longer than before'\n")
    importlib.invalidate_caches()
    importlib.import_module("turn_example_2")
    assert seen == ["turn_example_2"]
    monkeypatch.delitem(sys.modules, "turn_example_2")


def test_what_fails_after_an_import_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "turn_example_3.py").write_text("x = 1\n")
    after_import("turn_example_3", lambda module: 1 / 0)  # type: ignore[arg-type, return-value]
    importlib.import_module("turn_example_3")
    assert "turn_example_3" in caplog.text
    monkeypatch.delitem(sys.modules, "turn_example_3")
