"""Queues from a file, and what is said of one that is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flexray.errors import UsageError
from flexray.model.queue import Queue, QueueAmount
from flexray.queue_file import load_queues, parse_queues

YAML = """\
# two teams
queues:
  - {name: research, quota: 10, weight: 3}
  - name: vision
    parent: research
    quota: {nvidia/T4: 4}
    limit: 20
    priority: 1
    priorities: [0, null]
    types: "nvidia/*"
    half_life: 3600
"""
TOML = """\
# two teams
[[queues]]
name = "research"
quota = 10
weight = 3

[[queues]]
name = "vision"
parent = "research"
limit = 20
priority = 1
types = ["nvidia/*"]
half_life = 3600

[queues.quota]
"nvidia/T4" = 4
"""
VISION = Queue(
    "vision",
    "research",
    QueueAmount(types=(("nvidia/T4", 4000),)),
    QueueAmount(devices=20_000),
    priority=1,
    types=("nvidia/*",),
    half_life=3600,
)
RESEARCH = Queue("research", quota=QueueAmount(devices=10_000), weight=3000)
needs_toml = pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is there from Python 3.11")


def write(folder: Path, text: str, suffix: str = "yaml") -> Path:
    path = folder / f"queues.{suffix}"
    path.write_text(text)
    return path


def test_yaml(tmp_path: Path) -> None:
    found = load_queues(write(tmp_path, YAML))
    assert found[0] == RESEARCH
    assert found[1] == Queue(*(getattr(VISION, f) if f != "priorities" else (0, None) for f in Queue.__slots__))


@needs_toml
def test_toml_says_the_same(tmp_path: Path) -> None:
    assert load_queues(write(tmp_path, TOML, "toml")) == (RESEARCH, VISION)


def test_json_is_yaml(tmp_path: Path) -> None:
    assert load_queues(write(tmp_path, '{"queues": [{"name": "research", "quota": 10, "weight": 3}]}', "json")) == (
        RESEARCH,
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{name: a, wieght: 3}", ":3: queues[0].wieght (a): unknown key. Did you mean 'weight'? Known: name, parent"),
        ("{name: a, quota: {computes: 3}}", ":3: queues[0].quota (a): quota: unknown measure 'computes'. Did you mean"),
        ("{name: a, limit: -3}", ":3: queues[0].limit (a): "),
        ("{name: a, weight: -1}", ":3: queues[0].weight (a): weight must be a number from 0"),
        ("{name: a, priority: 1.5}", ":3: queues[0].priority (a): "),
        ("{name: a, priorities: [3]}", ":3: queues[0].priorities (a): "),
        ("{name: a, priorities: [3, 1]}", ":3: queue 'a': priorities from 3 to 1 leave none"),
        ("{name: a, types: [3]}", ":3: queues[0].types (a): "),
        ("{name: a, half_life: 0}", ":3: queues[0].half_life (a): "),
        ("{name: a, name: b}", ":3: the key 'name' is there twice"),
        ("{name: 7}", ":3: queues[0].name: "),
        ("{quota: 7}", ":3: queues[0].name: is missing"),
        ("{name: a, parent: b}", ":3: queue 'a': unknown parent 'b'. Known: root, a"),
        ("{name: a, parent: a}", ":3: queue 'a' cannot be its own parent"),
        ("just text", ":3: queues[0]: "),
        ("{name: a", " is not YAML: "),
    ],
)
def test_what_is_wrong_has_a_line_and_a_key(tmp_path: Path, row: str, message: str) -> None:
    path = write(tmp_path, f"# teams\nqueues:\n  - {row}\n")
    with pytest.raises(UsageError) as caught:
        load_queues(path)
    assert str(caught.value).startswith(f"{path}{message}")


def test_every_wrong_field_is_told(tmp_path: Path) -> None:
    text = "queues:\n  - name: a\n    quota: x\n  - name: b\n    limitt: 3\n    weight: y\n"
    with pytest.raises(UsageError) as caught:
        load_queues(write(tmp_path, text))
    assert [line.split(":")[1] for line in str(caught.value).splitlines()] == ["3", "6", "5"]


@needs_toml
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("limit = 20", "limti = 20", ":10: queues[1].limti (vision): unknown key. Did you mean 'limit'?"),
        ('"nvidia/T4" = 4', '"nvidia/T4" = -4', ":15: queues[1].quota (vision): quota.nvidia/T4 must be a number"),
        ('parent = "research"', 'parent = "reserch"', ":9: queue 'vision': unknown parent 'reserch'. Did you mean"),
        ("weight = 3", "weight = ", " is not TOML: Invalid value (at line 5"),
    ],
)
def test_toml_has_lines_too(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write(tmp_path, TOML.replace(old, new), "toml")
    with pytest.raises(UsageError) as caught:
        load_queues(path)
    assert str(caught.value).startswith(f"{path}{message}")


def test_toml_before_python_3_11_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tomllib", None)
    with pytest.raises(UsageError, match=r"needs Python 3\.11; write the queues as YAML"):
        load_queues(write(tmp_path, TOML, "toml"))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"read from .yaml, .yml, .json, .toml, not from '.ini'"):
        load_queues(write(tmp_path, "", "ini"))
    with pytest.raises(UsageError, match="cannot read the queues in"):
        load_queues(tmp_path / "missing.yaml")
    for text, found in (("", "empty"), ("[]", "of the type list"), ("quees: []", "Did you mean 'queues'")):
        with pytest.raises(UsageError, match=found):
            load_queues(write(tmp_path, text))


def test_plain_data_needs_no_file() -> None:
    assert parse_queues({"queues": [{"name": "research", "quota": 10, "weight": 3}]}) == (RESEARCH,)
    with pytest.raises(UsageError, match=r"^queues: queues\[0\].limt \(a\): unknown key"):
        parse_queues({"queues": [{"name": "a", "limt": 1}]})


def test_the_files_in_the_docs_are_right(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs/queues.md").read_text()
    for suffix, names in (("yaml", ["research", "vision", "prod"]), ("toml", ["research"])):
        text = page.split(f"```{suffix}\n")[1].split("```")[0]
        if suffix == "yaml" or sys.version_info >= (3, 11):
            assert [one.name for one in load_queues(write(tmp_path, text, suffix))] == names
