"""Devices that are cut into fixed parts: MIG instances, virtual NPUs."""

from __future__ import annotations

from dataclasses import dataclass

from flexray.model.amounts import WHOLE, MemoryMiB, Share


@dataclass(frozen=True, slots=True)
class Profile:
    """One size of part that a device can be cut into.

    Attributes:
        name: what the maker calls it, such as ``1g.10gb`` or ``vir05_1c_16g``.
        share: thousandths of the device: ``slots_share(k, n)`` of k of its n compute slots.
        memory: MiB of a part.
        width: places that a part takes of the device's row of places (MIG: memory slices); 0 where only amounts count.
        starts: places at which a part may begin, lowest first; () where only amounts count.
    """

    name: str
    share: Share
    memory: MemoryMiB
    width: int = 0
    starts: tuple[int, ...] = ()


def slots_share(slots: int, total: int) -> Share:
    """The share that ``slots`` of a device's ``total`` compute slots are: rounded down, so that all parts fit."""
    return Share(WHOLE * slots // total)


def smallest_profile(profiles: tuple[Profile, ...], share: int, memory: int) -> Profile | None:
    """The smallest part with at least so much compute (thousandths) and memory (MiB); None when none has.

    A share asked in decimals stands for the slots it is rounded from: 0.14, 0.143 and 1/7 all mean one slot of seven.
    """
    fitting = [p for p in profiles if p.share + _SLACK >= share and p.memory >= memory]
    return min(fitting, key=lambda p: (p.share, p.memory, p.name), default=None)


_SLACK = 1
"""Thousandths that rounding may have added to what was asked (1/7 is asked as 143 and granted as 142)."""
