"""Whose turn it is: filling pools one device at a time, published cases, and the heaps against a plain search."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharing import A100, amount, devices, pool, queue

from flexray.core.fairness import entitled
from flexray.core.loads import Load, TypeRoom
from flexray.core.promises import fitted
from flexray.core.queue_books import QueueBooks
from flexray.core.queues import QueueTree
from flexray.core.turns import Turns
from flexray.errors import InternalError
from flexray.model.amounts import MemoryMiB
from flexray.model.queue import Queue
from flexray.model.request import request_from_options


def fill(
    queues: list[Queue], waiting: dict[str, int], load: dict[str, Load], capacity: dict[str, TypeRoom]
) -> tuple[list[str], dict[str, int]]:
    """Serve requests until nobody waits or nothing fits: the turns taken, and how many each queue got."""
    tree, _ = fitted(QueueTree(queues), capacity)
    books, turns = QueueBooks(tree, capacity), Turns(tree)
    demand = {name: {A100: (load[name][A100][0] * n, load[name][A100][1] * n)} for name, n in waiting.items() if n}
    shares = entitled(tree, demand, capacity)
    turns.settle({name: one.amount for name, one in shares.items()}, books.worths())
    left = dict(waiting)
    for name in left:
        turns.join(name)
    room, taken = [capacity[A100].devices, capacity[A100].devices], []
    while (name := turns.next()) is not None:
        share, memory = load[name][A100]
        fits = share <= room[0] and memory <= room[1]
        if not left[name] or not fits or books.limited_by(name, load[name]) is not None:
            turns.leave(name)
            continue
        books.take(name, load[name])
        for step in tree.path(name):
            turns.uses(step, books.worths()[step])
        room = [room[0] - share, room[1] - memory]
        left[name] -= 1
        taken.append(name)
    return taken, {name: taken.count(name) for name in waiting}


def whole(*names: str) -> dict[str, Load]:
    return dict.fromkeys(names, devices(1))


def test_turns_reach_70_and_30() -> None:
    queues = [queue("a", 10, weight=3), queue("b", 10, weight=1)]
    _, got = fill(queues, {"a": 100, "b": 100}, whole("a", "b"), pool(A100=100))
    assert got == {"a": 70, "b": 30}


def test_the_example_of_drf() -> None:
    """9 CPUs and 18 GB; A asks 1 CPU and 4 GB, B 3 CPUs and 1 GB: A gets 3, B 2 (Ghodsi et al., NSDI 2011)."""
    load = {"a": devices(1, memory=2), "b": devices(3, memory=0.5)}  # 18 GB are 9 devices' memory
    taken, got = fill([queue("a"), queue("b")], {"a": 9, "b": 9}, load, pool(A100=9))
    assert got == {"a": 3, "b": 2}
    assert taken == ["a", "b", "a", "b", "a"]


def test_the_last_device_goes_to_the_lowest_share_then_by_name() -> None:
    names = ("c", "a", "b")
    taken, got = fill([queue(n) for n in names], dict.fromkeys(names, 9), whole(*names), pool(A100=10))
    assert got == {"a": 4, "b": 3, "c": 3}
    assert taken[:3] == ["a", "b", "c"]


def test_a_blocked_childs_turns_go_to_its_siblings() -> None:
    queues = [queue("p"), queue("q"), queue("p1", parent="p", limit=1), queue("p2", parent="p")]
    _, got = fill(queues, dict.fromkeys(("p1", "p2", "q"), 10), whole("p1", "p2", "q"), pool(A100=10))
    assert got == {"p1": 1, "p2": 4, "q": 5}


def test_a_groups_limit_binds_all_below() -> None:
    queues = [queue("p", limit=3), queue("p1", parent="p"), queue("p2", parent="p"), queue("q")]
    _, got = fill(queues, {"p1": 5, "p2": 5, "q": 5}, whole("p1", "p2", "q"), pool(A100=10))
    assert got == {"p1": 2, "p2": 1, "q": 5}


def test_complementary_queues_fill_the_pool_beyond_what_they_are_entitled_to() -> None:
    load = {"a": devices(1, memory=0), "b": devices(0, memory=1)}
    _, got = fill([queue("a"), queue("b")], {"a": 9, "b": 9}, load, pool(A100=9))
    assert got == {"a": 9, "b": 9}


def test_nobody_is_last_for_ever_among_those_entitled_to_nothing() -> None:
    tree = QueueTree([queue("a", weight=1), queue("b", weight=4), queue("c", priority=1)])
    turns = Turns(tree)
    used = dict.fromkeys(tree.queues, 0)
    turns.settle({}, used)
    for name in ("a", "b"):
        turns.join(name)
    order = []
    for _ in range(10):
        name = turns.next()
        assert name is not None
        order.append(name)
        used[name] += 1_000_000
        turns.uses(name, used[name])
    assert order.count("b") == 8
    turns.join("c")
    assert turns.next() == "c"


def test_books_follow_leases_and_what_waits() -> None:
    tree = QueueTree([queue("p", limit={"compute": 2}), queue("p1", parent="p")])
    books = QueueBooks(tree, pool(A100=4))
    books.take("p1", devices(1.5))
    assert books.worths() == {"default": 0, "p": 1_500_000, "p1": 1_500_000, "root": 1_500_000}
    assert books.limited_by("p1", devices(0.5)) is None
    assert books.limited_by("p1", devices(0.6)) == "p"
    books.give_back("p1", devices(1.5))
    assert books.used["root"] == {}
    with pytest.raises(InternalError, match="gives back"):
        books.give_back("p1", devices(1))


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Queue], list[tuple[str, int]]]:
    names = [f"q{n}" for n in range(draw(st.integers(1, 8)))]
    queues = [
        queue(name, weight=draw(st.integers(0, 3)), parent=draw(st.sampled_from(["root", *names[:place]])))
        for place, name in enumerate(names)
    ]
    leaves = QueueTree(queues).leaves
    steps = st.tuples(st.sampled_from(leaves), st.integers(-1, 5))
    return queues, draw(st.lists(steps, max_size=60))


@given(histories(), st.lists(st.integers(0, 5), min_size=10, max_size=10))
def test_the_heaps_agree_with_a_plain_search(
    history: tuple[list[Queue], list[tuple[str, int]]], entitled_to: list[int]
) -> None:
    queues, steps = history
    tree = QueueTree(queues)
    shares = dict(zip(tree.queues, entitled_to, strict=False))
    turns, used, joined = Turns(tree), dict.fromkeys(tree.queues, 0), dict.fromkeys(tree.leaves, False)
    turns.settle(shares, used)

    def search(name: str) -> str | None:
        if name in joined:
            return name if joined[name] else None
        best = None
        for child in tree.children[name]:
            if search(child) is None:
                continue
            share, own = shares.get(child, 0), tree.queues[child]
            key = (share == 0, Fraction(used[child], share or max(own.weight, 1)), child)
            best = key if best is None or key < best else best
        return search(best[-1]) if best else None

    for leaf, step in steps:
        if step < 0:
            joined[leaf] = False
            turns.leave(leaf)
        elif not joined[leaf]:
            joined[leaf] = True
            turns.join(leaf)
        else:
            for name in tree.path(leaf):
                used[name] += step
                turns.uses(name, used[name])
        assert turns.next() == search("root")


def test_limits_of_types_and_expected_loads() -> None:
    tree = QueueTree([queue("a", {"nvidia/T4": 2})])
    books = QueueBooks(tree, pool(A100=3, T4=1))
    flexible = request_from_options({"gpu": 0.5, "memory": "8GiB"})
    books.wait("a", flexible)
    books.wait("default", flexible)
    assert books.demand()["a"] == {"nvidia/T4": (500, 500)}  # where it is promised something
    assert books.demand()["default"] == {A100: (375, 75), "nvidia/T4": (125, 125)}
    books.pool_changed({A100: TypeRoom(1000, 1000, MemoryMiB(80 * 1024), ("gpu",))})
    assert books.demand()["a"] == {A100: (500, 100)}
    books.stop_waiting("a", flexible)
    assert books.demand()["a"] == {}
    assert amount({"nvidia/T4": 2}) == tree.queues["a"].quota
