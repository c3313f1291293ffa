"""Which GPU instances flexray has made or uses on this node: a small file that outlives the agent."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Record:
    """An instance, by where it is: no two are at one place.

    Attributes:
        gpu: UUID of its GPU.
        profile: such as ``1g.5gb``.
        start: the first of its places.
        slice: which slice has it; "": nobody.
        made: whether flexray made it and may destroy it.
    """

    gpu: str
    profile: str
    start: int
    slice: str
    made: bool


def read_records(file: Path) -> list[Record]:
    """What was written last; nothing where nothing was. Raises ValueError for a file that is not ours."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    try:
        return [Record(**row) for row in json.loads(text)]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{file} is no list of MIG instances ({error}); see nvidia-smi mig -lgi, then remove it"
        ) from None


def write_records(file: Path, records: Iterable[Record]) -> None:
    """Replace them in one step, sorted by GPU and place."""
    rows = [dataclasses.asdict(r) for r in sorted(records, key=lambda r: (r.gpu, r.start))]
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    with open(fresh, "w", encoding="utf-8") as out:
        json.dump(rows, out)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)
