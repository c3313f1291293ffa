"""The tree of queues, and what a queue is."""

from __future__ import annotations

import pytest
from sharing import queue

from flexray.core.queues import QueueTree
from flexray.errors import UnknownQueue, UsageError
from flexray.model.queue import Queue, QueueAmount, parse_queue_amount, parse_thousandths

TREE = QueueTree([queue("b", parent="a"), queue("a"), queue("c", parent="b"), queue("d", parent="a"), queue("e")])


def test_root_and_default_are_always_there() -> None:
    assert list(QueueTree().queues) == ["default", "root"]
    assert QueueTree().leaves == ("default",)
    described = QueueTree([queue("root", limit=5), queue("default", 3)])
    assert described.queues["default"].quota == QueueAmount(devices=3000)


def test_paths_and_forks() -> None:
    assert TREE.path("c") == ("root", "a", "b", "c")
    assert TREE.leaves == ("c", "d", "default", "e")
    assert list(TREE.down()) == ["root", "a", "b", "c", "d", "default", "e"]
    assert TREE.up()[-1] == "root"
    assert TREE.fork("c", "d") == ("b", "d")
    assert TREE.fork("c", "e") == ("a", "e")
    assert TREE.fork("c", "c") is None


@pytest.mark.parametrize(
    ("queues", "message"),
    [
        ([queue("a"), queue("a")], "'a' is there twice"),
        ([queue("research"), queue("x", parent="reserch")], "unknown parent 'reserch'. Did you mean 'research'?"),
        ([queue("a", parent="b"), queue("b", parent="c"), queue("c", parent="b")], "b -> c -> b"),
    ],
)
def test_what_is_no_tree_is_refused(queues: list[Queue], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        QueueTree(queues)


def test_requests_wait_in_leaves_of_the_tree() -> None:
    assert TREE.leaf("c").name == "c"
    with pytest.raises(UnknownQueue, match=r"unknown queue 'defualt'. Did you mean 'default'\?"):
        TREE.leaf("defualt")
    with pytest.raises(UnknownQueue, match="'a' is a group; requests wait in one of its queues: b, d"):
        TREE.leaf("a")


def test_half_life_and_types_come_from_above() -> None:
    tree = QueueTree([Queue("p", half_life=60, types=("nvidia/*",)), Queue("c", "p", types=("*/T4", "amd/*"))])
    assert [tree.half_life(name) for name in ("p", "c", "default")] == [60, 60, None]
    allowed = [kind for kind in ("nvidia/T4", "nvidia/A10", "amd/MI300X") if tree.allows_type("c", kind)]
    assert allowed == ["nvidia/T4"]


def test_priorities_of_a_queue() -> None:
    assert [Queue("a", priorities=(0, 5)).allows_priority(p) for p in (-1, 0, 5, 6)] == [False, True, True, False]
    assert Queue("a").allows_priority(-99)
    with pytest.raises(UsageError, match="from 5 to 1 leave none"):
        Queue("a", priorities=(5, 1))


@pytest.mark.parametrize(
    ("value", "expected", "shown"),
    [
        (10, QueueAmount(devices=10_000), "10"),
        (0.5, QueueAmount(devices=500), "0.5"),
        (0, QueueAmount(devices=0), "0"),
        ({"compute": 2.5}, QueueAmount(compute=2500), "{compute: 2.5}"),
        ({"nvidia/T4": 4}, QueueAmount(types=(("nvidia/T4", 4000),)), "{nvidia/T4: 4}"),
        (
            {"devices": 8, "nvidia/H*": 2},
            QueueAmount(devices=8000, types=(("nvidia/H*", 2000),)),
            "{devices: 8, nvidia/H*: 2}",
        ),
    ],
)
def test_amounts_as_users_write_them(value: object, expected: QueueAmount, shown: str) -> None:
    assert parse_queue_amount(value) == expected
    assert expected.describe() == shown


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-1, "must be a number from 0"),
        (True, "must be a number"),
        ("ten", "must be a number"),
        (float("nan"), "must be a number"),
        (0.0001, "below 0.001"),
        ({}, "is empty"),
        ({"computes": 2}, r"Did you mean 'compute'\?"),
        ({"nvidia/T4": -1}, r"quota.nvidia/T4 must be"),
        ({4: 1}, "4 is neither a device type"),
    ],
)
def test_amounts_that_make_no_sense(value: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_queue_amount(value)


def test_thousandths_are_rounded_half_up() -> None:
    assert [parse_thousandths(v, "weight") for v in (0.0005, 1.0005, 2.0004999)] == [1, 1001, 2000]


@pytest.mark.parametrize("fields", [{"name": ""}, {"name": "a", "parent": "a"}, {"name": "a", "weight": -1}])
def test_queues_that_make_no_sense(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Queue(**fields)  # type: ignore[arg-type]


def test_a_half_life_is_above_0() -> None:
    with pytest.raises(UsageError, match="half_life"):
        Queue("a", half_life=0)
