"""Who may take back from whom; what queues are promised; the past."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharing import A100, H100, T4, devices, exact, pool, queue

from flexray.core.borrowing import Borrowing
from flexray.core.history import History, accrued, decayed
from flexray.core.loads import Load, total
from flexray.core.promises import Trouble, fitted
from flexray.core.queues import QueueTree
from flexray.model.queue import Queue


def borrowing(queues: list[Queue], used: dict[str, Load], **counts: int) -> Borrowing:
    tree, _ = fitted(QueueTree(queues), pool(**counts))
    sums = {name: total(load for leaf, load in used.items() if name in tree.path(leaf)) for name in tree.queues}
    return Borrowing(tree, sums, pool(**counts))


NOS = [queue("a", 40), queue("b", 10), queue("c", 30)]


def test_nos_guaranteed_over_quota() -> None:
    """nos, key concepts: quotas 40, 10, 30, the last idle: 15 and 3.75 of the 30 are guaranteed to the others."""
    at_t1 = borrowing(NOS, {"a": devices(40), "b": devices(40)}, A100=80)
    assert [exact(at_t1.standings[name].spare) for name in "abc"] == [15, 3.75, 11.25]
    assert [exact(at_t1.standings[name].borrowed) for name in "abc"] == [0, 30, 0]
    assert at_t1.may_reclaim("a", devices(10), "b", devices(10))  # 40 + 10 <= 40 + 15, and 30 > 3.75
    at_t2 = borrowing(NOS, {"a": devices(50), "b": devices(30)}, A100=80)
    assert not at_t2.may_reclaim("a", devices(10), "b", devices(10))  # 50 + 10 > 40 + 15
    assert at_t2.may_reclaim("c", devices(10), "b", devices(10))
    assert not at_t2.may_reclaim("c", devices(10), "a", devices(10))  # a borrows 10 of its 15


def test_it_caps_nothing() -> None:
    """b borrows 30 with 3.75 guaranteed, and keeps it while nobody else asks."""
    at_t1 = borrowing(NOS, {"a": devices(40), "b": devices(40)}, A100=80)
    assert not at_t1.may_reclaim("b", devices(1), "a", devices(1))
    assert not at_t1.may_reclaim("default", devices(1), "b", devices(1))  # nothing is promised to it


RECLAIM = {
    "under its quota from a borrower": ([queue("a", 5), queue("b", 5)], {"b": 10}, ("a", 5, "b"), True),
    "not for more than its quota": ([queue("a", 5), queue("b", 5)], {"a": 5, "b": 5}, ("a", 1, "b"), False),
    "not from somebody within quota": ([queue("a", 5), queue("b", 5)], {"b": 5}, ("a", 5, "b"), False),
    "not from itself": ([queue("a", 5)], {"a": 10}, ("a", 1, "a"), False),
    "without quotas nobody takes back": ([queue("a"), queue("b")], {"b": 10}, ("a", 1, "b"), False),
    "a request above the quota as a whole": ([queue("a", 5), queue("b")], {"b": 10}, ("a", 6, "b"), False),
    "within a group": (
        [queue("p", 10), queue("p1", 5, parent="p"), queue("p2", 5, parent="p")],
        {"p2": 10},
        ("p1", 5, "p2"),
        True,
    ),
    "a child under quota in a group that has used its own up": (
        [queue("p", 5), queue("p1", 5, parent="p"), queue("p2", parent="p"), queue("q")],
        {"p2": 5, "q": 5},
        ("p1", 5, "q"),
        False,
    ),
    "a child without quota on behalf of its group": (
        [queue("p", 5), queue("p1", parent="p"), queue("q", 1)],
        {"q": 10},
        ("p1", 4, "q"),
        True,
    ),
    "of a borrowing group not the child within quota": (
        [queue("p", 6), queue("p1", 3, parent="p"), queue("p2", 3, parent="p"), queue("q", 4)],
        {"p1": 3, "p2": 7},
        ("q", 2, "p1"),
        False,
    ),
    "but its borrowing sibling": (
        [queue("p", 6), queue("p1", 3, parent="p"), queue("p2", 3, parent="p"), queue("q", 4)],
        {"p1": 3, "p2": 7},
        ("q", 2, "p2"),
        True,
    ),
    "not out of a subgroup that is within its own": (
        [queue("p", 4), queue("m", 3, parent="p"), queue("m1", parent="m"), queue("p2", 1, parent="p"), queue("q", 6)],
        {"m1": 3, "p2": 7},
        ("q", 2, "m1"),
        False,
    ),
    "a group counts its children's quotas": (
        [queue("p"), queue("p1", 6, parent="p"), queue("p2", parent="p"), queue("q", 4)],
        {"p2": 6, "q": 4},
        ("q", 1, "p2"),
        False,
    ),
}


@pytest.mark.parametrize("case", RECLAIM)
def test_who_may_take_back_from_whom(case: str) -> None:
    queues, used, (winner, wanted, victim), expected = RECLAIM[case]
    state = borrowing(queues, {name: devices(n) for name, n in used.items()}, A100=10)
    assert state.may_reclaim(winner, devices(wanted), victim, devices(1)) is expected


def test_of_two_types_only_the_borrowed_one_is_taken_back() -> None:
    queues = [queue("a", {T4: 4}), queue("b", {H100: 4})]
    state = borrowing(queues, {"a": total((devices(4, T4), devices(2, H100)))}, T4=4, H100=4)
    assert state.may_reclaim("b", devices(1, H100), "a", devices(1, H100))
    assert not state.may_reclaim("b", devices(1, H100), "a", devices(1, T4))


@given(
    st.lists(st.integers(0, 20), min_size=2, max_size=5),
    st.lists(st.integers(0, 40), min_size=5, max_size=5),
    st.integers(1, 10),
)
def test_no_two_queues_take_back_from_each_other(quotas: list[int], used: list[int], size: int) -> None:
    names = [f"q{n}" for n in range(len(quotas))]
    queues = [queue(name, quota) for name, quota in zip(names, quotas, strict=True)]
    held = dict(zip(names, used, strict=False))
    state = borrowing(queues, {name: devices(n) for name, n in held.items()}, A100=200)
    for one in names:
        for other in names:
            if held[other] < size or not state.may_reclaim(one, devices(size), other, devices(size)):
                continue
            assert state.standings[other].borrowed > 0
            moved = {**held, one: held[one] + size, other: held[other] - size}
            after = borrowing(queues, {name: devices(n) for name, n in moved.items()}, A100=200)
            assert not after.may_reclaim(other, devices(size), one, devices(size))


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 20)), min_size=2, max_size=5),
    st.lists(st.integers(0, 99), min_size=40, max_size=40),
)
def test_taking_back_comes_to_an_end(rows: list[tuple[int, int]], choices: list[int]) -> None:
    """With what the queues want held fixed, at most one move for each device that is promised to somebody."""
    queues = [queue(f"q{n}", quota) for n, (quota, _) in enumerate(rows)]
    held = {f"q{n}": devices for n, (_, devices) in enumerate(rows)}
    moves = 0
    while True:
        state = borrowing(queues, {name: devices(n) for name, n in held.items()}, A100=100)
        pairs = [
            (one, other)
            for one in held
            for other in held
            if held[other] and state.may_reclaim(one, devices(1), other, devices(1))
        ]
        if not pairs:
            break
        one, other = pairs[choices[moves % len(choices)] % len(pairs)]
        held[one], held[other], moves = held[one] + 1, held[other] - 1, moves + 1
        assert moves <= 2 * sum(quota for quota, _ in rows)


# -- promises -----------------------------------------------------------------------------------------


def troubles(queues: list[Queue], **counts: int) -> list[tuple[Trouble, str, str, int, int]]:
    _, warnings = fitted(QueueTree(queues), pool(**counts))
    return [(w.trouble, w.queue, w.measure, w.promised, w.available) for w in warnings]


def quotas(queues: list[Queue], **counts: int) -> dict[str, str]:
    tree, _ = fitted(QueueTree(queues), pool(**counts))
    return {name: one.quota.describe() for name, one in tree.queues.items() if one.quota is not None}


def test_children_above_their_parent() -> None:
    queues = [queue("p", 10), queue("p1", 15, parent="p"), queue("p2", 5, parent="p")]
    assert troubles(queues, A100=100) == [(Trouble.ABOVE_PARENT, "p", "normalised compute", 20_000, 10_000)]
    assert quotas(queues, A100=100) == {"p": "10", "p1": "7.5", "p2": "2.5"}


def test_a_group_without_quota_passes_the_scaling_on_and_tells_once() -> None:
    queues = [queue("p"), queue("p1", 15, parent="p"), queue("p2", 5, parent="p")]
    assert troubles(queues, A100=10) == [(Trouble.ABOVE_POOL, "root", "normalised compute", 20_000, 10_000)]
    assert quotas(queues, A100=10) == {"p1": "7.5", "p2": "2.5"}


def test_children_that_fit_are_not_told_of_for_their_parents_loss() -> None:
    queues = [queue("p", 60), queue("p1", 40, parent="p"), queue("p2", 20, parent="p"), queue("q", 40)]
    assert [t[:2] for t in troubles(queues, A100=50)] == [(Trouble.ABOVE_POOL, "root")]
    assert quotas(queues, A100=50) == {"p": "30", "p1": "20", "p2": "10", "q": "20"}


def test_children_above_a_parent_that_names_only_types() -> None:
    queues = [queue("p", {T4: 2}), queue("p1", {T4: 3}, parent="p"), queue("p2", {T4: 1}, parent="p")]
    assert troubles(queues, A100=10, T4=10) == [(Trouble.ABOVE_PARENT, "p", T4, 4_000, 2_000)]
    assert quotas(queues, A100=10, T4=10) == {"p": f"{{{T4}: 2}}", "p1": f"{{{T4}: 1.5}}", "p2": f"{{{T4}: 0.5}}"}


def test_a_type_is_scaled_alone() -> None:
    queues = [queue("a", {T4: 6}), queue("b", {T4: 2}), queue("c", 3)]
    assert troubles(queues, A100=4, T4=4) == [(Trouble.ABOVE_POOL, "root", T4, 8_000, 4_000)]
    assert quotas(queues, A100=4, T4=4) == {"a": f"{{{T4}: 3}}", "b": f"{{{T4}: 1}}", "c": "3"}


def test_a_quota_is_worth_the_larger_of_its_total_and_its_types() -> None:
    queues = [queue("a", {"devices": 1, A100: 4}), queue("b", 4)]
    assert troubles(queues, A100=4) == [(Trouble.ABOVE_POOL, "root", "normalised compute", 8_000, 4_000)]


def test_patterns_count_all_types_they_name() -> None:
    queues = [queue("a", {"nvidia/*": 20}), queue("b", {"nvidia/*": 20})]
    assert troubles(queues, A100=10, T4=10) == [(Trouble.ABOVE_POOL, "root", "nvidia/*", 40_000, 20_000)]


def test_odd_promises_are_told() -> None:
    queues = [queue("p", limit=3), queue("a", 5, parent="p"), queue("b", {"nvidia/T5": 1})]
    assert [t[:3] for t in troubles(queues, A100=10, T4=2)] == [
        (Trouble.NO_SUCH_TYPE, "b", "nvidia/T5"),
        (Trouble.QUOTA_ABOVE_LIMIT, "a", ""),
    ]
    _, warnings = fitted(QueueTree(queues), pool(A100=10, T4=2))
    assert "Did you mean 'nvidia/T4'?" in str(warnings[0])
    assert "limit of 'p' 3" in str(warnings[1])


def test_an_empty_pool_says_nothing() -> None:
    tree = QueueTree([queue("a", 5)])
    assert fitted(tree, {}) == (tree, ())


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from([A100, T4, "devices", "compute"])), max_size=6),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_scaled_promises_fit(rows: list[tuple[int, str]], a100: int, t4: int) -> None:
    queues = [queue(f"q{n}", {measure: amount}) for n, (amount, measure) in enumerate(rows)]
    tree, _ = fitted(QueueTree(queues), pool(A100=a100, T4=t4))
    again, warnings = fitted(tree, pool(A100=a100, T4=t4))
    assert not [w for w in warnings if w.trouble is not Trouble.NO_SUCH_TYPE]
    assert {n: q.quota for n, q in again.queues.items()} == {n: q.quota for n, q in tree.queues.items()}


# -- the past -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "left"), [(0, 1.0), (600, 0.5), (1200, 0.25), (6000, 0.5**10), (300, 2**-0.5)])
def test_kai_decay(seconds: float, left: float) -> None:
    """U = 0.5^(dt / half-life) x A, with a half-life of 600 s."""
    assert decayed(8.0, seconds, 600) == pytest.approx(8.0 * left, rel=1e-12)


def test_steady_use_is_its_part_of_the_pool_in_the_end() -> None:
    tree = QueueTree([queue("root", half_life=100), queue("a"), queue("b")])
    history = History(tree)
    history.note("a", 25, 0)
    assert history.past(100, 100) == {"a": 125_000}  # half of the memory is of the time before
    assert history.past(100, 10_000) == {"a": 250_000}
    history.note("a", 0, 10_000)
    assert history.past(100, 10_100) == {"a": 125_000}
    assert history.past(100, 10_200) == {"a": 62_500}


def test_how_often_it_is_noted_changes_nothing() -> None:
    tree = QueueTree([queue("a", half_life=50), queue("b", half_life=50), queue("c")])
    history = History(tree)
    for now in range(0, 300, 7):
        history.note("a", 10, now)
    history.note("b", 10, 0)
    history.note("c", 10, 0)
    past = history.past(10, 300)
    assert past["a"] == pytest.approx(past["b"], abs=2)
    assert "c" not in past


def test_short_use_accrues_as_amount_times_seconds() -> None:
    assert accrued(3.0, 1.0, 1e9) == pytest.approx(3.0)
    assert accrued(1.0, math.inf, 100.0) == pytest.approx(100 / math.log(2))


def test_another_half_life_keeps_the_part() -> None:
    history = History(QueueTree([queue("a", half_life=100), queue("gone", half_life=100)]))
    history.note("a", 50, 0)
    history.note("gone", 50, 0)
    moved = history.moved(QueueTree([queue("a", half_life=1000)]), 100_000)
    assert moved.past(100, 100_000) == {"a": 500_000}
