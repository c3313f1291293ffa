"""How the limits of a slice are enforced, and how strongly: said of compute and of memory apart."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Isolation(str, Enum):
    """The mechanism that holds a slice to its part, by the name of what limits its compute."""

    NONE = "none"
    """Nothing is enforced; shares are only kept in the books."""
    FRAMEWORK = "framework"
    """The framework in the slice is told its limits (threads, affinity, memory fraction); code can ignore them."""
    TURNS = "turns"
    """Slices of a device take turns at it, step by step, as far as their code asks for its turn."""
    DUTY = "duty"
    """The slice's processes are stopped and continued so that they run for their share of the time."""
    CGROUP = "cgroup"
    """The kernel enforces CPU (and where it can, memory) of the slice's processes."""
    CU_MASK = "cu_mask"
    """AMD: each process of the slice sees some of the compute units."""
    TILES = "tiles"
    """Intel: each process of the slice sees some tiles of the card, with the memory of these."""
    HAMI = "hami"
    """A preloaded library intercepts the device's API."""
    MPS = "mps"
    """NVIDIA MPS limits compute and memory per process."""
    VNPU = "vnpu"
    """Ascend virtual NPU: hardware partition."""
    MIG = "mig"
    """NVIDIA multi-instance GPU: hardware partition."""


class Strength(str, Enum):
    """How much a limit means, weakest first."""

    NONE = "none"
    """Nothing holds the slice back."""
    ADVISORY = "advisory"
    """It is told its limit; ordinary code and libraries can pass it without noticing."""
    COOPERATIVE = "cooperative"
    """It is held as long as its code goes through flexray or the framework."""
    SOFT = "soft"
    """It is held on average, by measuring and correcting: it may be above for a moment."""
    HARD_PROCESS = "hard_process"
    """Each process of the slice is held; several together may have several times as much."""
    HARD = "hard"
    """All processes of the slice together are held."""
    HARDWARE = "hardware"
    """The part is the slice's own: nobody's use or fault of another part reaches it."""

    @property
    def rank(self) -> int:
        """Its place in the order, from 0."""
        return _RANKS[self]

    @property
    def text(self) -> str:
        """For people: ``hard per process``."""
        return _TEXTS.get(self, self.value)


_RANKS = {strength: number for number, strength in enumerate(Strength)}
_TEXTS = {
    Strength.SOFT: "soft average",
    Strength.HARD_PROCESS: "hard per process",
    Strength.HARD: "hard per slice",
}


class Guarantee(NamedTuple):
    """How strongly a slice is held to its share and to its memory."""

    compute: Strength = Strength.NONE
    memory: Strength = Strength.NONE

    def meets(self, least: Guarantee) -> bool:
        """Whether both are at least as strong."""
        return self.compute.rank >= least.compute.rank and self.memory.rank >= least.memory.rank

    def describe(self) -> str:
        """For people: ``hard per slice``, or ``compute hard per slice, memory soft average``."""
        if self.compute is self.memory:
            return self.compute.text
        return f"compute {self.compute.text}, memory {self.memory.text}"


MECHANISMS: dict[Isolation, Guarantee] = {
    Isolation.NONE: Guarantee(),
    Isolation.FRAMEWORK: Guarantee(Strength.ADVISORY, Strength.NONE),
    Isolation.TURNS: Guarantee(Strength.COOPERATIVE, Strength.NONE),
    Isolation.DUTY: Guarantee(Strength.SOFT, Strength.NONE),
    Isolation.CGROUP: Guarantee(Strength.HARD, Strength.NONE),
    Isolation.CU_MASK: Guarantee(Strength.HARD_PROCESS, Strength.NONE),
    Isolation.TILES: Guarantee(Strength.HARD_PROCESS, Strength.HARD_PROCESS),
    Isolation.HAMI: Guarantee(Strength.SOFT, Strength.HARD),
    Isolation.MPS: Guarantee(Strength.HARD_PROCESS, Strength.HARD_PROCESS),
    Isolation.VNPU: Guarantee(Strength.HARDWARE, Strength.HARDWARE),
    Isolation.MIG: Guarantee(Strength.HARDWARE, Strength.HARDWARE),
}
"""What each mechanism gives by itself, at least. With another one for the memory a device may give more of that."""


def least_guarantee(asked: Isolation | Strength) -> Guarantee:
    """What ``isolation=`` asks for: a strength of both, or what a mechanism gives."""
    return Guarantee(asked, asked) if isinstance(asked, Strength) else MECHANISMS[asked]
