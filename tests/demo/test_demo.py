"""The demo: its stream, its figures, its page, and one small run of all of it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from flexray.demo import DemoResult, run
from flexray.demo.measure import Answer, Hold, Side, covered, percentile
from flexray.demo.models import NAMES, TrainedModel, train
from flexray.demo.report import print_result, sentences
from flexray.demo.stream import make_stream
from flexray.demo.timeline import lanes, page, write_timeline
from flexray.errors import UsageError

DEVICES = ("node/cpu0", "node/cpu1")


def whole_devices(wait: float = 2.0) -> Side:
    """Each request waits ``wait`` seconds for a swap; the model's call takes 10 ms."""
    answers, holds = [], [Hold(NAMES[0], DEVICES[1], 1, -1.0, -0.8, -0.2, -0.1, 0.5)]
    for n in range(6):
        due = n * 3.0
        ready = due + wait
        holds.append(Hold(NAMES[n], DEVICES[n % 2], 1, due, due + wait / 4, due + wait / 2, ready, ready + 0.5))
        answers.append(Answer(n, NAMES[n], DEVICES[n % 2], n, due, ready, ready + 0.01, ready + 0.02))
    return Side("whole devices", DEVICES, tuple(answers), tuple(holds))


def slices(latency: float = 0.02) -> Side:
    answers, holds = [], []
    for n in range(6):
        due = n * 3.0
        holds.append(Hold(NAMES[n], DEVICES[n // 3], 0.33, -4.0, -3.0, -2.0, -1.0, 16.0))
        answers.append(Answer(n, NAMES[n], DEVICES[n // 3], n, due, due, due + 0.01, due + latency))
    return Side("slices", DEVICES, tuple(answers), tuple(holds))


def result(out: Path, whole: Side, sliced: Side, same: bool = True) -> DemoResult:
    models = tuple(TrainedModel(name, "SVC", "sklearn.svm", out / name, 1000, 0.97, ()) for name in NAMES)
    return DemoResult(7, 6, 0.33, models, whole, sliced, (6, 6), same, 60.0, out / "timeline.html")


def test_the_same_seed_gives_the_same_stream() -> None:
    first = make_stream(3, 200, 20.0, NAMES, 450)
    assert first == make_stream(3, 200, 20.0, NAMES, 450)
    assert first != make_stream(4, 200, 20.0, NAMES, 450)


def test_a_stream_arrives_at_its_rate_and_asks_every_model() -> None:
    stream = make_stream(0, 2000, 50.0, NAMES, 450)
    assert stream[0].at == 0.0
    assert [arrival.number for arrival in stream] == list(range(2000))
    assert all(a.at < b.at for a, b in itertools.pairwise(stream))
    assert stream[-1].at == pytest.approx(2000 / 50.0, rel=0.1)
    assert {arrival.model for arrival in stream} == set(NAMES)
    assert all(0 <= arrival.image < 450 for arrival in stream)


@pytest.mark.parametrize(
    ("values", "part", "expected"),
    [
        ([], 0.5, 0.0),
        ([7.0], 0.95, 7.0),
        ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0),
        ([float(n) for n in range(1, 101)], 0.95, 95.0),
        ([float(n) for n in range(1, 101)], 1.0, 100.0),
        ([1.0, 2.0], 0.0, 1.0),
    ],
)
def test_percentile(values: list[float], part: float, expected: float) -> None:
    assert percentile(values, part) == expected


@pytest.mark.parametrize(
    ("spans", "expected"),
    [([], 0.0), ([(0, 1), (2, 3)], 2.0), ([(0, 4), (1, 2), (3, 5)], 5.0), ([(1, 2), (1, 2)], 1.0)],
)
def test_time_that_spans_share_counts_once(spans: list[tuple[float, float]], expected: float) -> None:
    assert covered(spans) == expected


def test_the_figures_of_a_side() -> None:
    side = whole_devices()
    assert side.wall == pytest.approx(17.02)
    assert side.per_second == pytest.approx(6 / 17.02)
    assert side.latency(0.5) == pytest.approx(2.02)
    assert (side.loads, len(side.swaps)) == (7, 6)
    assert side.setup == pytest.approx(0.9)
    assert side.in_use == pytest.approx(6 * 0.01 / (2 * 17.02))
    assert side.swapping == pytest.approx(6 * 2.0 / (2 * 17.02))
    assert (side.within(0.1), slices().within(0.1)) == (0.0, 1.0)


def test_a_side_without_answers_has_figures_too() -> None:
    assert Side("none", (), (), ()).as_dict()["served"] == 0


class _Page(HTMLParser):
    """Everything a page would load, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [tag] * (tag in ("script", "link", "img", "iframe", "object"))
        self.loads += [f"{name}={value}" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_every_model_and_device_and_loads_nothing(tmp_path: Path) -> None:
    found = result(tmp_path, whole_devices(), slices())
    write_timeline(found)
    text = found.timeline.read_text()
    shown = _Page(text)
    assert shown.loads == []
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    for name in (*NAMES, "cpu0", "cpu1", "whole devices", "slices"):
        assert name in shown.text
    assert "prefers-color-scheme: dark" in text


def test_models_that_share_a_device_have_lanes_beside_each_other() -> None:
    assert [(device, lane) for device, lane, _ in lanes(slices())] == [(d, n) for d in DEVICES for n in range(3)]
    assert [(device, lane) for device, lane, _ in lanes(whole_devices())] == [(d, 0) for d in DEVICES]


def test_names_are_escaped_on_the_page(tmp_path: Path) -> None:
    assert "<b>" not in page(result(tmp_path, Side("<b>", DEVICES, whole_devices().answers, ()), slices()))


@pytest.mark.parametrize(
    ("wait", "latency", "said"),
    [(2.0, 0.02, "101.0 times lower"), (0.0, 0.019, "gain is small"), (0.0, 0.04, "no gain here")],
)
def test_a_small_gain_is_called_small(tmp_path: Path, wait: float, latency: float, said: str) -> None:
    assert said in sentences(result(tmp_path, whole_devices(wait), slices(latency)))[0]


def test_answers_that_differ_are_not_hidden(tmp_path: Path) -> None:
    assert "NOT the same" in sentences(result(tmp_path, whole_devices(), slices(), same=False))[-1]


def test_the_table_has_both_sides(tmp_path: Path) -> None:
    from rich.console import Console

    console = Console(record=True, width=100, file=open(os.devnull, "w"))  # noqa: SIM115
    print_result(result(tmp_path, whole_devices(), slices()), console)
    printed = console.export_text()
    for part in (
        "whole devices",
        "slices",
        "served per second",
        "p50",
        "p95",
        "model loads",
        "in use",
        "timeline.html",
    ):
        assert part in printed


def test_a_missing_scikit_learn_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UsageError, match=r'pip install "flexray-runtime\[demo\]"'):
        run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [{"requests": 0}, {"rate": 0.0}])
def test_arguments_that_make_no_sense_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        run(tmp_path, **wrong)


def test_the_models_are_six_real_ones(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    trained = train(tmp_path, seed=0)
    assert [model.name for model in trained.models] == list(NAMES)
    assert len({model.kind for model in trained.models}) == 6
    assert all(model.accuracy > 0.9 and model.path.stat().st_size == model.size for model in trained.models)
    assert all(len(model.expected) == len(trained.images) for model in trained.models)


# The first stream that asks all six models within so few requests.
_SMALL_RUN = """
import json, sys
from pathlib import Path
from flexray.demo import run
result = run(Path(sys.argv[1]), seed=39, requests=8, rate=20.0)
Path(sys.argv[1], "result.json").write_text(json.dumps(result.as_dict()))
"""


@pytest.mark.ray
def test_a_small_run_of_all_of_it(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    folder = tempfile.mkdtemp(prefix="fx")  # Ray's socket paths must stay short
    variables = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    variables |= {"RAY_TMPDIR": folder, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-c", _SMALL_RUN, str(tmp_path)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=150, check=False)
    shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"

    found = json.loads((tmp_path / "result.json").read_text())
    whole, sliced = found["whole"], found["slices"]
    assert found["same_answers"]
    assert found["devices"] == 2
    assert (whole["served"], whole["answers_right"]) == (sliced["served"], sliced["answers_right"]) == (8, 8)
    assert whole["loads"] >= 6
    assert (sliced["loads"], sliced["loads_during_stream"], sliced["device_time_swapping"]) == (6, 0, 0.0)
    for side in (whole, sliced):
        assert 0 < side["device_time_in_use"] <= 1
        assert 0 < side["latency_p50_ms"] <= side["latency_p95_ms"]
    assert all(name in (tmp_path / "timeline.html").read_text() for name in NAMES)
    assert "times lower here" in done.stdout or "gain" in done.stdout
