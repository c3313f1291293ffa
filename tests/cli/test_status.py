"""``flexray status`` of a large pool: a page, whatever there is of devices, slices and reasons."""

from __future__ import annotations

import dataclasses
import io

from rich.console import Console

from cli.conftest import SNAPSHOT, device, piece
from flexray.model.snapshot import Snapshot
from flexray.tables import print_status


def page(snapshot: Snapshot) -> list[str]:
    text = io.StringIO()
    print_status(snapshot, console=Console(file=text, width=200))
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_a_small_pool_has_a_line_for_each_device() -> None:
    lines = page(SNAPSHOT)
    assert [sum(f"394abc/gpu{number}  nvidia" in line for line in lines) for number in range(3)] == [1, 1, 1]
    assert "394abc/gpu2 is sick: Xid 79" in lines and "394abc is host-a" in lines


def test_a_large_pool_is_counted() -> None:
    ready = [device(number, 0.5, slices=(f"s{number}",)) for number in range(100)]
    sick = [device(number, state="sick", reason="Xid 79") for number in range(100, 140)]
    slices = tuple(piece(f"s{number}", number, 0.5) for number in range(100))
    lines = page(dataclasses.replace(SNAPSHOT, devices=(*ready, *sick), slices=slices))
    kinds = [line.split() for line in lines if line.startswith("nvidia/A100-80GB")]
    assert kinds == [
        ["nvidia/A100-80GB", "ready", "100", "1", "50.0", "4000.0", "of", "8000.0", "GiB", "none"],
        ["nvidia/A100-80GB", "sick", "40", "1", "0.0", "0.0", "of", "3200.0", "GiB", "none"],
    ]
    assert "394abc/gpu100, 394abc/gpu101, 394abc/gpu102 and 37 more are sick: Xid 79" in lines
    assert sum(line.startswith("s") and " held " in line for line in lines) == 50
    assert "and 50 more: flexray slices" in lines
    assert len(lines) < 80
