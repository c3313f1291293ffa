"""A replica of a language model on a slice: how long calls take there, a stated model and nothing measured.

One model for whole cards and for parts of one, so that they can be put side by side:

- The prompt's pass takes ``prefill`` seconds per token on a whole nvidia/A100-80GB; its
  speed is proportional to the replica's share of its card and to the card's nominal
  speed. Prompts go one at a time, first come first served, and while one is computed
  the answers of the replica stand still.
- Answers are decoded together, one token each per step. A step takes
  ``decode x (1 + batch_cost x (calls - 1))`` seconds on a whole card. From a share of
  ``saturation`` on a replica decodes as fast as on a whole card, below it in proportion.
- At most ``concurrent`` calls at a time, and no more than the replica's memory holds
  beside the model; the rest wait in line.

Left out: that a prompt may be computed in chunks between steps, that steps grow with
what the calls have in their context, and that neighbours on a card slow each other down.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field

from pydantic import Field

from flexray.sim.jobs import TICKS_PER_SECOND, Ticks
from flexray.sim.schema import Memory, Part, Positive, Seconds


class Service(Part):
    """How a replica serves. Round figures for a model of about 8 billion parameters, not measurements."""

    prefill: Positive = 0.0001
    """Seconds per token of the prompt, on a whole nvidia/A100-80GB."""
    decode: Positive = 0.01
    """Seconds per token of the answer, for a call alone on a whole nvidia/A100-80GB."""
    batch_cost: float = Field(default=0.05, ge=0, le=1)
    """How much each further call lengthens a step of decoding: 0 costs nothing, 1 as much as a call alone."""
    saturation: float = Field(default=1.0, gt=0, le=1)
    """The part of a card from which on decoding gets no faster; 1: the speed is proportional to the share."""
    concurrent: int = Field(default=16, ge=1, le=100_000)
    """Calls that a replica works on at a time, where its memory holds them."""
    memory: Memory = 16 * 1024
    """Device memory of the model itself (a number in the output is in MiB)."""
    call_memory: Memory = Field(default=1024)
    """Device memory of a call in work."""

    def room(self, memory_mib: int) -> int:
        """How many calls at a time a replica with so much device memory can work on; 0 where the model is too large."""
        return max(0, min(self.concurrent, (memory_mib - self.memory) // max(1, self.call_memory)))


class Objective(Part):
    """A call is met when its last token comes at most ``base + per_token x generated tokens`` seconds after it came."""

    base: Seconds = 5.0
    """For waiting and the prompt."""
    per_token: Seconds = 0.05
    """For each generated token."""

    def met(self, latency: float, generated: int) -> bool:
        """Whether a call that took so many seconds is met."""
        return latency <= self.base + self.per_token * generated


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a trace: when it comes, tokens of its prompt, tokens of its answer."""

    number: int
    at: Ticks
    context: int
    generated: int


@dataclass(slots=True)
class Replica:
    """One replica at work. Whoever drives it calls ``act`` at the time that ``due`` gives.

    Attributes:
        compute: its share of a card, from 0 to 1.
        speed: nominal speed of its card, nvidia/A100-80GB = 1.
        room: calls it works on at a time, at least 1.
        clock: decoding so far, in steps: a call that joins now is done ``generated`` steps later.
        prompt: the call whose prompt is computed, and until when.
        decoding: (steps at which it is done, number, call), a heap.
        prefill_ticks, decode_ticks: how long it has done the one and the other.
    """

    compute: float
    speed: float
    room: int
    service: Service
    waiting: deque[Call] = field(default_factory=deque)
    prompt: tuple[Call, Ticks] | None = None
    decoding: list[tuple[float, int, Call]] = field(default_factory=list)
    clock: float = 0.0
    counted_at: Ticks = 0
    prefill_ticks: Ticks = 0
    decode_ticks: Ticks = 0

    @property
    def calls(self) -> int:
        """Calls that wait or are in work here."""
        return len(self.waiting) + len(self.decoding) + (self.prompt is not None)

    @property
    def card_seconds(self) -> float:
        """What it has used of its card so far: prompts its share, decoding no more than it can use."""
        decoding = min(self.compute, self.service.saturation)
        return (self.prefill_ticks * self.compute + self.decode_ticks * decoding) / TICKS_PER_SECOND

    @property
    def due(self) -> Ticks | None:
        """When it next has something to do, as things are."""
        if self.prompt is not None:
            return self.prompt[1]
        if not self.decoding:
            return None
        exact = max(0.0, self.decoding[0][0] - self.clock) * self._step
        return self.counted_at + int(exact) + (exact > int(exact))

    def add(self, call: Call, now: Ticks) -> list[Call]:
        """A call comes. Returns the calls whose work starts now."""
        self._count(now)
        self.waiting.append(call)
        return self._start(now)

    def act(self, now: Ticks) -> tuple[list[Call], list[Call]]:
        """Do what is due now. Returns the calls that are done, and those whose work starts."""
        self._count(now)
        done: list[Call] = []
        if self.prompt is not None:
            call, _ = self.prompt
            self.prompt = None
            if call.generated:
                heapq.heappush(self.decoding, (self.clock + call.generated, call.number, call))
            else:
                done.append(call)
        elif self.decoding:
            # Times are rounded up to a tick, and sums of parts of steps are not exact: what was due is done.
            self.clock = max(self.clock, self.decoding[0][0])
            while self.decoding and self.decoding[0][0] <= self.clock:
                done.append(heapq.heappop(self.decoding)[2])
        return done, self._start(now)

    @property
    def _step(self) -> float:
        """Ticks of one step, with the calls that decode now."""
        own = self.service
        alone = own.decode / (self.speed * min(1.0, self.compute / own.saturation))
        return TICKS_PER_SECOND * alone * (1 + own.batch_cost * (len(self.decoding) - 1))

    def _count(self, now: Ticks) -> None:
        """Bring the clock and the books up to now."""
        span = now - self.counted_at
        self.counted_at = now
        if self.prompt is not None:
            self.prefill_ticks += span
        elif self.decoding:
            self.decode_ticks += span
            self.clock += span / self._step

    def _start(self, now: Ticks) -> list[Call]:
        if self.prompt is not None or not self.waiting or len(self.decoding) >= self.room:
            return []
        call = self.waiting.popleft()
        span = TICKS_PER_SECOND * self.service.prefill * call.context / (self.speed * self.compute)
        self.prompt = (call, now + round(span))
        return [call]
