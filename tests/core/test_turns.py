"""Whose turn it is: filling pools one device at a time, published cases, and the heaps against a plain search."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharing import A100, amount, devices, pool, queue

from flexray.core.fairness import Entitlement, entitled
from flexray.core.loads import Load, TypeRoom, worth
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
    turns.settle(shares, books.worths())
    left = dict(waiting)
    for name in left:
        turns.join(name, worth(load[name], capacity))
    room, taken = [capacity[A100].devices, capacity[A100].devices], []
    while (name := turns.next()) is not None:
        share, memory = load[name][A100]
        fits = share <= room[0] and memory <= room[1]
        if not left[name] or not fits or books.limited_by(name, load[name]) is not None:
            turns.leave(name)
            continue
        books.take(name, load[name])
        turns.uses(name, books.worths_on(tree.path(name)))
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
        turns.join(name, 1_000_000)
    order = []
    for _ in range(10):
        name = turns.next()
        assert name is not None
        order.append(name)
        used[name] += 1_000_000
        turns.uses(name, {name: used[name]})
    assert order.count("b") == 8
    turns.join("c", 1_000_000)
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


def test_whole_requests_of_many_small_queues_leave_what_one_is_entitled_to() -> None:
    small = [f"s{n:02}" for n in range(60)]
    queues = [queue("big", weight=60), *(queue(name) for name in small)]
    _, got = fill(queues, {"big": 60, **dict.fromkeys(small, 1)}, whole("big", *small), pool(A100=60))
    assert got["big"] == 30
    assert sum(got[name] for name in small) == 30


def test_one_whose_request_is_larger_than_its_share_goes_first_once_the_others_have_theirs() -> None:
    tree = QueueTree([queue("large"), queue("small")])
    turns = Turns(tree)
    shares = entitled(tree, {"large": devices(8), "small": devices(20)}, pool(A100=10))
    turns.settle(shares, {"small": 4_000_000})
    turns.join("large", 8_000_000)
    turns.join("small", 1_000_000)
    assert turns.next() == "small"
    turns.uses("small", {"small": 5_000_000})
    assert turns.next() == "large"


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Queue], list[tuple[str, int, int]]]:
    names = [f"q{n}" for n in range(draw(st.integers(1, 8)))]
    queues = [
        queue(name, weight=draw(st.integers(0, 3)), parent=draw(st.sampled_from(["root", *names[:place]])))
        for place, name in enumerate(names)
    ]
    steps = st.tuples(st.sampled_from(QueueTree(queues).leaves), st.integers(-1, 5), st.integers(0, 3))
    return queues, draw(st.lists(steps, max_size=60))


@given(histories(), st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=10, max_size=10))
def test_the_heaps_agree_with_a_plain_search(
    history: tuple[list[Queue], list[tuple[str, int, int]]], entitled_to: list[tuple[int, int]]
) -> None:
    queues, steps = history
    tree = QueueTree(queues)
    shares = {
        name: Entitlement(99, sure, sure + more) for name, (sure, more) in zip(tree.queues, entitled_to, strict=False)
    }
    turns, used = Turns(tree), dict.fromkeys(tree.queues, 0)
    heads: dict[str, int] = {}
    turns.settle(shares, used)

    def search(name: str) -> str | None:
        if not tree.children[name]:
            return name if name in heads else None
        best = None
        for child in tree.children[name]:
            leaf = search(child)
            if leaf is None:
                continue
            own, after = shares.get(child, Entitlement(0, 0, 0)), used[child] + heads[leaf]
            band = 3 if own.amount == 0 else 0 if after <= own.sure else 1 if after <= own.amount else 2
            ratio = Fraction(used[child], own.amount or max(tree.queues[child].weight, 1))
            best = min(best or (4, ratio, child, leaf), (band, ratio, child, leaf))
        return best[-1] if best else None

    for leaf, step, size in steps:
        if step < 0:
            heads.pop(leaf, None)
            turns.leave(leaf)
        elif leaf not in heads or size == 0:
            heads[leaf] = size + 1
            turns.join(leaf, size + 1)
        else:
            for name in tree.path(leaf):
                used[name] += step
            turns.uses(leaf, {name: used[name] for name in tree.path(leaf)})
        assert turns.next() == search("root")
        turns.settle(shares, used)
        assert turns.next() == search("root")


@st.composite
def rows(draw: st.DrawFn) -> tuple[list[Queue], dict[str, int], int]:
    names = [f"q{n}" for n in range(draw(st.integers(1, 6)))]
    queues = [
        queue(
            name,
            draw(st.integers(0, 5)),
            limit=draw(st.one_of(st.none(), st.integers(0, 9))),
            weight=draw(st.integers(0, 3)),
            priority=draw(st.integers(0, 1)),
        )
        for name in names
    ]
    return queues, {name: draw(st.integers(0, 20)) for name in names}, draw(st.integers(1, 30))


@given(rows())
def test_turns_honour_quotas_and_limits_and_leave_nothing_idle(
    row: tuple[list[Queue], dict[str, int], int],
) -> None:
    queues, waiting, count = row
    _, got = fill(queues, waiting, whole(*waiting), pool(A100=count))
    for one in queues:
        assert one.quota is not None
        most = waiting[one.name] if one.limit is None else min(waiting[one.name], (one.limit.devices or 0) // 1000)
        assert got[one.name] <= most
        if sum((q.quota.devices or 0) for q in queues if q.quota) <= 1000 * count:
            assert got[one.name] >= min(most, (one.quota.devices or 0) // 1000)
        if got[one.name] < most:
            assert sum(got.values()) == count


def test_limits_of_types_and_expected_loads() -> None:
    tree = QueueTree([queue("a", {"nvidia/T4": 2})])
    books = QueueBooks(tree, pool(A100=3, T4=1))
    flexible = request_from_options({"gpu": 0.5, "memory": "8GiB"})
    books.wait("a", flexible)
    books.wait("default", flexible)
    assert books.demand()["a"] == {"nvidia/T4": (500, 500)}  # where it is promised something
    assert books.demand()["default"] == {A100: (375, 75), "nvidia/T4": (125, 125)}
    books = QueueBooks(tree, {A100: TypeRoom(1000, 1000, MemoryMiB(80 * 1024), ("gpu",))})
    books.wait("a", flexible)
    assert books.demand()["a"] == {A100: (500, 100)}
    books.stop_waiting("a", flexible)
    assert books.demand()["a"] == {}
    assert amount({"nvidia/T4": 2}) == tree.queues["a"].quota


def test_what_waits_is_expected_on_types_its_queue_may_use() -> None:
    tree = QueueTree([Queue("p", types=("nvidia/*",)), Queue("c", "p", types=("*/T4",))])
    books = QueueBooks(tree, pool(A100=3, T4=1))
    books.wait("c", request_from_options({"gpu": 2}))
    assert books.demand()["c"] == {"nvidia/T4": (2000, 2000)}
