"""What a request would do, and what would start now, without submitting anything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from harness import World, node

from flexray.core.planning import plan
from flexray.model import events
from flexray.model.plan import PlanAnswer
from flexray.model.request import Request, request_from_options
from flexray.model.wire import to_plain
from flexray.queue_file import parse_queues

A100 = {"gpu": 1, "types": "nvidia/A100*"}


def ask(world: World, **options: Any) -> PlanAnswer:
    return plan(world.scheduler.copy(), request_from_options(options), world.now)


def busy(*held: dict[str, Any], queues: tuple[dict[str, Any], ...] = (), **config: Any) -> World:
    """Two A100 and a T4, with such requests running for 100 s."""
    world = World(node("n1", "2xA100", cpus=8), node("n2", "1xT4", cpus=4), **{"lease_term_seconds": 1e6, **config})
    world.apply(events.QueuesConfigured(parse_queues({"queues": list(queues)})))
    for number, options in enumerate(held):
        world.submit(f"r{number}", runtime=100.0, **options)
    world.settle()
    return world


def changes(answer: PlanAnswer) -> dict[str, str]:
    return {one.change: f"{one.asked} @ {','.join(one.devices)}" for one in answer.alternatives}


def test_now_where_there_is_room() -> None:
    answer = ask(busy({"gpu": 1}), gpu=0.5, types="nvidia/A100*")
    assert (answer.starts, answer.type, answer.start.node) == ("now", "nvidia/A100-80GB", "n1")
    assert answer.start.seconds == 1.0 and answer.alternatives == ()
    assert str(answer).startswith("gpu=0.5, types=['nvidia/A100*'] in queue default: would start now on n1/gpu")


def test_later_with_its_basis_and_what_is_near() -> None:
    world = busy({"gpu": 0.6, "types": "nvidia/A100*"}, {"gpu": 0.7, "types": "nvidia/A100*"})
    world.now = 40.0
    answer = ask(world, gpu=0.5, types="nvidia/A100*", memory="8GiB")
    assert (answer.starts, answer.start.seconds, answer.start.basis) == ("later", 61.0, "declared")
    first = world.placed["r0"]
    assert changes(answer) == {
        "share": f"gpu=0.4, memory=\"8192MiB\", types=['nvidia/A100*'] @ {first}",
        "types": 'gpu=0.5, memory="8192MiB" @ n2/gpu0',
    }
    assert "would start in about 61 s on n1/gpu" in str(answer)
    assert "would start now with other share: gpu=0.4" in str(answer)


def test_never_with_what_removed_what() -> None:
    answer = ask(busy(), gpu=1, memory="90GiB")
    assert answer.starts == "never" and answer.start.seconds is None
    assert answer.removed == (("memory", 3),) and "fits none of the pool's 3 devices" in answer.message
    assert changes(answer).keys() == {"memory"} and changes(answer)["memory"].startswith('gpu=1, memory="81920MiB"')


@pytest.mark.parametrize(
    ("held", "asked", "expected"),
    [
        ([A100], {"gpu": 2}, {"devices": "gpu=1"}),
        ([], {"gpu": 1, "types": "nvidia/T4", "cpus": 6},
         {"types": "gpu=1, cpus=6", "cpus": "gpu=1, types=['nvidia/T4'], cpus=4"}),
        ([], {"gpu": 1, "request": Request(isolation="mps")}, {"isolation": "gpu=1"}),
        ([A100] * 2, {"gpu": 1, "types": "nvidia/A100*"}, {"types": "gpu=1"}),
        ([{"gpu": 1}] * 3, {"gpu": 1}, {}),
        ([{"gpu": 0.1, "memory": "79GiB"}] * 2, {"gpu": 0.5, "types": "nvidia/A*", "memory": "2GiB"},
         {"memory": 'gpu=0.5, memory="1024MiB", types=[\'nvidia/A*\']', "types": 'gpu=0.5, memory="2048MiB"'}),
    ],
)  # fmt: skip
def test_what_would_start_now(held: list[dict[str, Any]], asked: dict[str, Any], expected: dict[str, str]) -> None:
    found = {one.change: one.asked for one in ask(busy(*held), **asked).alternatives}
    assert found == expected


def test_another_queue_with_room() -> None:
    queues = ({"name": "a", "limit": 1}, {"name": "b"}, {"name": "c", "priorities": [5, None]})
    world = busy({"gpu": 1, "queue": "a", "types": "nvidia/A100*"}, queues=queues)
    answer = ask(world, gpu=1, queue="a")
    assert (answer.starts, answer.start.seconds) == ("later", 101.0)
    assert [(one.change, one.queue) for one in answer.alternatives] == [("queue", "b")]
    assert "would start now with other queue: gpu=1 in queue b" in str(answer)
    refused = ask(world, gpu=1, queue="c")
    assert refused.starts == "never" and "takes priorities from 5 to any" in refused.message
    unknown = ask(world, gpu=1, queue="aa")
    assert unknown.starts == "never" and "Did you mean 'a'" in unknown.message


def test_reclaim_is_not_now_but_soon() -> None:
    queues = ({"name": "a", "quota": 2}, {"name": "b"})
    world = busy(*[{"gpu": 1, "queue": "b", "types": "nvidia/A100*"}] * 2, queues=queues, grace_seconds=2)
    world.now = 10.0
    answer = ask(world, gpu=1, queue="a", types="nvidia/A100*")
    assert (answer.starts, answer.start.seconds, answer.start.basis) == ("later", 3.0, "room")


def test_nobody_knows_when() -> None:
    world = World(node("n1", "1xA100"), lease_term_seconds=1e6)
    world.submit("r", gpu=1)
    world.settle()
    answer = ask(world, gpu=1)
    assert answer.starts == "unknown" and "nothing is known of how long r runs" in str(answer)
    empty = plan(World().scheduler.copy(), Request(), 0.0)
    assert empty.starts == "unknown" and empty.alternatives == ()


def test_planning_changes_nothing() -> None:
    world = busy({"gpu": 1}, {"gpu": 1})
    before = json.dumps(to_plain(world.snapshot())), len(world.journal)
    ask(world, gpu=1, types="nvidia/A100*", memory="8GiB")
    assert (json.dumps(to_plain(world.snapshot())), len(world.journal)) == before and world.decide() == []
