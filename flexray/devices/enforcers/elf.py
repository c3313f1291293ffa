"""Which functions a shared library offers to others: enough of ELF to tell, with no tools installed.

By the System V ABI, 64 bits, little-endian: what NVIDIA's driver runs on (x86-64 and ARM).
"""

from __future__ import annotations

import struct
from pathlib import Path

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_MAGIC = b"\x7fELF\x02\x01"
"""ELF, 64 bits, little-endian."""
_SHARED_OBJECT = 3
_DYNAMIC_SYMBOLS = 11
_UNDEFINED = 0
_LOCAL = 0
_VISIBLE = (0, 3)
"""Default and protected; hidden and internal symbols are for the library alone."""


def exported(file: Path) -> frozenset[str]:
    """Names that the library defines for others. Raises OSError, or ValueError when it is no such library."""
    data = file.read_bytes()
    if not data.startswith(_MAGIC):
        raise ValueError("it is no 64-bit ELF file")
    try:
        return frozenset(_names(data))
    except (struct.error, IndexError) as error:
        raise ValueError(f"it is cut off or damaged ({error})") from None


def _names(data: bytes) -> set[str]:
    header = _HEADER.unpack_from(data)
    kind, table, size, count = header[1], header[6], header[11], header[12]
    if kind != _SHARED_OBJECT:
        raise ValueError("it is no shared library")
    sections = [_SECTION.unpack_from(data, table + size * number) for number in range(count)]
    found = set()
    for section in sections:
        if section[1] != _DYNAMIC_SYMBOLS:
            continue
        offset, length, link = section[4], section[5], section[6]
        strings = sections[link][4]
        for at in range(offset, offset + length, _SYMBOL.size):
            name, info, other, place, _, _ = _SYMBOL.unpack_from(data, at)
            if place != _UNDEFINED and info >> 4 != _LOCAL and other & 3 in _VISIBLE:
                start = strings + name
                found.add(data[start : data.index(0, start)].decode(errors="replace"))
    return found
