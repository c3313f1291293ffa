"""Reading CSV files: each value with its file and line in the error, columns checked first."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flexray.errors import UsageError
from flexray.sim.reading import did_you_mean


@dataclass(frozen=True, slots=True)
class Row:
    """One row and where it is from."""

    values: Mapping[str, str]
    where: str

    def text(self, column: str, default: str | None = None) -> str:
        """A value as it is; an absent column gives the default."""
        value = self.values.get(column)
        if value is None:
            if default is None:
                raise UsageError(f"{self.where}: has no value for {column}")
            return default
        return value.strip()

    def number(self, column: str) -> int:
        """A whole number, not negative."""
        found = self.maybe(column)
        if found is None:
            raise UsageError(f"{self.where}: {column} is empty; a whole number is needed")
        return found

    def maybe(self, column: str) -> int | None:
        """A whole number, or None where the column is absent or the value empty."""
        text = (self.values.get(column) or "").strip()
        if not text:
            return None
        number = self.real(column)
        if number != int(number) or number < 0:
            raise UsageError(f"{self.where}: {column} is {text!r}; a whole number, not negative, is needed")
        return int(number)

    def real(self, column: str) -> float:
        """A finite number."""
        text = self.text(column)
        try:
            number = float(text)
        except ValueError:
            raise UsageError(f"{self.where}: {column} is {text!r}; a number is needed") from None
        if number - number != 0:
            raise UsageError(f"{self.where}: {column} is {text!r}; a finite number is needed")
        return number


def read_csv(path: Path, needed: Sequence[str]) -> list[Row]:
    """The rows of a CSV file with a header. Raises UsageError for a column that is missing, or a file without rows."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = header
            for column in needed:
                if column not in header:
                    raise UsageError(f"{path}: has no column {column!r}.{did_you_mean(column, header)}")
            rows = [Row(values, f"{path}, line {reader.line_num}") for values in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    if not rows:
        raise UsageError(f"{path}: has no rows")
    return rows
