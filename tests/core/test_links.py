"""Which devices of a node belong together."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.core.links import best_linked, linked
from flexray.model.amounts import MemoryMiB
from flexray.model.devices import Device, DeviceType, Family

KIND = DeviceType("nvidia/A100-80GB", MemoryMiB(81920))
Lanes = dict[tuple[int, int], int]


def node(count: int, lanes: Lanes, numas: list[int] | None = None) -> list[Device]:
    """Devices with the lanes of each pair (lower index first), on NUMA nodes."""
    both = {pair: n for (a, b), n in lanes.items() for pair in ((a, b), (b, a)) if n}
    return [
        Device(
            f"n/gpu{i}", "n", i, KIND, Family.GPU, "fake",
            numa=numas[i] if numas else -1,
            links=tuple(sorted((b, n) for (a, b), n in both.items() if a == i)),
        )
        for i in range(count)
    ]  # fmt: skip


def groups(count: int, size: int, lanes: int = 1) -> Lanes:
    """Fully linked groups of neighbours."""
    return {(a, b): lanes for a, b in itertools.combinations(range(count), 2) if a // size == b // size}


def indexes(devices: tuple[Device, ...]) -> list[int]:
    return [device.index for device in devices]


@pytest.mark.parametrize(
    ("lanes", "numas", "count", "expected"),
    [
        pytest.param({}, None, 2, [0, 1], id="nothing is known: the lowest"),
        pytest.param({(1, 2): 4}, None, 2, [1, 2], id="a pair"),
        pytest.param({(0, 1): 1, (2, 3): 2}, None, 2, [2, 3], id="the pair with more lanes"),
        pytest.param({(0, 1): 1, (2, 3): 1}, None, 1, [4], id="one alone, not the half of a pair"),
        pytest.param({(0, 1): 1, (3, 4): 1}, None, 3, [0, 1, 2], id="a pair and one alone"),
        pytest.param({(0, 1): 1, (0, 2): 1, (1, 2): 1, (3, 4): 1}, None, 2, [3, 4], id="a pair rather than of three"),
        pytest.param({}, [0, 1, 1, -1, -1], 2, [1, 2], id="one NUMA node where nothing is linked"),
        pytest.param({}, [-1, -1, -1, 0, 0], 2, [3, 4], id="unknown nodes are not one node"),
        pytest.param({(0, 1): 1}, [0, 1, 0, 1, 0], 2, [0, 1], id="links before NUMA"),
        pytest.param({}, [0, 0, 0, 1, 1], 2, [3, 4], id="a full NUMA node rather than a part of another"),
        pytest.param({}, [0, 0, 0, 1, 1], 4, [0, 1, 2, 3], id="most on one"),
    ],
)
def test_the_best(lanes: Lanes, numas: list[int] | None, count: int, expected: list[int]) -> None:
    assert indexes(best_linked(node(5, lanes, numas), count)) == expected


def test_what_is_not_offered_is_not_taken() -> None:
    free = [device for device in node(8, groups(8, 4)) if device.index not in (0, 5)]
    assert indexes(best_linked(free, 2)) == [1, 2]
    assert indexes(best_linked(free, 3)) == [1, 2, 3]
    assert indexes(best_linked(free, 6)) == [1, 2, 3, 4, 6, 7]


@st.composite
def nodes(draw: st.DrawFn, most: int = 8, least: int = 1) -> list[Device]:
    count = draw(st.integers(least, most))
    pairs = list(itertools.combinations(range(count), 2))
    lanes = {pair: draw(st.sampled_from([0, 0, 1, 2])) for pair in pairs}
    numas = draw(st.lists(st.integers(-1, 1), min_size=count, max_size=count))
    return node(count, lanes, numas)


def by_definition(devices: list[Device], count: int) -> list[int]:
    """Every choice, judged by the words of ``best_linked``."""

    def lanes(some: list[Device]) -> int:
        return sum(dict(a.links).get(b.index, 0) for a, b in itertools.combinations(some, 2))

    def pairs(some: list[Device]) -> int:
        return sum(a.numa == b.numa >= 0 for a, b in itertools.combinations(some, 2))

    def judge(chosen: tuple[Device, ...]) -> tuple[object, ...]:
        rest = [device for device in devices if device not in chosen]
        most = max(Counter(d.numa for d in chosen if d.numa >= 0).values(), default=0)
        return lanes(list(chosen)), most, lanes(rest), pairs(rest), [-d.index for d in chosen]

    return indexes(max(itertools.combinations(devices, count), key=judge))


@given(nodes(), st.data())
def test_up_to_eight_the_choice_is_exact_and_in_any_order(devices: list[Device], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(devices)))
    shuffled = data.draw(st.permutations(devices))
    assert indexes(best_linked(shuffled, count)) == by_definition(devices, count)


@given(nodes(most=14, least=9), st.data())
def test_above_eight_it_is_some_choice_whatever_the_order(devices: list[Device], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(devices)))
    chosen = best_linked(devices, count)
    assert best_linked(data.draw(st.permutations(devices)), count) == chosen
    assert sorted(set(indexes(chosen))) == indexes(chosen) and len(chosen) == count


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("count", [2, 4, 8])
def test_above_eight_whole_groups_are_found(size: int, count: int) -> None:
    chosen = indexes(best_linked(node(16, groups(16, size)), count))
    assert len({index // size for index in chosen}) == max(1, count // size)


@pytest.mark.parametrize(
    ("lanes", "numas", "chosen", "worth"),
    [
        ({}, None, [3], 1.0),
        ({}, None, [0, 3], 1.0),
        ({}, [0, 0, 1, 1], [0, 1], 1.0),
        ({}, [0, 0, 1, 1], [1, 2], 0.0),
        ({}, [0, 0, -1, 1], [0, 2, 3], 2 / 3),
        ({(0, 1): 2, (2, 3): 2}, [0, 0, 1, 1], [0, 1], 1.0),
        ({(0, 1): 2, (2, 3): 2}, [0, 0, 0, 0], [0, 2], 0.0),
        ({(0, 1): 1, (2, 3): 4}, None, [0, 1], 0.25),
        ({(0, 1): 2, (2, 3): 2}, None, [0, 1, 2, 3], 1 / 3),
    ],
)
def test_how_well_a_set_is_connected(lanes: Lanes, numas: list[int] | None, chosen: list[int], worth: float) -> None:
    devices = node(4, lanes, numas)
    assert linked([devices[i] for i in chosen], devices) == pytest.approx(worth)


@given(nodes(), st.data())
def test_the_worth_of_a_set_is_a_part_of_one(devices: list[Device], data: st.DataObject) -> None:
    chosen = best_linked(devices, data.draw(st.integers(1, len(devices))))
    assert 0 <= linked(chosen, devices) == linked(data.draw(st.permutations(chosen)), devices) <= 1


def test_one_side_of_a_link_is_enough() -> None:
    one, other, third = node(3, {})
    told = Device("n/gpu2", "n", 2, KIND, Family.GPU, "fake", links=((0, 3),))
    assert indexes(best_linked([one, other, told], 2)) == [0, 2]
    assert linked([one, told], [one, other, told]) == 1.0 and third.links == ()
