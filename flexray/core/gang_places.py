"""Where the members of a gang go: on devices of one type, on as few nodes as possible or on as many.

Everything is planned first, and undone if it does not work out, so that nothing is ever held for a part of a gang that
cannot start.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from flexray.core.choosing import Choice
from flexray.core.gang_fit import HOST, fits_now, members_on
from flexray.core.placement import Pool
from flexray.core.reclaim import idle_slices_to_stop
from flexray.core.records import GangRecord, RequestRecord, SliceRecord
from flexray.core.state import State
from flexray.model.gang import Layout
from flexray.model.lifecycle import SliceStep
from flexray.model.request import Request


class Planned(NamedTuple):
    """A member with the slice planned for it, the idle slices that have to make room, and why it is there."""

    member: RequestRecord
    slice: SliceRecord
    victims: list[SliceRecord]
    choice: Choice


def place_gang(state: State, gang: GangRecord, now: float) -> bool:
    """Give places to as many members of a gang that waits as there is room for. False, and nothing, if too few fit."""
    planned = plan(state, gang, gang.live, gang.needed, now)
    commit(state, planned, now)
    return bool(planned)


def fits(state: State, gang: GangRecord, now: float) -> bool:
    """Whether a gang that waits could get its places now. Changes nothing."""
    planned = plan(state, gang, gang.live, gang.needed, now)
    undo(state, planned, now)
    return bool(planned)


def plan(
    state: State, gang: GangRecord, members: list[RequestRecord], least: int, now: float, only: str | None = None
) -> list[Planned]:
    """Plan slices for members without a place, at least so many of them; [] if that does not work out on any type.

    Args:
        only: the one device type that will do.
    """
    for kind, many in _types(state, gang, members, least):
        if only is None or kind == only:
            planned = _plan_on(state, gang, members[:many], kind, now)
            if len(planned) >= least:
                return planned
            undo(state, planned, now)
    return []


def undo(state: State, planned: list[Planned], now: float) -> None:
    """Take back a plan."""
    for one in planned:
        one.slice.request = None
        state.slices.step(one.slice, SliceStep.END, now)


def commit(state: State, planned: list[Planned], now: float) -> None:
    """Carry a plan out."""
    for one in planned:
        one.member.choice = one.choice
        state.reserve_planned(one.member, one.slice, one.victims, now)


def _types(state: State, gang: GangRecord, members: list[RequestRecord], least: int) -> list[tuple[str, int]]:
    """(type, how many members) for types with room for enough of them: first where the gang is done soonest."""
    speeds = state.pool.chooser.speeds_for(gang.leader.task_class, gang.request)
    found = []
    for kind, room in fits_now(state.pool, gang.request).items():
        many = state.sharing.within_limits(gang.leader, kind, min(room, len(members)))
        if many >= least:
            found.append((-speeds.get(kind, 1.0) * many, kind, many))
    return [(kind, many) for _, kind, many in sorted(found)]


def _plan_on(state: State, gang: GangRecord, members: list[RequestRecord], kind: str, now: float) -> list[Planned]:
    asked, layout = gang.request, gang.request.gang.layout if gang.request.gang is not None else Layout.PACK
    piece = dataclasses.replace(asked, gang=None, types=asked.types if kind == HOST else (kind,))
    lay = {Layout.PACK: _packed, Layout.SPREAD: _spread}[layout]
    return lay(state, members, piece, kind, now)


def _packed(state: State, members: list[RequestRecord], piece: Request, kind: str, now: float) -> list[Planned]:
    """The smallest node that holds all that are left, else the one that holds most, and so on."""
    planned: list[Planned] = []
    refused: dict[str, None] = {}
    while len(planned) < len(members):
        found = _node_for(state.pool, piece, kind, len(members) - len(planned), refused)
        if found is None:
            break
        node, many = found
        for member in members[len(planned) :][:many]:
            choice = state.pool.chooser.place_on(piece, state.options.policy, node, member.task_class)
            if choice is None:  # of the host there is a little less than its level says
                refused[node] = None
                break
            planned.append(_plan_slice(state, member, choice, now))
    return planned


def _node_for(pool: Pool, piece: Request, kind: str, wanted: int, refused: dict[str, None]) -> tuple[str, int] | None:
    """The node to use next, and how many members it holds."""
    pool.landscape.refresh()
    best: tuple[tuple[int, int, int], str, int] | None = None
    for nodes in pool.landscape.inhabited():
        many = members_on(pool, piece, nodes).get(kind, 0)
        if not many:
            continue
        rank, node = next(((rank, name) for rank, name in nodes.in_order() if name not in refused), (0, ""))
        key = (0, many, rank) if many >= wanted else (1, -many, rank)
        if node and (best is None or key < best[0]):
            best = (key, node, many)
    return None if best is None else best[1:]


def _spread(state: State, members: list[RequestRecord], piece: Request, kind: str, now: float) -> list[Planned]:
    """One on each node, the best ones first, then a second one on each, and so on."""
    planned: list[Planned] = []
    had: dict[str, None] = {}
    while len(planned) < len(members):
        member = members[len(planned)]
        choice = state.pool.chooser.place(piece, state.options.policy, member.task_class, without=had)
        if choice is not None:
            planned.append(_plan_slice(state, member, choice, now))
            had[choice.placement.node] = None
        elif had:
            had = {}
        else:
            break
    return planned


def _plan_slice(state: State, member: RequestRecord, choice: Choice, now: float) -> Planned:
    victims = idle_slices_to_stop(state.slices, state.pool, choice.placement, member.request.host)
    return Planned(member, state.slices.plan(member, choice.placement, now), victims, choice)
