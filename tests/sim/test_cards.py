"""The counting of benchmarks/cards.py, on lists small enough to do by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from cards import best_fit, bound, by_core, fractions, in_tenths, measure

EXCERPT = Path(__file__).parents[1] / "data" / "openb_excerpt_tasks.csv"


def test_only_parts_of_one_gpu_count() -> None:
    assert set(fractions(EXCERPT)) <= set(range(1, 1000))
    assert fractions(EXCERPT)[0] == 460


@pytest.mark.parametrize("count", [best_fit, lambda sizes: by_core(sizes, "pack")])
def test_the_order_decides_how_well_it_fits(count) -> None:  # type: ignore[no-untyped-def]
    """Online the two small ones share a card, and neither large one finds room for its other half."""
    assert count([300, 300, 700, 700]) == 3
    assert count([700, 700, 300, 300]) == 2


def test_every_policy_adds_a_card_only_when_there_is_no_room() -> None:
    assert by_core([500, 500, 500], "balanced") == by_core([500, 500, 500], "spread") == 2


def test_tenths_round_up() -> None:
    assert in_tenths([1, 100, 101, 999]) == [100, 100, 200, 1000]


def test_no_way_needs_fewer_cards_than_the_bound() -> None:
    assert bound([600, 600, 600]) == 3  # 1.8 in all
    assert bound([500, 500, 500]) == 2
    assert bound([340] * 5) == 3  # two on each


def test_ways_are_put_side_by_side() -> None:
    rows = {row.how: row for row in measure([300, 300, 700, 700])}
    assert (rows["whole cards"].cards, rows["whole cards"].in_use) == (4, 50.0)
    assert rows["flexray pack as one batch"].cards == rows["bound"].cards == 2
