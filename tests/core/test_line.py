"""The line as it is shown: the first of a long one, and how many stand in it for what."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from harness import World
from walk import _Walker, walk

from flexray.core.line import first_in_line, placed
from flexray.core.state import State
from flexray.core.views import snapshot
from flexray.model.lifecycle import RequestState
from flexray.model.snapshot import RequestView


def in_line(state: State) -> list[tuple[str, int]]:
    """Who stands in line with what position, as ``State.waiting`` orders them."""
    order = list(enumerate(state.waiting(), start=1))
    first = [(r.id, place) for place, one in order for r in ([one] if one.gang is None else one.gang.queued)]
    late = [(r.id, 0) for gang in state.gangs.values() if not gang.waits for r in gang.queued]
    return [*first, *late]


def check(world: World) -> None:
    state = world.scheduler.state
    expected = in_line(state)
    for most in (None, 0, 3, 10_000):
        assert [(one.id, place) for one, place in first_in_line(state, most)] == expected[:most]
    have = sorted((one for one in state.requests.values() if one.slice), key=lambda one: (one.sequence, one.id))
    assert placed(state) == have
    whole, part = snapshot(state, world.now, 1), snapshot(state, world.now, 1, listed=2)
    some = (RequestState.QUEUED.value, RequestState.RESERVED.value)
    assert sum(1 for one in whole.waiting if one.state == some[0]) == len(expected)
    assert part.classes == whole.classes and part.queues == whole.queues and part.running == whole.running
    assert [view.id for view in part.waiting if view.state == some[0]] == [name for name, _ in expected[:2]]
    counted = Counter((view.task_class.split("/")[0], view.queue, view.priority, view.asked) for view in alone(world))
    told = Counter[tuple[str, str, int, str]]()
    for view in whole.classes:
        told[view.task, view.queue, view.priority, view.asked] += view.waiting
    assert told == counted
    for queue in whole.queues:
        mine = [view for view in whole.waiting if view.queue == queue.name]
        assert queue.waiting == len(mine)


def alone(world: World) -> list[RequestView]:
    """The views of all that stand in line, but for members that their gang runs without."""
    late = {name for name, place in in_line(world.scheduler.state) if place == 0}
    views = snapshot(world.scheduler.state, world.now, 1).waiting
    return [view for view in views if view.state == RequestState.QUEUED.value and view.id not in late]


@pytest.mark.parametrize("seed", range(8))
def test_it_is_what_the_whole_line_says(seed: int) -> None:
    walker = _Walker(random.Random(seed), cut=seed % 2 == 1)
    for _ in range(12):
        for _ in range(15):
            walker.step()
        check(walker.world)


def test_a_walk_has_lines_to_show() -> None:
    assert in_line(walk(0, 180).scheduler.state)
