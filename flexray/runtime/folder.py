"""The checkpoints of one call in a directory, or under a URL that fsspec knows.

A file is complete or it is not there: it is written under another name and renamed, or put whole
into an object store. The one before is deleted once it is. A checksum tells the rest.

    magic, number of parts, their lengths, checksum of these, the parts, checksum of those
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from flexray.devices.private import only_mine
from flexray.errors import InvalidRequest
from flexray.runtime.frozen import Frozen, thaw

_MAGIC = b"flexray1"
_START = struct.Struct("<8sI")
_SUM = struct.Struct("<I")
_SUFFIX = ".state"
_CHUNK = 2**24


class Files(Protocol):
    """What is needed of a kind of storage, for the files of one folder."""

    def names(self) -> list[str]:
        """Names of the files; none when there is no such folder."""

    def write(self, name: str, fill: Callable[[Any], None]) -> None:
        """Make a file that is there only when ``fill`` has written all of it."""

    def open(self, name: str) -> Any:
        """A file for reading."""

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""

    def remove(self) -> None:
        """Delete the folder with all there is in it."""


class Folder:
    """The checkpoints of one call. ``place`` is what the user named, ``call`` a name that no other call has."""

    def __init__(self, place: str, call: str) -> None:
        self._files = _files(place, f"flexray-{call}")

    def write(self, state: Frozen) -> None:
        """Store a state, then delete those before it."""
        before = self._names()
        number = 1 + max((int(name.split("-")[0]) for name in before), default=0)
        # the unlikely writer of an earlier attempt, cut off and not dead yet, must not write the same file
        self._files.write(f"{number:08d}-{uuid.uuid4().hex[:8]}{_SUFFIX}", lambda file: _fill(file, state))
        for name in before:
            self._files.delete(name)

    def read(self) -> tuple[bool, Any]:
        """(True, state) of the last good one, or (False, None)."""
        for name in reversed(self._names()):
            try:
                with self._files.open(name) as file:
                    return True, thaw(*_read(file))
            except (FileNotFoundError, BrokenFile):  # deleted meanwhile, or not written to its end
                continue
        return False, None

    def remove(self) -> None:
        """Delete all there is of the call."""
        self._files.remove()

    def _names(self) -> list[str]:
        return sorted(name for name in self._files.names() if name.endswith(_SUFFIX) and name[:8].isdigit())


class BrokenFile(Exception):
    """A file that was not written to its end, or changed since."""


def _fill(file: BinaryIO, state: Frozen) -> None:
    parts = [memoryview(state.head), *state.buffers]
    start = _START.pack(_MAGIC, len(parts)) + struct.pack(f"<{len(parts)}Q", *(part.nbytes for part in parts))
    file.write(start + _SUM.pack(zlib.crc32(start)))
    total = 0
    for part in parts:
        for at in range(0, part.nbytes, _CHUNK):
            chunk = part[at : at + _CHUNK]
            total = zlib.crc32(chunk, total)
            file.write(chunk)
    file.write(_SUM.pack(total))


def _read(file: BinaryIO) -> tuple[bytes, list[bytearray]]:
    start = file.read(_START.size)
    if len(start) < _START.size or not start.startswith(_MAGIC):
        raise BrokenFile
    count = _START.unpack(start)[1]
    lengths = file.read(8 * count)
    if len(lengths) < 8 * count or file.read(_SUM.size) != _SUM.pack(zlib.crc32(start + lengths)):
        raise BrokenFile
    total, parts = 0, []
    for length in struct.unpack(f"<{count}Q", lengths):
        part = bytearray(length)
        _read_into(file, memoryview(part))
        total = zlib.crc32(part, total)
        parts.append(part)
    if file.read(_SUM.size) != _SUM.pack(total):
        raise BrokenFile
    return bytes(parts[0]), parts[1:]


def _read_into(file: Any, part: memoryview) -> None:
    done = 0
    while done < part.nbytes:
        count = file.readinto(part[done:])
        if not count:
            raise BrokenFile
        done += count


class _Local:
    """A directory: local, or shared by the nodes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        try:
            return os.listdir(self._path)
        except FileNotFoundError:
            return []

    def write(self, name: str, fill: Callable[[Any], None]) -> None:
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self._path / f".{name}.part"
        try:
            with open(part, "xb", opener=only_mine) as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())  # or the name could be there, after the node's death, without the bytes
            os.replace(part, self._path / name)
            self._flush_names()
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def _flush_names(self) -> None:
        """The new name has to be on the disk before the old file is deleted."""
        number = os.open(self._path, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some network file systems know no such thing
                os.fsync(number)
        finally:
            os.close(number)

    def open(self, name: str) -> Any:
        return open(self._path / name, "rb")

    def delete(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)

    def remove(self) -> None:
        shutil.rmtree(self._path, ignore_errors=True)


class _Remote:
    """Whatever fsspec has a file system for."""

    def __init__(self, place: str, name: str) -> None:
        import fsspec

        self._system, path = fsspec.core.url_to_fs(place)
        self._path = f"{path.rstrip('/')}/{name}"

    def names(self) -> list[str]:
        self._system.invalidate_cache()  # another process may have written since
        try:
            return [PurePosixPath(path).name for path in self._system.ls(self._path, detail=False)]
        except FileNotFoundError:
            return []

    def write(self, name: str, fill: Callable[[Any], None]) -> None:
        self._system.makedirs(self._path, exist_ok=True)
        with self._system.open(f"{self._path}/{name}", "wb") as file:
            fill(file)

    def open(self, name: str) -> Any:
        return self._system.open(f"{self._path}/{name}", "rb")

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(f"{self._path}/{name}")

    def remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._system.rm(self._path, recursive=True)


def _files(place: str, name: str) -> Files:
    local = place.removeprefix("file://")
    return _Remote(place, name) if "://" in local else _Local(Path(local) / name)


def check_place(place: str) -> None:
    """Whether a URL can be written to from here. Raises InvalidRequest, saying what to install, where it cannot."""
    local = place.removeprefix("file://")
    if "://" not in local:
        return
    protocol = local.partition("://")[0]
    try:
        import fsspec
    except ImportError:
        raise InvalidRequest(
            f"checkpoint_place={place!r} is a URL, which takes fsspec: `pip install fsspec[{protocol}]`, here and on "
            f"the nodes, or name a directory that the nodes share"
        ) from None
    try:
        fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        raise InvalidRequest(f"checkpoint_place={place!r} cannot be used: {error}") from None
