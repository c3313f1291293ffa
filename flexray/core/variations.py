"""Requests near a request, by kind of change, the nearest first: as much as there is room for, or less strict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from flexray.core.state import State
from flexray.model.amounts import MemoryMiB, MilliCpus, Share
from flexray.model.isolation import Isolation, Strength
from flexray.model.request import Request

Fits = Callable[[Request], bool]
"""Whether a request may start now."""
Near = Callable[[State, Request, Fits], Iterator[Request]]


def _most(least: int, below: int, make: Callable[[int], Request], fits: Fits) -> Iterator[Request]:
    """The request with the largest amount from ``least`` to less than ``below`` that fits, found by halving."""
    if below <= least or not fits(make(least)):
        return
    low, high = least, below
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(make(middle)) else (low, middle)
    yield make(low)


def _devices(state: State, request: Request, fits: Fits) -> Iterator[Request]:
    for count in range(request.devices - 1, 0, -1):
        other = replace(request, devices=count)
        if fits(other):
            yield other
            return


def _share(state: State, request: Request, fits: Fits) -> Iterator[Request]:
    if request.devices == 1:
        yield from _most(1, request.share, lambda share: replace(request, share=Share(share)), fits)


def _memory(state: State, request: Request, fits: Fits) -> Iterator[Request]:
    kinds = state.pool.kinds
    grants = [kinds.grant(kind, request) for kind in kinds.present()] if request.devices else []
    most = max((one.memory for one in grants if one is not None), default=request.memory or 0)
    yield from _most(1, most, lambda mib: replace(request, memory=MemoryMiB(mib)), fits)


def _types(state: State, request: Request, fits: Fits) -> Iterator[Request]:
    if request.types and fits(other := replace(request, types=())):
        yield other


def _queue(state: State, request: Request, fits: Fits) -> Iterator[Request]:
    for leaf in state.sharing.configured.leaves:
        if leaf != request.queue and fits(other := replace(request, queue=leaf)):
            yield other


def _isolation(state: State, request: Request, fits: Fits) -> Iterator[Request]:
    strongest = max(request.least, key=lambda strength: strength.rank).rank
    weaker: list[Isolation | Strength] = [*reversed(list(Strength)[1:strongest]), Isolation.NONE]
    for isolation in weaker:
        if isolation is not request.isolation and fits(other := replace(request, isolation=isolation)):
            yield other
            return


def _cpus(state: State, request: Request, fits: Fits) -> Iterator[Request]:
    least = 0 if request.devices else 1
    yield from _most(least, request.cpus, lambda cpus: replace(request, cpus=MilliCpus(cpus)), fits)


def _host_memory(state: State, request: Request, fits: Fits) -> Iterator[Request]:
    least = 0 if request.devices else 1
    yield from _most(least, request.host_memory, lambda mib: replace(request, host_memory=MemoryMiB(mib)), fits)


def _gang(state: State, request: Request, fits: Fits) -> Iterator[Request]:
    """Half as many members, and half of those; whether they fit together is seen in the trial."""
    gang = request.gang
    size = gang.size // 2 if gang is not None else 0
    while gang is not None and size:
        smaller = replace(gang, size=size, least=min(gang.least, size) if gang.least is not None else None)
        other = replace(request, gang=smaller)
        if fits(other):
            yield other
        size //= 2


VARIATIONS: dict[str, Near] = {
    "devices": _devices,
    "share": _share,
    "memory": _memory,
    "types": _types,
    "queue": _queue,
    "isolation": _isolation,
    "cpus": _cpus,
    "host_memory": _host_memory,
    "gang": _gang,
}
