"""What an explanation says: reasons with figures, positions, preemptions, how requests ended."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from harness import World, node

from flexray.core.estimate import estimate_starts
from flexray.core.explaining import explain, explain_ended
from flexray.core.planning import plan
from flexray.model import events
from flexray.model.explanation import Borrower, Holder
from flexray.model.request import Request, request_from_options
from flexray.model.wire import to_plain
from flexray.queue_file import parse_queues

A100 = {"types": "nvidia/A100*"}


def world(devices: str = "2xA100", *queues: dict[str, Any], **config: Any) -> World:
    there = World(node("n1", devices, cpus=8), **{"lease_term_seconds": 1e6, "grace_seconds": 2, **config})
    there.apply(events.QueuesConfigured(parse_queues({"queues": list(queues)})))
    return there


def run(there: World, name: str, **options: Any) -> None:
    there.submit(name, **options)
    there.settle()


def test_a_limit_says_whose_and_who_uses_it() -> None:
    there = world(
        "4xA100", {"name": "g", "limit": {"compute": 2}}, {"name": "a", "parent": "g"}, {"name": "b", "parent": "g"}
    )
    run(there, "x", gpu=1, queue="a", task_class="train/1/2")
    run(there, "y", gpu=0.5, queue="b", task_class="embed/3/4")
    run(there, "z", gpu=1, queue="b", task_class="embed/3/5")
    run(there, "behind", gpu=1, queue="b", task_class="embed/3/5")
    found = there.explain("z")
    assert (found.wait_reason, found.limit.queue, found.limit.measure) == ("queue_limit", "g", "compute")
    assert (found.limit.used, found.limit.limit, found.limit.asked) == (1.5, 2.0, 1.0)
    assert found.limit.holders == (Holder("a", "train/1/2", 1, 1.0), Holder("b", "embed/3/4", 1, 0.5))
    assert found.needs == (
        "queue g uses 1.5 of its limit of 2 compute and this takes 1, held by train 1 devices in 1 requests, "
        "embed 0.5 devices in 1 requests; work of its queue (or of one above it) has to end, or the limit to be raised"
    )
    assert there.explain("behind").limit == found.limit, "not only the head of a line is told"


@pytest.mark.parametrize(
    ("limit", "measure", "figures"),
    [
        (3, "devices", (3, 3, 1)),
        ({"nvidia/A100*": 2}, "nvidia/A100*", (2, 2, 1)),
        ({"devices": 9, "compute": 2.5}, "compute", (2, 2.5, 1)),
    ],
)  # fmt: skip
def test_a_limit_says_in_which_measure(limit: object, measure: str, figures: tuple[float, float, float]) -> None:
    there = world("4xA100", {"name": "a", "limit": limit})
    for number in range(4):
        run(there, f"r{number}", gpu=1, queue="a", **A100)
    found = there.explain("r3").limit
    assert (found.measure, (found.used, found.limit, found.asked)) == (measure, figures)


def test_who_borrows_from_a_queue_below_its_quota() -> None:
    """They run for less than the minimum time, so nothing is taken back yet."""
    there = world("2xA100", {"name": "a", "quota": 2}, {"name": "b"})
    run(there, "x", gpu=1, queue="b")
    run(there, "y", gpu=1, queue="b")
    run(there, "z", gpu=1, queue="a")
    found = there.explain("z")
    assert (found.wait_reason, found.standing.quota, found.standing.used) == ("no_room", 2.0, 0.0)
    assert found.standing.borrowers == (Borrower("b", 2.0),)
    assert found.needs.endswith(
        "queue a uses 0 of the 2 compute that it is guaranteed, and b (2) borrows: leases there may be taken back"
    )
    own = there.explain("y").standing
    assert own is None, "it does not wait"


def test_quotas_that_the_pool_cannot_keep_are_named() -> None:
    there = world("2xA100", {"name": "a", "quota": 2}, {"name": "b", "quota": 2})
    run(there, "x", gpu=1, queue="a")
    run(there, "y", gpu=1, queue="b")
    run(there, "z", gpu=1, queue="a")
    found = there.explain("z")
    (why,) = found.standing.reduced
    assert found.standing.quota == 1.0 and "promised 4" in why and why in found.needs


def test_a_queue_that_has_its_quota_waits_for_its_turn() -> None:
    there = world("2xA100", {"name": "a", "quota": 1}, {"name": "b", "quota": 1})
    for name in ("x", "y"):
        run(there, name, gpu=1, queue=name.replace("x", "a").replace("y", "b"))
    run(there, "z", gpu=1, queue="a")
    assert there.explain("z").needs.endswith(
        "of the 1 compute that it is guaranteed and is entitled to 1: it waits for its turn"
    )


@pytest.mark.parametrize(
    ("devices", "held", "asked", "place", "lacks"),
    [
        ("2xA100", [{"gpu": 0.7}, {"gpu": 0.9}], {"gpu": 0.5, "memory": "1GiB"}, "n1/gpu", {"lacks_share": 0.2}),
        ("1xA100 1xT4", [{"gpu": 0.1, **A100}, {"gpu": 0.9, "types": "nvidia/T4"}], {"gpu": 0.2, "memory": "76GiB"},
         "n1/gpu0", {"lacks_memory": 76 * 1024 - (80 * 1024 - 8192)}),
        ("4xA100", [{"gpu": 2}, {"gpu": 0.1}], {"gpu": 3}, "n1", {"lacks_devices": 2}),
        ("2xA100", [{"gpu": 0.1, "cpus": 6}], {"gpu": 0.1, "cpus": 4}, "n1/gpu", {"lacks_cpus": 2.0}),
        ("1xA100", [{"gpu": 0.1, "cpus": 6}], {"request": Request(devices=0, cpus=4000)}, "n1", {"lacks_cpus": 2.0}),
    ],
)  # fmt: skip
def test_the_nearest_place(
    devices: str, held: list[dict[str, Any]], asked: dict[str, Any], place: str, lacks: dict[str, float]
) -> None:
    there = world(devices)
    for number, options in enumerate(held):
        run(there, f"r{number}", **options)
    run(there, "next", **asked)
    found = there.explain("next").nearest
    plain = to_plain(found)
    assert found.place.startswith(place)
    assert {key: value for key, value in plain.items() if key.startswith("lacks") and value} == lacks
    assert f"nearest is {found.place}" in there.explain("next").needs


def test_who_makes_room_and_until_when() -> None:
    there = world("1xA100")
    run(there, "low", gpu=1, request=Request(preemptible=True))
    there.now = 10.0
    run(there, "high", gpu=1, priority=5)
    found = there.explain("high")
    (leaving,) = found.leaving
    assert (found.wait_reason, leaving.request, leaving.how, leaving.seconds) == (
        "making_room",
        "low",
        "preempted",
        2.0,
    )
    assert found.needs.endswith("it waits for low (preempted, 2 s from now at the latest)")
    (taken,) = found.preemptions
    assert (taken.winner, taken.victim.request, taken.reason, taken.at) == ("high", "low", "priority", 10.0)
    assert taken.lost == 11.0, "ten seconds of work and a start, on a whole device"
    assert there.explain("low").preemptions == (taken,) and there.snapshot().preemptions == (taken,)
    assert "taken back from low of queue default on n1/gpu0 (priority); 11.0 device-seconds" in str(found)
    assert "taken back from low of queue default for high of queue default" in str(there.explain("low"))


def test_a_recalled_lease_makes_room_when_its_work_is_expected_to_end() -> None:
    there = world("1xA100", lease_term_seconds=5)
    run(there, "old", gpu=1, runtime=60.0)
    run(there, "new", gpu=1, task_class="other")
    there.wait(6)
    (leaving,) = there.explain("new").leaving
    assert (leaving.request, leaving.how, leaving.seconds) == ("old", "recalled", 54.0)


def test_positions_in_the_queue_and_in_all() -> None:
    there = world("1xA100", {"name": "a"}, {"name": "b"})
    run(there, "x", gpu=1, queue="a")
    for name, queue in (("a1", "a"), ("b1", "b"), ("a2", "a")):
        run(there, name, gpu=1, queue=queue)
    found = there.explain("a2")
    assert (found.position, found.queue_position) == (3, 2)
    assert str(found).startswith("request a2: queued, waits for no_room (position 3, 2 in queue a)")


def test_how_requests_ended() -> None:
    there = world("1xA100")
    state = there.scheduler.state
    run(there, "done", gpu=1)
    there.now = 30.0
    there.release("done")
    there.now = 90.0
    run(there, "never", gpu=2)
    found = explain_ended(state, "done")
    assert (found.state, found.over, found.message) == ("done", True, "ended 60 s ago after 30 s on its last lease")
    never = explain_ended(state, "never")
    assert never.state == "failed" and never.message.startswith("infeasible: gpu=2 fits none of the pool's 1 devices")
    assert explain_ended(state, "nobody") is None and there.explain("done") is None


def test_only_the_latest_are_remembered() -> None:
    there = world("1xA100")
    for number in range(1_005):
        there.scheduler.apply(events.RequestSubmitted(f"r{number}", "S", "E", "f", Request()), 0.0)
        there.scheduler.apply(events.RequestCancelled(f"r{number}"), 0.0)
    past = there.scheduler.state.past
    assert len(past.endings) == 1_000 and "r4" not in past.endings and "r5" in past.endings


def test_the_documented_example() -> None:
    """docs/explain.md: what is said there is what comes out."""
    there = world("2xA100", {"name": "prod", "quota": 1}, {"name": "research"})
    run(there, "train", gpu=1, queue="research", runtime=600.0, task_class="train")
    run(there, "eval", gpu=0.6, queue="research", runtime=120.0, task_class="eval")
    run(there, "tune", gpu=0.5, queue="research", task_class="tune")
    there.wait(20)
    core = there.scheduler
    start = estimate_starts(core.copy(), ["tune"], there.now)["tune"]
    asked = {"gpu": 0.5, "memory": "8GiB", "types": "nvidia/A100*", "queue": "research", "runtime": 600}
    answers = [explain(core.state, "tune", start), plan(core.copy(), request_from_options(asked), there.now)]
    page = (Path(__file__).parents[2] / "docs" / "explain.md").read_text()
    documented = [json.loads(text) for text in re.findall(r"^```json\n(.*?)^```", page, re.DOTALL | re.MULTILINE)]
    assert documented == [to_plain(answer) for answer in answers]
    for answer in answers:
        assert all(f"    {line}\n" in page for line in str(answer).splitlines())
