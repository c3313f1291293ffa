"""Which virtual NPUs flexray has made on this node: a small file that outlives the agent."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

from flexray.devices.private import only_mine, private_folder
from flexray.errors import DeviceError, IsolationFailed


@dataclass(frozen=True, slots=True)
class Record:
    """A virtual NPU that was made, or was about to be.

    Attributes:
        chip: ``<card>.<chip>`` that it is on.
        number: its id on the machine.
        template: the kind it is.
    """

    chip: str
    number: int
    template: str


class VnpuRecords:
    """Slice -> its virtual NPU. A record is on disk before its virtual NPU is made, until after it is destroyed."""

    def __init__(self, file: Path) -> None:
        """Reads nothing yet. Args: file: in a directory that exists when the first record is written."""
        self._file = file

    def read(self) -> dict[str, Record]:
        """All of them. Raises IsolationFailed for a file that is not ours."""
        try:
            rows = json.loads(self._file.read_text())
            return {name: Record(**row) for name, row in rows.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise IsolationFailed(
                f"{self._file} is no list of virtual NPUs ({error}); "
                "see npu-smi info -t info-vnpu, destroy what flexray made, then remove the file"
            ) from error

    def add(self, name: str, record: Record) -> None:
        """Raises IsolationFailed."""
        self._write({**self.read(), name: record})

    def remove(self, name: str) -> None:
        """Raises IsolationFailed."""
        self._write({slice_id: record for slice_id, record in self.read().items() if slice_id != name})

    def _write(self, records: dict[str, Record]) -> None:
        fresh = self._file.with_suffix(".new")
        try:
            private_folder(self._file.parent)
            with open(fresh, "w", opener=only_mine) as file:
                json.dump({name: dataclasses.asdict(record) for name, record in records.items()}, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self._file)
        except (OSError, DeviceError) as error:
            raise IsolationFailed(f"virtual NPUs cannot be noted in {self._file}: {error}") from error
