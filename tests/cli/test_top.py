"""What ``flexray top`` draws, and what keys do."""

from __future__ import annotations

import dataclasses
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from cli.conftest import SNAPSHOT, device
from flexray.cli.top import Keyboard
from flexray.model.snapshot import Snapshot
from flexray.tables.live import show_live
from flexray.tables.top import View, page, pressed, screen

Run = Callable[..., Result]


def text(lines: list[object]) -> list[str]:
    return [str(line).rstrip() for line in lines]


def after(*keys: str, view: View | None = None) -> View | None:
    now: View | None = view or View()
    for key in keys:
        assert now is not None
        now = pressed(now, key)
    return now


def order(view: View | None) -> list[str]:
    assert view is not None
    return [line.split()[0] for line in text(page(SNAPSHOT, view, 120)) if line.startswith("394abc")]


def test_a_page() -> None:
    lines = text(page(SNAPSHOT, View(), 130))
    assert lines[0] == "3 devices on 1 nodes: 1.75 held, 1.15 busy; 2 run, 2 wait  [by name]"
    assert lines[1] == "note: a note"
    bar = "A" * 25 + "b" * 13 + "." * 12
    assert lines[2] == f"394abc/gpu0    [{bar}] 0.75 held 0.25 busy   60.0/80.0 GiB  nvidia/A100-80GB"
    assert lines[3] == "  A embed                0.50 busy 0.25  3.0/40.0 GiB  held 60s  r-s1.1"
    assert lines[6].endswith("r-s1.3 eve  idle 4m")
    assert lines[7].endswith("sick: Xid 79")
    assert lines[-3:] == [
        "waiting",
        "r9             embed            default       30s  no_room  gpu=1",
        "r10            train            prod          10m  devices_sick  gpu=2",
    ]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    for height in (3, 8, 40):
        lines = screen(SNAPSHOT, View(), width, height)
        assert len(lines) == height and all(len(line.plain) <= width for line in lines)


def test_a_narrow_terminal_still_shows_what_is_held() -> None:
    line = next(line for line in text(page(SNAPSHOT, View(), 44)) if line.startswith("394abc/gpu0"))
    assert line == "394abc/gpu0    [AAAAAAAAbbb....] 0.75 0.25"


def test_bars_hold_as_many_slices_as_there_are() -> None:
    shares = [0.001] * 30 + [0.5]
    pieces = [
        dataclasses.replace(SNAPSHOT.slices[0], id=f"s{number}", share=share) for number, share in enumerate(shares)
    ]
    crowded = dataclasses.replace(SNAPSHOT, devices=(device(0, 0.53),), slices=tuple(pieces))
    for width in (30, 80, 120):
        line = text(page(crowded, View(), width))[2]
        assert line.count("[") == 1 and (width < 80 or "]" in line)


def test_keys() -> None:
    assert after("q") is None and after("escape") is None
    assert after("x", "", "down", "down", "up") == View(offset=1)
    assert after("up") == View() and after("page down") == View(offset=10)
    assert order(after("s")) == ["394abc/gpu1", "394abc/gpu0", "394abc/gpu2"]
    assert order(after("s", "s", "s")) == ["394abc/gpu2", "394abc/gpu0", "394abc/gpu1"]
    assert after("s", "s", "s", "s") == View()
    assert order(after("/", "t", "r", "a", "i", "n", "x", "backspace", "enter")) == ["394abc/gpu1"]
    assert after("/", "q", "escape") == View(), "q is a letter there"
    shown = [len(page(SNAPSHOT, view, 120)) for view in (View(), View(details=False), View(details=True))]
    assert shown[0] == shown[2] == shown[1] + 3


def test_scrolling_ends_where_the_lines_end() -> None:
    last = text(screen(SNAPSHOT, View(offset=1000), 100, 6))
    assert last[-2].startswith("r10") and "more below" not in last[-1]
    assert text(screen(SNAPSHOT, View(), 100, 6))[-1].endswith("9 more below")


def test_it_is_drawn_until_somebody_quits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    typed, looks = iter(["down", None, "s", None, "q"]), []

    def look() -> Snapshot:
        looks.append(1)
        return SNAPSHOT

    show_live(look, lambda seconds: next(typed), 0.0)
    assert len(looks) == 3 and next(typed, "over") == "over"


def test_keys_are_read_by_name() -> None:
    reading, writing = os.pipe()
    keyboard = Keyboard(reading)
    try:
        assert keyboard.key(0.0) is None
        for sent, keys in (
            (b"\x1b[A", ["up"]), (b"\x1b", ["escape"]), (b"\x1b[15~s", ["", "s"]), (b"\xff", [""]),
            (b"/tr\x7f\r\x1b[6~", ["/", "t", "r", "backspace", "enter", "page down"]),
        ):  # fmt: skip
            os.write(writing, sent)
            assert [keyboard.key(1.0) for _ in keys] == keys
    finally:
        os.close(writing)
    assert keyboard.key(1.0) == "q", "nobody types any more"
    os.close(reading)


def test_piped_it_is_one_page(flexray: Run) -> None:
    out = flexray("top").stdout
    assert out.splitlines()[0].startswith("3 devices on 1 nodes") and "r10" in out
    assert '"waiting"' in flexray("top", "--json").stdout


_ON_A_TERMINAL = """
from cli.conftest import SNAPSHOT
from flexray.cli import frame, main
frame.scheduler_at = lambda address: None
frame.snapshot_of = lambda scheduler: SNAPSHOT
main(["top", "--every", "600"])
"""


def test_on_a_terminal_keys_change_what_is_shown() -> None:
    import pty

    ours, theirs = pty.openpty()
    path = os.pathsep.join(str(parent) for parent in Path(__file__).parents[1:3])
    env = {**os.environ, "PYTHONPATH": path, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "20"}
    process = subprocess.Popen(
        [sys.executable, "-c", _ON_A_TERMINAL], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=env
    )
    os.close(theirs)
    try:
        shown = ""
        for key, until in ((b"", "[by name]"), (b"s", "[by held]"), (b"/tra", "/tra"), (b"\r", "filter: tra")):
            os.write(ours, key)
            while until not in shown:
                assert select.select([ours], [], [], 60)[0], shown
                shown += os.read(ours, 65536).decode()
        os.write(ours, b"q")
        while select.select([ours], [], [], 60)[0] and os.read(ours, 65536):
            pass
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.wait(timeout=60) == 0, process.stderr.read() if process.stderr else ""
