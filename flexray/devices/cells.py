"""What was made on a node for its slices, on disk, so that the next agent can undo it after a crash."""

from __future__ import annotations

import json
import os
from pathlib import Path

from flexray.devices.enforcers.enforcer import Cell
from flexray.devices.private import only_mine
from flexray.errors import IsolationFailed
from flexray.model.isolation import Isolation
from flexray.model.wire import from_plain, to_plain


class CellFile:
    """A small file that is replaced as a whole at every change. A cell is in it before anything is made for it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cells: dict[str, tuple[Isolation, Cell]] = {}

    def load(self) -> list[tuple[Isolation, Cell]]:
        """What an earlier agent left. A damaged file is set aside, and what it held is found by sweeping."""
        try:
            rows = json.loads(self._path.read_text())
            found = [(Isolation(row["isolation"]), from_plain(Cell, row["cell"])) for row in rows]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError):
            os.replace(self._path, self._path.with_suffix(".damaged"))
            return []
        self._cells = {cell.slice: (isolation, cell) for isolation, cell in found}
        return found

    def add(self, isolation: Isolation, cell: Cell) -> None:
        """Something is about to be made for a cell, or changed. Raises IsolationFailed when that cannot be noted."""
        self._cells[cell.slice] = (isolation, cell)
        self._write()

    def remove(self, name: str) -> None:
        """Nothing is left of a cell."""
        if self._cells.pop(name, None) is not None:
            self._write()

    def _write(self) -> None:
        rows = [{"isolation": isolation.value, "cell": to_plain(cell)} for isolation, cell in self._cells.values()]
        fresh = self._path.with_suffix(".new")
        try:
            with open(fresh, "w", opener=only_mine) as file:
                json.dump(rows, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self._path)
        except OSError as error:
            raise IsolationFailed(f"what is made for slices cannot be noted in {self._path}: {error}") from error
