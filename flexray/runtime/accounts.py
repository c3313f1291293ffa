"""The accounts of a pool that runs: fed by the scheduler, kept by the hour, asked by people.

What is kept outlives the scheduler: see docs/accounting.md for what of the last seconds may be missing after a crash.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flexray.accounting.advice import Advice, advise
from flexray.accounting.fold import Fold
from flexray.accounting.ledger import HOUR, Ledger
from flexray.accounting.profiles import ClassKey, Profiles, profiles_from
from flexray.accounting.report import UsageTable, usage_table
from flexray.config import PoolConfig
from flexray.errors import UsageError
from flexray.model.commands import Command
from flexray.model.events import Event
from flexray.model.holding import Holding
from flexray.model.lease import SliceId
from flexray.model.snapshot import SliceView, Snapshot
from flexray.runtime.kept import PROFILES, USAGE, Kept
from flexray.runtime.kept_folder import FolderKeyValues
from flexray.runtime.usage import SliceUse, UsageReport

_RECENT = 5000
_SAVE_SECONDS = 15.0
_HOURS_A_DAY = 24
_DAYS = 7.0
"""In memory, where all is in a folder."""
_HOUR_SECONDS = HOUR / 1e6

_log = logging.getLogger("flexray")


class Accounts:
    """An Observer of the core.

    Attributes:
        recent: the latest holdings that are over, oldest first.

    Args:
        kept: the pool's records; hours go into a folder instead, if the configuration names one.
    """

    def __init__(self, kept: Kept, config: PoolConfig, now: float) -> None:
        self.recent: deque[Holding] = deque(maxlen=_RECENT)
        self._kept = kept
        self._trouble = self._unwritten = ""
        self._days = _DAYS if isinstance(config.usage_kept, str) else config.usage_kept
        self._hours = self._open(config.usage_kept) if isinstance(config.usage_kept, str) else kept
        self._ledger = Ledger()
        self._on_node: dict[str, set[SliceId]] = {}
        counted_until = self._restore(now)
        self._fold = Fold(self._ledger, self.recent.append, counted_until)
        self._saved_at = time.monotonic()

    @property
    def notes(self) -> list[str]:
        """What a person should know of the accounts themselves."""
        others = self._hours.notes if self._hours is not self._kept else []
        return [*others, *(note for note in (self._trouble, self._unwritten) if note)]

    def saw(self, event: Event, now: float) -> None:
        """An event happened."""
        self._try(lambda: self._fold.saw(event, now))

    def decided(self, commands: Sequence[Command], now: float) -> None:
        """A cycle is over."""
        self._try(lambda: self._fold.decided(commands, now))

    def measured(self, node: str, report: UsageReport, now: float) -> None:
        """A node has looked at its slices; it has no others any more."""
        self._try(lambda: self._take_in(node, report, now))

    def _try(self, do: Callable[[], None]) -> None:
        """Whatever is wrong with the accounts, the pool goes on."""
        try:
            do()
        except Exception as error:
            if not self._trouble:
                self._trouble = f"usage is not counted rightly any more ({error!r}); please report it"
                _log.exception("flexray: %s", self._trouble)

    def _take_in(self, node: str, report: UsageReport, now: float) -> None:
        self._fold.measured(node, {use.slice: use.lately for use in report.slices}, now)
        for use in report.slices:
            self._note(use, now)
        here = {use.slice for use in report.slices}
        for gone in self._on_node.pop(node, set()) - here:
            self._profiles.forget_slice(gone)
        if here:
            self._on_node[node] = here

    def _note(self, use: SliceUse, now: float) -> None:
        """A sample of a class, unless its slice has another size than it asks for, or nothing could be measured."""
        held = self._fold.on_slice.get(use.slice)
        if held is None or held.share != held.asked.share or (use.lately is None and use.memory is None):
            return
        place = held.lease.placement
        key = ClassKey(held.holder.task, held.share, place.memory, len(place.devices))
        self._profiles.note(key, use.slice, held.lease.lease, (use.lately, use.memory), now)

    # -- questions -----------------------------------------------------------------------------

    def history(self, since: float) -> tuple[Holding, ...]:
        """Those of the latest holdings that ended at that time or later, oldest first."""
        return tuple(one for one in self.recent if one.end >= since)

    def with_owners(self, snapshot: Snapshot) -> Snapshot:
        """The picture with whose the slices are."""
        return replace(snapshot, slices=tuple(map(self._with_owner, snapshot.slices)))

    def _with_owner(self, piece: SliceView) -> SliceView:
        held = self._fold.on_slice.get(SliceId(piece.id))
        return piece if held is None else replace(piece, user=held.holder.user, job=held.holder.job)

    def usage(self, by: Sequence[str], since: float, now: float, older: Ledger | None = None) -> UsageTable:
        """What was held and used since a time; ``older``: what ``read_older`` has found of it."""
        self._fold.settle(now)
        both = Ledger()
        for ledger in (older or Ledger(), self._ledger):
            both.speeds.update(ledger.speeds)
            both.hours.update(ledger.hours)
            both.promised.update(ledger.promised)
        return usage_table(both, by, since, now)

    def read_older(self, since: float, now: float) -> Ledger:
        """Hours since a time that are no longer in memory, from the folder. May be called in any thread."""
        found = Ledger()
        for hour in self._kept_hours() if self._hours is not self._kept else []:
            if since / _HOUR_SECONDS - 1 < hour < self._first_hour(now):
                self._read(found, hour)
        return found

    def advice(self, speeds: Sequence[tuple[str, str, float, float]]) -> tuple[Advice, ...]:
        """What task classes should ask for; ``speeds`` as ``core.speeds.Speeds.rows`` gives them."""
        return advise(self._profiles, _call_seconds(speeds))

    # -- records -------------------------------------------------------------------------------

    def save_now_and_then(self, now: float) -> None:
        """What has changed, if some time has passed."""
        if time.monotonic() - self._saved_at >= _SAVE_SECONDS:
            self.save(now)

    def save(self, now: float) -> None:
        """What has changed; where that cannot be written it is tried again later."""
        self._saved_at = time.monotonic()
        try:
            self._write(now)
            self._unwritten = ""
        except OSError as error:
            if not self._unwritten:
                _log.error("flexray: %s", error)
            self._unwritten = f"usage cannot be kept now ({error}); it is counted meanwhile"

    def _write(self, now: float) -> None:
        """Each hour says until when it is complete: leases that go on are counted from there."""
        self._fold.settle(now)
        for hour in sorted(self._ledger.changed):
            until = min(now, (hour + 1) * _HOUR_SECONDS)
            self._hours.write(USAGE + str(hour).encode(), [until, *self._ledger.plain(hour)])
        if self._ledger.changed:
            self._kept.write(PROFILES, self._profiles.plain())
        self._ledger.changed.clear()
        for hour in self._ledger.forget_before(self._first_hour(now)):
            if self._hours is self._kept:
                self._hours.forget(USAGE + str(hour).encode())

    def _open(self, folder: str) -> Kept:
        try:
            return Kept(FolderKeyValues(folder))
        except UsageError as error:
            self._trouble = f"{error}; usage is kept for {_DAYS:g} days in Ray's store instead"
            return self._kept

    def _restore(self, now: float) -> float:
        """What was kept; until when it is complete."""
        counted = [0.0]
        for hour in self._kept_hours():
            if hour >= self._first_hour(now):
                counted.append(self._read(self._ledger, hour))
            elif self._hours is self._kept:
                self._hours.forget(USAGE + str(hour).encode())
        self._profiles = self._kept.read(PROFILES, profiles_from) or Profiles()
        return max(counted)

    def _read(self, ledger: Ledger, hour: int) -> float:
        def parse(rows: list[Any]) -> float:
            until, *plain = rows
            ledger.restore(hour, plain)
            return float(until)

        return self._hours.read(USAGE + str(hour).encode(), parse) or 0.0

    def _kept_hours(self) -> list[int]:
        names = [key.removeprefix(USAGE) for key in self._hours.keys(USAGE)]
        return sorted(int(name) for name in names if name.isdigit())

    def _first_hour(self, now: float) -> int:
        return int(now / _HOUR_SECONDS) - round(self._days * _HOURS_A_DAY)


def _call_seconds(speeds: Sequence[tuple[str, str, float, float]]) -> Mapping[str, float]:
    """By name of the function, what a call took: where it was measured most."""
    found: dict[str, tuple[float, float]] = {}
    for task_class, _, weight, mean in speeds:
        name, _, rest = task_class.partition("/")
        if not rest.endswith("/steps") and weight > found.get(name, (0.0, 0.0))[0]:
            found[name] = (weight, mean)
    return {name: math.exp(mean) for name, (_, mean) in found.items()}
