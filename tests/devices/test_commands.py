"""Running makers' commands: time limits, words instead of answers, numbers as makers write them."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from flexray.devices.backend import ProbeStatus
from flexray.devices.commands import CommandFailed, find_command, number, parse_json, run_command
from flexray.devices.visible import masks_of


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_what_it_printed_is_returned_and_its_warnings_are_not() -> None:
    assert run_command(python("import sys; print('yes'); print('careful', file=sys.stderr)"), 30) == "yes\n"


def test_it_sees_all_devices_whatever_mask_this_process_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZE_AFFINITY_MASK", "3")
    monkeypatch.setenv("KEPT", "1")
    shown = run_command(python("import os; print([os.environ.get(n) for n in ('ZE_AFFINITY_MASK', 'KEPT')])"), 30)
    assert shown.strip() == "[None, '1']"


def test_a_command_that_is_not_there_is_a_missing_library() -> None:
    with pytest.raises(CommandFailed, match="no-such-smi is not found") as caught:
        run_command(["/nowhere/no-such-smi"], 30)
    assert caught.value.status is ProbeStatus.LIBRARY_MISSING


def test_a_file_that_is_no_program_is_broken(tmp_path: Path) -> None:
    (tmp_path / "odd-smi").write_bytes(b"\x00\x01")
    (tmp_path / "odd-smi").chmod(0o755)
    with pytest.raises(CommandFailed, match="odd-smi cannot be started") as caught:
        run_command([str(tmp_path / "odd-smi")], 30)
    assert caught.value.status is ProbeStatus.BROKEN


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("Unable to get devices, driver not initialized (amdgpu not found in modules)", ProbeStatus.DRIVER_MISSING),
        ("dcmi module initialize failed. ret is -8005", ProbeStatus.DRIVER_MISSING),
        ("something else", ProbeStatus.BROKEN),
    ],
)
def test_an_error_is_told_in_the_commands_own_words(words: str, status: ProbeStatus) -> None:
    with pytest.raises(CommandFailed, match=words.split()[0]) as caught:
        run_command(python(f"import sys; print({words!r}); sys.exit(3)"), 30)
    assert caught.value.status is status


def test_an_error_without_words_has_its_exit_code() -> None:
    with pytest.raises(CommandFailed, match="exit code 7"):
        run_command(python("raise SystemExit(7)"), 30)


def test_what_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(CommandFailed, match="no answer within 1 s"):
        run_command(["/bin/sh", "-c", f"sleep 600 & echo $! > {pid}; wait"], 1)
    grandchild = Path(f"/proc/{pid.read_text().strip()}/stat")
    end = time.monotonic() + 30
    while grandchild.exists() and grandchild.read_text().split(") ")[1][0] != "Z":
        assert time.monotonic() < end, "it still runs"
        os.sched_yield()


def test_a_command_is_found_where_its_maker_puts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rare-smi").write_text("#!/bin/sh\n")
    (tmp_path / "rare-smi").chmod(0o755)
    assert find_command("rare-smi") == "rare-smi"
    assert find_command("rare-smi", str(tmp_path)) == str(tmp_path / "rare-smi")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_command("rare-smi") == str(tmp_path / "rare-smi")


def test_json_is_found_after_warnings_and_nothing_else_is_json() -> None:
    assert parse_json("x", 'WARNING: old kernel\n[{"gpu": 0}]') == [{"gpu": 0}]
    for words in ("Segmentation fault", "", "{broken"):
        with pytest.raises(CommandFailed, match="x said"):
            parse_json("x", words)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (5, 5.0),
        ("5", 5.0),
        ("5 MB", 5.0),
        ({"value": 196592, "unit": "MB"}, 196592.0),
        ({"value": "N/A", "unit": ""}, None),
        ("N/A", None),
        (None, None),
        (True, None),
        ([1], None),
        (2**64 - 1, None),
        ("inf", None),
    ],
)
def test_numbers_as_makers_write_them(written: object, meant: float | None) -> None:
    assert number(written) == meant


def test_only_masks_that_say_something_are_kept() -> None:
    environment = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "1", "PATH": "/bin"}
    assert masks_of(environment) == {"HIP_VISIBLE_DEVICES": "1"}


@pytest.mark.parametrize(
    ("selector", "mask"), [("level_zero:1,3", "1,3"), ("0", "0"), ("level_zero:gpu", None), ("*:cpu", None), ("", None)]
)
def test_numbers_in_oneapis_selector_are_level_zeros_mask(selector: str, mask: str | None) -> None:
    assert masks_of({"ONEAPI_DEVICE_SELECTOR": selector}).get("ZE_AFFINITY_MASK") == mask
    both = {"ONEAPI_DEVICE_SELECTOR": selector, "ZE_AFFINITY_MASK": "2"}
    assert masks_of(both) == {"ZE_AFFINITY_MASK": "2"}
