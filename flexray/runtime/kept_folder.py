"""Records in files of a folder, for what is to be kept for longer than Ray's store is there."""

from __future__ import annotations

import os
from pathlib import Path

from flexray.devices.private import only_mine
from flexray.errors import UsageError


class FolderKeyValues:
    """A ``KeyValues``: a file for each key, replaced as a whole. It names users, which are not everybody's to read.

    Raises UsageError where nothing can be kept.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot keep records in {folder}: {error}") from None

    def get(self, key: bytes) -> bytes | None:
        """What is there."""
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            return None

    def put(self, key: bytes, value: bytes) -> None:
        """Keep this instead of what was there."""
        path = self._path(key)
        beside = path.with_suffix(".new")
        with open(beside, "wb", opener=only_mine) as file:
            file.write(value)
        os.replace(beside, path)

    def delete(self, key: bytes) -> None:
        """Keep nothing there."""
        self._path(key).unlink(missing_ok=True)

    def keys(self, prefix: bytes) -> list[bytes]:
        """The keys that begin so."""
        names = [path.stem.replace("=", ":").encode() for path in self._folder.glob("*.json")]
        return sorted(name for name in names if name.startswith(prefix))

    def _path(self, key: bytes) -> Path:
        return self._folder / f"{key.decode().replace(':', '=')}.json"
