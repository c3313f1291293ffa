"""Every example runs as it stands, as a process of its own, and prints what its docstring promises."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

import pytest

from .conftest import EXAMPLES

Run = Callable[..., str]
SCRIPTS = (
    "batch_inference.py",
    "finetune_preemptible.py",
    "job_batch.py",
    "pipeline.py",
    "serve_torch.py",
    "serve_vllm.py",
    "tiny_llama.py",
    "train_ddp.py",
    "tune.py",
)


@pytest.mark.nightly
@pytest.mark.ray
def test_batch_inference(run_example: Run) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("pyarrow")
    printed = run_example("batch_inference.py", "--copies", 1, "--batch", 200)
    assert re.search(r"400 images on \d slices", printed)
    assert float(re.search(r"accuracy ([\d.]+)", printed)[1]) > 0.85


@pytest.mark.ray
def test_train_ddp(run_example: Run) -> None:
    pytest.importorskip("torch")
    printed = run_example("train_ddp.py", "--members", 2, "--epochs", 60)
    assert "2 members trained for 60 epochs" in printed
    accuracies = re.findall(r"rank (\d): accuracy ([\d.]+)", printed)
    assert [rank for rank, _ in accuracies] == ["0", "1"] and len({accuracy for _, accuracy in accuracies}) == 1
    assert float(accuracies[0][1]) > 0.85


@pytest.mark.ray
def test_finetune_preemptible(run_example: Run) -> None:
    pytest.importorskip("torch")
    printed = run_example("finetune_preemptible.py", "--seconds", 3)
    assert "training gave way" in printed
    starts = [int(epoch) for epoch in re.findall(r"attempt \d on .*: from epoch (\d+)", printed)]
    assert len(starts) == 2 and starts[0] == 0 < starts[1]  # it went on where it was
    before, after = map(float, re.search(r"turned digits ([\d.]+), then ([\d.]+)", printed).groups())
    assert before < 0.6 and after > 0.8


@pytest.mark.nightly
@pytest.mark.ray
def test_serve_torch(run_example: Run) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("starlette")
    printed = run_example("serve_torch.py", "--self-test", 64)
    assert re.search(r"serving at http://127\.0\.0\.1:\d+", printed)
    right, count = map(int, re.search(r"(\d+) of (\d+) right", printed).groups())
    assert count == 64
    assert right >= 50
    slices, batch = re.search(r"on (\d) slices \(.* requests\), ([\d.]+) to a batch", printed).groups()
    assert slices == "2" and float(batch) > 1


@pytest.mark.ray
def test_job_batch(run_example: Run) -> None:
    printed = run_example("job_batch.py", "--items", 20, "--rounds", 1000)
    assert "20 of 20 done" in printed
    assert re.search(r"20 items on cpu\d(, cpu\d)*: [\d.]+ s of work", printed)


@pytest.mark.nightly
@pytest.mark.ray
def test_pipeline(run_example: Run) -> None:
    pytest.importorskip("sklearn")
    printed = run_example("pipeline.py")
    assert "11 tasks described in" in printed
    scores = {way: float(score) for way, score in re.findall(r"^ *(.+): accuracy ([\d.]+)$", printed, re.MULTILINE)}
    assert set(scores) == {"pixels", "rows and columns", "contrast"}
    assert all(score > 0.8 for score in scores.values())
    assert f"best: {max(scores, key=scores.__getitem__)}, " in printed


@pytest.mark.nightly
@pytest.mark.ray
def test_tune(run_example: Run) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("tensorboardX")
    printed = run_example("tune.py", "--trials", 3)
    assert re.search(r"3 trials on \d slices", printed)
    assert float(re.search(r"best: \d+ epochs, accuracy ([\d.]+)", printed)[1]) > 0.5


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_is_short_says_how_to_run_it_and_is_in_the_list(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    assert len(text.splitlines()) < 100
    assert f"python {name}" in (ast.get_docstring(ast.parse(text)) or "")
    assert name in (EXAMPLES / "README.md").read_text()


def test_no_example_is_missing_here() -> None:
    scripts = {path.name for path in EXAMPLES.glob("*.py") if '__name__ == "__main__"' in path.read_text()}
    assert scripts == set(SCRIPTS)
