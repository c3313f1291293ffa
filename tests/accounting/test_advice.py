"""What is advised from what was measured."""

from __future__ import annotations

import json

import pytest

from flexray.accounting.advice import Sure, Verdict, advise
from flexray.accounting.profiles import ClassKey, Profiles, profiles_from

KEY = ClassKey("embed", 500, 8192, 1)


def profiles(busy: list[float | None], memory: int | None = 2150, key: ClassKey = KEY, leases: int = 1) -> Profiles:
    """Looks two seconds apart; with several leases, one after the other on a slice."""
    found = Profiles()
    for number, part in enumerate(busy):
        found.note(key, "s1", number * leases // len(busy), (part, memory), 2.0 * number)
    return found


def test_less_is_advised_where_it_would_have_done() -> None:
    (one,) = advise(profiles([0.1] * 80 + [0.18] * 18 + [0.25] * 2), {"embed": 10.0})
    assert (one.verdict, one.busy_p50, one.busy_p95, one.share, one.memory) == (Verdict.SMALLER, 0.1, 0.18, 0.2, 3072)
    assert 0.003 < one.slowdown < 0.006
    assert str(one) == (
        "embed: asked 0.5 and 8.0 GiB, used 0.18 and 2.1 GiB at p95; a share of 0.2, memory=3GiB, would have changed "
        "its run time by about 0% (0.05 s of 10 s a call) (100 looks over 3 min, 1 leases; sure: low)"
    )


def test_what_is_at_its_limit_is_told_so() -> None:
    (one,) = advise(profiles([0.49] * 50 + [0.2] * 50, memory=8000))
    assert (one.verdict, one.share, one.memory, one.at_limit) == (Verdict.LARGER, None, None, 0.5)
    assert "at its limit for 50% of the time: more than 0.5 may be faster" in str(one)


def test_peaks_count() -> None:
    (one,) = advise(profiles([0.05] * 70 + [0.45] * 30))
    assert one.share == 0.45, "a third of the time it needs that"
    (rare,) = advise(profiles([0.05] * 995 + [0.45] * 5))
    assert rare.share == 0.1 and rare.slowdown < 0.02


@pytest.mark.parametrize(
    ("key", "busy", "memory", "verdict", "share", "wanted"),
    [
        (KEY, [None], 100, Verdict.SMALLER, None, 256),
        (KEY, [None], 8000, Verdict.UNKNOWN, None, None),
        (KEY, [0.42], None, Verdict.SMALLER, 0.45, None),
        (KEY, [0.47], 7500, Verdict.ENOUGH, None, None),
        (KEY._replace(share=1000, devices=2), [0.2], 8000, Verdict.ENOUGH, None, None),
        (KEY._replace(share=1000), [1.0], 8000, Verdict.ENOUGH, None, None),
        (KEY._replace(share=50), [0.01], 8000, Verdict.ENOUGH, None, None),
    ],
)
def test_what_is_advised(
    key: ClassKey, busy: list[float | None], memory: int | None, verdict: Verdict, share: float, wanted: int
) -> None:
    (one,) = advise(profiles(busy * 10, memory, key))
    assert (one.verdict, one.share, one.memory) == (verdict, share, wanted)
    assert str(one).startswith("embed: asked")


def test_how_sure_it_is() -> None:
    sure = [advise(profiles([0.1] * n, leases=leases))[0].sure for n, leases in ((99, 5), (200, 1), (1000, 4))]
    assert sure == [Sure.LOW, Sure.MEDIUM, Sure.HIGH]


def test_most_to_be_given_back_comes_first() -> None:
    both = profiles([0.1] * 100)
    big = KEY._replace(task="train", share=1000)
    for number in range(100):
        both.note(big, "s2", 1, (0.1, 2000), 2.0 * number)
    assert [one.task for one in advise(both)] == ["train", "embed"]


def test_profiles_are_bounded_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flexray.accounting.profiles._MOST_CLASSES", 2)
    found = Profiles()
    for number, task in enumerate(["a", "b", "a", "c"]):
        found.note(KEY._replace(task=task), "s1", 1, (0.5, 1 << number), float(number))
    assert [key.task for key, _ in found] == ["a", "c"], "b was not seen for longest"
    again = profiles_from(json.loads(json.dumps(found.plain())))
    assert list(again) == list(found)
    with pytest.raises(ValueError):
        profiles_from([["a", 1]])


def test_a_bound_is_close_to_what_was_measured() -> None:
    (_, one), *_ = profiles([0.3, 0.3, 0.9], memory=5000)
    assert one.busy_at(0.5) == 0.3 and one.busy_at(1.0) == 0.9
    assert one.memory_at(0.95) == 5000
    for memory in (1, 20, 333, 70_000, 1_900_000):
        (_, lone), *_ = profiles([0.3] * 3, memory=memory)
        assert lone.memory_at(0.5) == memory, "never above the most that was seen"
