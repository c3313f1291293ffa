"""A gang: a request of several members that start together or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from flexray.errors import InvalidRequest


class Layout(str, Enum):
    """How the members of a gang lie over the nodes, as far as there is room."""

    PACK = "pack"
    """On as few nodes as possible."""
    SPREAD = "spread"
    """On as many nodes as possible."""


@dataclass(frozen=True, slots=True)
class Gang:
    """How many members a request has. All of them are on devices of one type, and each gets what the request asks.

    Attributes:
        size: how many members there are at most.
        least: with so many it starts, and goes on when others are lost or taken back; None: with all of them.
        layout: ``"pack"`` (default) for as few nodes as possible, ``"spread"`` for as many.
    """

    size: int
    least: int | None = None
    layout: Layout = Layout.PACK

    def __post_init__(self) -> None:
        for name, number in (("size", self.size), ("least", self.least)):
            if number is not None and (type(number) is not int or number < 1):
                raise InvalidRequest(f"gang: {name}={number!r} must be a whole number of members, 1 or more")
        if self.least is not None and self.least > self.size:
            raise InvalidRequest(f"gang=({self.least}, {self.size}): it cannot start with more members than it has")
        try:
            object.__setattr__(self, "layout", Layout(self.layout))
        except ValueError:
            known = ", ".join(f'"{one.value}"' for one in Layout)
            raise InvalidRequest(f"gang: layout={self.layout!r} is unknown; use one of: {known}") from None

    @property
    def enough(self) -> int:
        """With so many members it may run."""
        return self.size if self.least is None else self.least

    def describe(self) -> str:
        """For messages: ``4``, or ``(2, 8)``."""
        return str(self.size) if self.least is None else f"({self.least}, {self.size})"


def parse_gang(value: object) -> Gang | None:
    """A gang from what users write: a number of members, a pair (least, most), or a Gang."""
    if value is None or isinstance(value, Gang):
        return value
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return Gang(value[1], value[0])
    if type(value) is int:
        return Gang(value)
    raise InvalidRequest(f"gang={value!r} must be a number of members, a pair (least, most), or a flex.Gang")
