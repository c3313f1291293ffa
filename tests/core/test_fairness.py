"""Fair share: published cases and tables, exact; properties."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharing import A100, H100, T4, devices, exact, in_devices, pool, queue, shares

from flexray.core.division import Claim, divide, effective_weights
from flexray.core.fairness import Wants, entitled
from flexray.core.fairness import shares as shares_of
from flexray.core.loads import Load, capacity_load, over, total, worth
from flexray.core.promises import fitted
from flexray.core.queues import QueueTree
from flexray.model.queue import Queue

# -- published cases ---------------------------------------------------------------------------


def test_kai_quotas_10_and_10_weights_3_and_1_of_100_devices_give_70_and_30() -> None:
    queues = [queue("a", 10, weight=3), queue("b", 10, weight=1)]
    assert shares(queues, {"a": 100, "b": 100}) == {"a": 70, "b": 30}


def test_kai_priority_goes_before_weight() -> None:
    """KAI-Scheduler issue 143: 5 GPUs, the high priority queue wants no more than its quota."""
    queues = [queue("a", 1, priority=2), queue("b", 1, priority=1, weight=2), queue("c", 0, priority=1)]
    assert shares(queues, {"a": 1, "b": 3, "c": 2}, 5) == {"a": 1, "b": 3, "c": 1}


@pytest.mark.parametrize(
    ("weights", "past", "expected"),
    [
        ((1, 1), (0.0, 0.0), (1, 1)),
        ((1, 1), (0.5, 0.5), (1, 1)),  # who used just its part keeps its weight
        ((1, 1), (0.75, 0.25), (1, 3)),  # max(0, w + 1 * (w - u)): 1/2 - 1/4 and 1/2 + 1/4
        ((3, 1), (0.25, 0.75), (5, 0)),  # 3/4 + 1/2, and 1/4 - 1/2 is none
    ],
)
def test_kai_usage_takes_from_the_weights(
    weights: tuple[int, int], past: tuple[float, float], expected: tuple[int, int]
) -> None:
    names = ("a", "b")
    claims = [
        Claim(name, 100, weight=1000 * weight, past=round(1_000_000 * part))
        for name, weight, part in zip(names, weights, past, strict=True)
    ]
    found = effective_weights(claims)
    assert found["a"] * expected[1] == found["b"] * expected[0]
    assert sum(found.values()) > 0


# -- tables --------------------------------------------------------------------------------------

CASES = {
    "an idle quota is lent": ([queue("a", 60), queue("b", 40)], {"a": 0, "b": 100}, {"a": 0, "b": 100}),
    "a quota is honoured first": ([queue("a", 60), queue("b", 0, weight=9)], {"a": 60, "b": 100}, {"a": 60, "b": 40}),
    "demand below the quota": ([queue("a", 60), queue("b", 10)], {"a": 20, "b": 100}, {"a": 20, "b": 80}),
    "no quota at all: by weight": (
        [queue("a", weight=1), queue("b", weight=4)],
        {"a": 99, "b": 99},
        {"a": 20, "b": 80},
    ),
    "what one cannot use goes to the others": (
        [queue("a"), queue("b"), queue("c")],
        {"a": 10, "b": 100, "c": 100},
        {"a": 10, "b": 45, "c": 45},
    ),
    "a limit caps, the rest goes on": (
        [queue("a", 10, limit=20, weight=3), queue("b", 10)],
        {"a": 100, "b": 100},
        {"a": 20, "b": 80},
    ),
    "a limit of 0 closes a queue": ([queue("a", limit=0), queue("b")], {"a": 50, "b": 50}, {"a": 0, "b": 50}),
    "priority takes what is left, never a quota": (
        [queue("low", 30), queue("high", priority=5)],
        {"low": 100, "high": 100},
        {"low": 30, "high": 70},
    ),
    "a high priority that needs little": (
        [queue("low"), queue("high", priority=5)],
        {"low": 100, "high": 15},
        {"low": 85, "high": 15},
    ),
    "weight 0 borrows what nobody else wants": (
        [queue("a", 5, weight=0), queue("b", weight=1)],
        {"a": 100, "b": 60},
        {"a": 40, "b": 60},
    ),
    "weight 0 comes last whatever its priority": (
        [queue("a", 5, weight=0, priority=9), queue("b", weight=1)],
        {"a": 100, "b": 100},
        {"a": 5, "b": 95},
    ),
    "all of weight 0 share equally": (
        [queue("a", weight=0), queue("b", weight=0)],
        {"a": 100, "b": 100},
        {"a": 50, "b": 50},
    ),
    "quotas above the pool: pro rata": (
        [queue("a", 120), queue("b", 80)],
        {"a": 120, "b": 80},
        {"a": 60, "b": 40},
    ),
    "children share what their parent gets": (
        [queue("p", 40), queue("q", 60), queue("p1", parent="p"), queue("p2", parent="p", weight=3)],
        {"p1": 100, "p2": 100, "q": 100},
        {"p": 40, "q": 60, "p1": 10, "p2": 30},
    ),
    "what a child cannot use stays in the family": (
        [queue("p", 40), queue("q", 60), queue("p1", 20, parent="p"), queue("p2", 20, parent="p")],
        {"p1": 5, "p2": 100, "q": 100},
        {"p": 40, "q": 60, "p1": 5, "p2": 35},
    ),
    "a group without a quota has its children's": (
        [queue("p"), queue("q", 50), queue("p1", 30, parent="p"), queue("p2", parent="p", weight=0)],
        {"p1": 100, "p2": 100, "q": 100},
        {"p": 40, "q": 60, "p1": 40, "p2": 0},
    ),
    "an idle quota is lent in the family first": (
        [queue("p"), queue("p1", 30, parent="p"), queue("p2", parent="p", weight=0), queue("q")],
        {"p2": 100, "q": 100},
        {"p": 65, "p1": 0, "p2": 65, "q": 35},
    ),
    "an ancestor's limit binds": (
        [queue("p", limit=10), queue("m", parent="p"), queue("leaf", parent="m", limit=50), queue("q")],
        {"leaf": 100, "q": 30},
        {"p": 10, "m": 10, "leaf": 10, "q": 30},
    ),
    "four levels": (
        [
            queue("a", weight=3),
            queue("b"),
            queue("a1", parent="a"),
            queue("a2", parent="a"),
            queue("a11", parent="a1", weight=2),
            queue("a12", parent="a1"),
        ],
        {"a11": 100, "a12": 100, "a2": 15, "b": 100},
        {"a": 75, "b": 25, "a1": 60, "a2": 15, "a11": 40, "a12": 20},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_shares_of_100_devices(case: str) -> None:
    queues, demand, expected = CASES[case]
    assert shares(queues, demand) == expected
    assert shares(queues[::-1], demand) == expected


def test_an_indivisible_rest_goes_to_the_lowest_share_then_by_name() -> None:
    assert divide(10, [Claim("c", 9), Claim("a", 9), Claim("b", 9)]) == {"a": 4, "b": 3, "c": 3}
    assert divide(11, [Claim("a", 9, sure=2), Claim("b", 9), Claim("c", 9)]) == {"a": 5, "b": 3, "c": 3}
    assert divide(12, [Claim("a", 9, sure=2), Claim("b", 9), Claim("c", 9)]) == {"a": 5, "b": 4, "c": 3}


def test_yesterdays_heavy_user_waits_and_keeps_its_quota() -> None:
    queues = [queue("a", 10), queue("b", 10)]
    assert shares(queues, {"a": 100, "b": 100}, past={"a": 0.75, "b": 0.25}) == {"a": 30, "b": 70}
    assert shares(queues, {"a": 100, "b": 100}, past={"a": 1.0}) == {"a": 10, "b": 90}
    assert shares(queues, {"a": 100, "b": 20}, past={"a": 1.0}) == {"a": 80, "b": 20}  # nothing idles for it


def test_in_a_group_the_past_counts_as_a_part_of_what_the_group_divides() -> None:
    queues = [queue("p"), queue("q"), queue("p1", parent="p"), queue("p2", parent="p")]
    demand = {"p1": 100, "p2": 100, "q": 100}
    past = {"p": 0.5, "q": 0.5, "p1": 0.375, "p2": 0.125}
    assert shares(queues, demand, past=past) == {"p": 50, "q": 50, "p1": 12.5, "p2": 37.5}


def test_a_lost_node_scales_promises_pro_rata_and_warns() -> None:
    queues = [queue("a", 60), queue("b", 40)]
    both: dict[str, Load] = {"a": devices(60), "b": devices(40)}
    tree, warnings = fitted(QueueTree(queues), pool(A100=100))
    assert warnings == ()
    tree, warnings = fitted(QueueTree(queues), pool(A100=50))
    found = entitled(tree, both, pool(A100=50))
    assert [in_devices(found, name) for name in "ab"] == [30, 20]
    assert [(w.trouble.value, w.promised, w.available) for w in warnings] == [("above_pool", 100_000, 50_000)]
    assert "promised 100 normalised compute in all, more than the 50 that the pool has" in str(warnings[0])


def test_a_t4_and_an_h100_are_not_the_same_promise() -> None:
    capacity = pool(H100=10, T4=10)
    tree, _ = fitted(QueueTree([queue("a", {H100: 4}), queue("b", {T4: 10}), queue("c", {"compute": 6})]), capacity)
    demand = {"a": devices(10, H100), "b": devices(10, T4), "c": devices(20, H100)}
    found = entitled(tree, demand, capacity)
    assert [exact(found[name].sure) for name in "abc"] == [12, 2, 6]
    assert sum(exact(found[name].amount) for name in "abc") == 32  # 10 x 3 + 10 x 0.2
    assert exact(found["a"].amount) == exact(found["c"].amount) + 6  # b has all it wants; 12 are left


def test_a_promise_of_one_type_guarantees_nothing_of_another() -> None:
    capacity = pool(A100=10, T4=10)
    tree, _ = fitted(QueueTree([queue("a", {T4: 10}), queue("b", weight=0)]), capacity)
    found = entitled(tree, {"a": total((devices(4, T4), devices(3)))}, capacity)
    assert exact(found["a"].sure) == 0.8
    assert exact(found["a"].want) == 3.8


def test_a_group_has_sure_what_its_queues_have_sure() -> None:
    """Taken together, the promise of any type would use up room that the other's promise of T4s needs."""
    capacity = pool(A100=10, T4=10)
    queues = [queue("p"), queue("p1", {"nvidia/*": 2}, parent="p"), queue("p2", {T4: 2}, parent="p")]
    found = entitled(QueueTree(queues), {"p1": devices(2), "p2": devices(2, T4)}, capacity)
    assert [exact(found[name].sure) for name in ("p1", "p2", "p")] == [2, 0.4, 2.4]


def test_the_larger_of_compute_and_memory_counts() -> None:
    tree = QueueTree([queue("a"), queue("b")])
    demand = {"a": devices(2, memory=80), "b": devices(80, memory=2)}
    found = entitled(tree, demand, pool(A100=100))
    assert [in_devices(found, name) for name in "ab"] == [50, 50]
    assert worth(total(demand.values()), pool(A100=100)) == 82_000_000  # both together fit, and may run


# -- properties ------------------------------------------------------------------------------------

amounts = st.one_of(st.none(), st.integers(0, 60), st.sampled_from([0.5, 33.333]))


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Queue], dict[str, Load], int]:
    names = [f"q{n}" for n in range(draw(st.integers(1, 9)))]
    queues = [
        queue(
            name,
            draw(amounts),
            limit=draw(amounts),
            weight=draw(st.sampled_from([0, 0.5, 1, 1, 3])),
            priority=draw(st.sampled_from([0, 0, 1])),
            parent=draw(st.sampled_from(["root", *names[:place]])),
        )
        for place, name in enumerate(names)
    ]
    parents = {one.parent for one in queues}
    demand = {
        name: devices(draw(st.integers(0, 80_000)) / 1000, memory=draw(st.integers(0, 80_000)) / 1000)
        for name in names
        if name not in parents
    }
    return queues, demand, draw(st.integers(1, 100))


@given(worlds(), st.lists(st.integers(0, 1_000_000), min_size=9, max_size=9))
def test_shares_are_exact_capped_and_leave_nothing_idle(
    world: tuple[list[Queue], dict[str, Load], int], past: list[int]
) -> None:
    queues, demand, count = world
    tree, _ = fitted(QueueTree(queues), pool(A100=count))
    usage = dict(zip(tree.queues, past, strict=False))
    found = entitled(tree, demand, pool(A100=count), usage)
    for name, one in found.items():
        assert 0 <= one.sure <= one.want
        assert one.amount <= one.want
        inside = tree.children[name]
        if inside:
            assert sum(found[child].amount for child in inside) == one.amount
            assert one.want <= sum(found[child].want for child in inside)
        limit = tree.queues[name].limit
        assert not over({A100: (one.amount // 1000, 0)}, limit, pool(A100=count))
    assert found["root"].amount == min(1_000_000 * count, found["root"].want)


@given(worlds(), st.lists(st.tuples(st.integers(0, 8), st.integers(0, 50_000)), max_size=8))
def test_one_change_after_the_other_comes_to_the_same(
    world: tuple[list[Queue], dict[str, Load], int], changes: list[tuple[int, int]]
) -> None:
    queues, demand, count = world
    tree, _ = fitted(QueueTree(queues), pool(A100=count))
    wants = Wants(tree, pool(A100=count), demand)
    now = dict(demand)
    for place, amount in changes:
        leaf = tree.leaves[place % len(tree.leaves)]
        now[leaf] = devices(amount / 1000)
        wants.change(leaf, now[leaf])
    assert shares_of(wants) == entitled(tree, now, pool(A100=count))


@given(worlds())
def test_a_quota_that_fits_is_honoured_whenever_it_is_demanded(
    world: tuple[list[Queue], dict[str, Load], int],
) -> None:
    queues, demand, count = world
    flat = [replace(one, parent="root") for one in queues]
    tree, warnings = fitted(QueueTree(flat), pool(A100=count))
    found = entitled(tree, demand, pool(A100=count))
    for one in flat:
        promised = one.quota.devices if one.quota and one.quota.devices else 0
        if not warnings and one.limit is None:
            want = worth(demand.get(one.name, {}), pool(A100=count))
            assert found[one.name].amount >= min(1000 * promised, want)
        assert found[one.name].amount >= found[one.name].sure


@given(worlds())
def test_names_matter_only_for_the_last_unit(world: tuple[list[Queue], dict[str, Load], int]) -> None:
    queues, demand, count = world
    flat = [replace(one, parent="root") for one in queues]
    other = [replace(one, name=f"{99 - int(one.name[1:])}") for one in reversed(flat)]
    capacity = pool(A100=count)
    ours = entitled(fitted(QueueTree(flat), capacity)[0], demand, capacity)
    renamed = {str(99 - int(name[1:])): load for name, load in demand.items()}
    theirs = entitled(fitted(QueueTree(other), capacity)[0], renamed, capacity)
    for one in flat:
        assert abs(ours[one.name].amount - theirs[str(99 - int(one.name[1:]))].amount) <= 1


@given(
    st.integers(0, 100),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 3), st.integers(0, 1)), max_size=6),
)
def test_division_is_max_min_fair(budget: int, rows: list[tuple[int, int, int, int]]) -> None:
    claims = [Claim(f"c{n}", max(w, s), s, weight, p) for n, (w, s, weight, p) in enumerate(rows)]
    found = divide(budget, claims)
    assert sum(found.values()) == min(budget, sum(claim.want for claim in claims))
    if sum(claim.sure for claim in claims) > budget:
        return
    for one in claims:
        for other in claims:
            # nobody has more above what is sure than its weight gives while a sibling of its priority goes short
            short = found[other.name] < other.want and one.priority == other.priority and one.weight and other.weight
            if short and found[one.name] > one.sure:
                ours, theirs = found[one.name] - one.sure, found[other.name] - other.sure
                assert (ours - 1) * other.weight <= (theirs + 1) * one.weight
            if one.priority < other.priority and one.weight and other.weight and found[other.name] < other.want:
                assert found[one.name] == one.sure


def test_the_pool_is_worth_all_its_devices() -> None:
    assert worth(capacity_load(pool(A100=2, T4=5, H100=1)), pool(A100=2, T4=5, H100=1)) == 6_000_000
