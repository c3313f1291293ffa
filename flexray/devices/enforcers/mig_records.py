"""Which GPU instances flexray has made or uses on this node: a small file that outlives the agent."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flexray.devices.private import only_mine, private_folder

_log = logging.getLogger(__name__)


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
    """What was written last. A damaged file is set aside: its instances then count as the operator's."""
    try:
        return [Record(**row) for row in json.loads(file.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (TypeError, ValueError) as error:
        aside = file.with_suffix(".damaged")
        _log.warning("%s is damaged (%s), see nvidia-smi mig -lgi; it is now %s", file, error, aside)
        file.replace(aside)
        return []


def write_records(file: Path, records: Iterable[Record]) -> None:
    """Replace them in one step, sorted by GPU and place."""
    rows = [dataclasses.asdict(r) for r in sorted(records, key=lambda r: (r.gpu, r.start))]
    private_folder(file.parent)
    fresh = file.with_suffix(".new")
    with open(fresh, "w", encoding="utf-8", opener=only_mine) as out:
        json.dump(rows, out)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)
