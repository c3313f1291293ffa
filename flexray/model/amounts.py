"""Amounts: integers with a type, parsed once at the edge.

A share is a whole number of thousandths of one device's compute, memory a whole
number of MiB. Floats exist only in what users write; ``parse_*`` rounds half-up and
refuses what does not fit, so that free + held = total holds exactly ever after.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any, NewType, TypeVar

from flexray.errors import InvalidRequest

Share = NewType("Share", int)
"""Thousandths of one device's compute."""

MemoryMiB = NewType("MemoryMiB", int)
"""Memory in MiB (2**20 bytes)."""

MilliCpus = NewType("MilliCpus", int)
"""Thousandths of a host core."""

Amount = TypeVar("Amount", bound=Any)

WHOLE = Share(1000)
"""A whole device."""

_MIB = Decimal(2**20)
_LARGEST = Decimal(10**18)  # far beyond any machine, well inside 64-bit books
_UNITS = {
    "": Decimal(1),
    "B": Decimal(1),
    **{f"{p}iB": Decimal(1024**i) for i, p in enumerate("KMGT", start=1)},
    **{f"{p}B": Decimal(1000**i) for i, p in enumerate("KMGT", start=1)},
}
_MEMORY = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*$")


def _decimal(value: object, what: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise InvalidRequest(f"{what} must be a number, got {value!r} ({type(value).__name__})")
    try:
        number = Decimal(str(value))
    except InvalidOperation:  # pragma: no cover - str(float) always parses
        raise InvalidRequest(f"{what} must be a number, got {value!r}") from None
    if not number.is_finite():
        raise InvalidRequest(f"{what} must be a finite number, got {value!r}")
    return _bounded(number, what)


def _bounded(number: Decimal, what: str) -> Decimal:
    if abs(number) > _LARGEST:
        raise InvalidRequest(f"{what}={number:.3e} is too large")
    return number


def _thousandths(number: Decimal) -> int:
    return int((number * 1000).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def parse_share(value: object, what: str = "share") -> tuple[Share, int]:
    """Parse what a user writes for ``gpu=`` into (share per device, number of devices).

    ``0.25`` is a quarter of one device, ``1`` one device, ``3`` three whole devices of
    one node. Raises InvalidRequest for anything else; 1.5 is refused, because a
    fraction spread over two devices means nothing to the code that runs there.
    """
    number = _decimal(value, what)
    if number <= 0:
        raise InvalidRequest(f"{what}={value} must be above 0: a fraction such as 0.25, or whole devices such as 2")
    if number > 1:
        if number != number.to_integral_value():
            raise InvalidRequest(
                f"{what}={value} is neither a fraction of one device (0 < {what} <= 1) nor a whole number of devices; "
                f"ask for {what}={int(number) + 1}, or for two tasks"
            )
        return WHOLE, int(number)
    share = _thousandths(number)
    if share < 1:
        raise InvalidRequest(f"{what}={value} is below the smallest share, 0.001 of a device")
    return Share(share), 1


def parse_memory(value: object, what: str = "memory") -> MemoryMiB:
    """Parse ``"4GiB"``, ``"512 MiB"``, ``"1.5GB"`` or a number of bytes into MiB, rounded half-up.

    Raises InvalidRequest when the text has no such form or is below half a MiB.
    """
    if isinstance(value, str):
        match = _MEMORY.match(value)
        units = {unit.lower(): factor for unit, factor in _UNITS.items()}
        factor = units.get(match[2].lower()) if match else None
        if match is None or factor is None:
            raise InvalidRequest(
                f'{what}="{value}" is not an amount of memory; write a positive number with a unit, '
                f'such as "4GiB", "512MiB" or "1.5GB"'
            )
        number = _bounded(Decimal(match[1]) * factor, what)
    else:
        number = _decimal(value, what)
    mib = int((number / _MIB).quantize(Decimal(1), rounding=ROUND_HALF_UP))
    if mib < 1:
        raise InvalidRequest(f'{what}={value!r} is less than 1 MiB; a bare number counts bytes, "4GiB" has a unit')
    return MemoryMiB(mib)


def parse_cpus(value: object, what: str = "cpus") -> MilliCpus:
    """Parse a number of host cores, such as 0.5 or 4, into thousandths. 0 is allowed."""
    number = _decimal(value, what)
    if number < 0:
        raise InvalidRequest(f"{what}={value} must not be negative")
    return MilliCpus(_thousandths(number))


def share_as_float(share: int) -> float:
    """A share as users see it: 250 thousandths are 0.25 of a device."""
    return share / 1000


def format_memory(mib: int) -> str:
    """Memory for people: ``"512 MiB"`` or ``"4.0 GiB"``."""
    return f"{mib} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"


def share_of(total: Amount, share: int) -> Amount:
    """The part of an integer total (or of each of an array of them) that a share stands for.

    Rounded down, so that the parts never exceed the whole.
    """
    part: Amount = total * share // 1000
    return part
