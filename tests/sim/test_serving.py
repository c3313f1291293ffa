"""Serving: how long calls take on a replica, where they go, what is counted, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from flexray.cli import main
from flexray.errors import UsageError
from flexray.model.amounts import Share
from flexray.sim.azure import read_calls
from flexray.sim.jobs import ticks
from flexray.sim.replicas import Call, Objective, Replica, Service
from flexray.sim.scenario import parse_scenario
from flexray.sim.schema import Scenario
from flexray.sim.serving import model_of, serve
from flexray.sim.serving_result import Fleet

EXCERPT = Path(__file__).parents[1] / "data" / "azure_excerpt_code.csv"
ROUND = {"prefill": 0.001, "decode": 0.1, "batch_cost": 0.5}
A100 = "nvidia/A100-80GB"


def calls_at(*rows: tuple[float, int, int]) -> list[Call]:
    """Calls from (seconds, prompt, answer)."""
    return [Call(number, ticks(at), *tokens) for number, (at, *tokens) in enumerate(rows)]


def drawn_calls(count: int, rate: float, seed: int = 0) -> list[Call]:
    draw = np.random.default_rng(seed)
    times = np.cumsum(draw.exponential(1 / rate, count))
    prompts, answers = draw.integers(1, 4000, count), draw.integers(1, 80, count)
    return calls_at(*zip(times.tolist(), prompts.tolist(), answers.tolist(), strict=True))


def on(devices: object, **more: Any) -> Scenario:
    scenario = {"version": 1, "nodes": [{"name": "n", "devices": devices}], "costs": {"start": 0}}
    return parse_scenario({**scenario, **more})


def fleet(share: float = 1, replicas: int | None = None, models: int = 1, **service: Any) -> Fleet:
    return Fleet(Share(round(1000 * share)), replicas, models, Service(**{**ROUND, **service}))


def ends_on(replica: Replica, calls: list[Call]) -> dict[int, float]:
    """When each call is done, in seconds, if all go to one replica."""
    found: dict[int, float] = {}
    todo = list(calls)
    while todo or replica.due is not None:
        due = replica.due
        if due is not None and (not todo or due <= todo[0].at):
            found |= {call.number: due / 1e6 for call in replica.act(due)[0]}
        else:
            call = todo.pop(0)
            replica.add(call, call.at)
    return found


def test_the_excerpt_is_read_in_order() -> None:
    calls = read_calls(EXCERPT)
    assert calls[:2] == calls_at((0, 4808, 10), (0.052, 3180, 8))
    assert (len(calls), read_calls(EXCERPT, first=3)) == (50, calls[:3])


# -- a replica ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compute", "speed", "room", "service", "ends"),
    [
        # 0: prompt to 1, 5 steps alone to 1.5, stands still to 2.5, 5 steps of 0.15 to 3.25. 1: 5 more alone to 3.75.
        (1.0, 1.0, 16, {}, {0: 3.25, 1: 3.75}),
        (1.0, 2.0, 16, {}, {0: 1.0, 1: 2.5}),  # they never meet
        (1.0, 1.0, 1, {}, {0: 2.0, 1: 4.0}),  # one after the other
        # Half: prompts 0 to 2 and 2 to 4, then ten steps of 0.3 together.
        (0.5, 1.0, 16, {}, {0: 7.0, 1: 7.0}),
        (0.5, 1.0, 16, {"saturation": 0.5}, {0: 5.5, 1: 5.5}),  # a step is as long as on a whole card
        (0.25, 1.0, 16, {"saturation": 0.5, "batch_cost": 0.0}, {0: 10.0, 1: 10.0}),
    ],
)
def test_a_replica_by_hand(
    compute: float, speed: float, room: int, service: dict[str, Any], ends: dict[int, float]
) -> None:
    replica = Replica(compute, speed, room, Service(**{**ROUND, **service}))
    found = ends_on(replica, calls_at((0, 1000, 10), (1.5, 1000, 10)))
    assert found == pytest.approx(ends, abs=2e-6)


def test_an_answer_of_no_tokens_is_done_with_its_prompt() -> None:
    assert ends_on(Replica(1.0, 1.0, 1, Service(**ROUND)), calls_at((0, 500, 0), (0, 0, 0))) == {0: 0.5, 1: 0.5}


def test_memory_bounds_the_calls_in_work() -> None:
    service = Service(concurrent=16)
    assert [service.room(gib * 1024) for gib in (16, 17, 20, 40)] == [0, 1, 4, 16]


@pytest.mark.parametrize("share", [1, 0.5, 0.25])
def test_work_is_neither_lost_nor_made(share: float) -> None:
    """Where a token of a batch costs as much as one alone, what cards are used for is what the calls need."""
    calls = drawn_calls(300, 3.0)
    result = serve(on(f"2x{A100}"), calls, fleet(share, prefill=0.0001, decode=0.01, batch_cost=1.0))
    need = sum(0.0001 * call.context + 0.01 * call.generated for call in calls)
    used = sum(card.utilisation for card in result.by_card) * result.end
    assert (result.served, used) == (300, pytest.approx(need, rel=1e-4))


# -- many replicas ------------------------------------------------------------------------------


def test_calls_go_to_the_shortest_queue() -> None:
    same = calls_at(*[(0, 1000, 0)] * 4)
    assert serve(on(f"2x{A100}"), same, fleet()).percentiles[100] == 2.0
    # 3.5 times as fast: it gets three of the four.
    mixed = serve(on([f"1x{A100}", {"type": "acme/X", "memory": "80GiB", "speed": 3.5}]), same, fleet())
    found = [mixed.percentiles[percent] for percent in (25, 50, 75, 100)]
    assert found == pytest.approx([2 / 7, 4 / 7, 6 / 7, 1.0], abs=2e-6)


def test_what_is_met_is_counted_per_card() -> None:
    calls = calls_at(*[(0, 1000, 0)] * 3, (0, 1000, 10))
    setting = Fleet(Share(1000), 1, 1, Service(**ROUND), Objective(base=2, per_token=0.3))
    result = serve(on(f"4x{A100}"), calls, setting)
    # The prompts end at 1, 2, 3 and 4, the answer at 5, when it may: 2 + 10 x 0.3.
    assert (result.met, result.met_percent, result.devices, result.cards) == (3, 75.0, 4, 1)
    assert (result.end, result.met_per_card, result.met_per_card_hour) == (5.0, 3.0, 2160.0)
    assert (result.wait.max, result.utilisation) == (3.0, 1.0)


def test_replicas_share_cards_as_the_core_places_them() -> None:
    result = serve(on(f"4x{A100}", policy="pack"), calls_at((0, 1, 1)), fleet(0.25, 4))
    assert (result.cards, result.held, [card.replicas for card in result.by_card]) == (1, 1.0, [4])
    result = serve(on(f"4x{A100}"), calls_at((0, 1, 1)), fleet(0.25, 4), "spread")
    assert (result.policy, result.cards, result.held) == ("spread", 4, 1.0)


def test_replicas_wait_for_the_background_and_calls_for_a_replica() -> None:
    background = [
        {"id": "train", "count": 2, "gpu": 1, "duration": {"*": 10}},
        {"id": "long", "gpu": 1, "duration": 99},
    ]
    calls = calls_at((0, 1000, 0), (1, 1000, 0), (20, 1000, 0))
    result = serve(on(f"2x{A100}", requests=background), calls, fleet(1, 3))
    # At 10 s one card goes on to ``long`` and the other to a replica; two replicas never get one.
    assert (result.placed, result.replicas, result.cards) == (1, 3, 1)
    assert {state.value: count for state, count in result.background.items()} == {"running": 1, "done": 2}
    assert result.wait.max == 10.0 and result.latency.max == 11.0


def test_calls_of_a_model_without_a_replica_are_not_met() -> None:
    background = [{"id": "long", "gpu": 1, "duration": 99}]
    calls = calls_at(*[(float(n), 1, 0) for n in range(20)])
    result = serve(on(f"2x{A100}", requests=background), calls, fleet(1, 2, models=2))
    mine = sum(model_of(number, 2) == 0 for number in range(20))
    assert (result.served, result.met, result.calls) == (mine, mine, 20) and 5 <= mine <= 15


def test_types_whose_slice_cannot_hold_the_model_get_no_replica() -> None:
    result = serve(on(f"1x{A100}, 3xnvidia/T4"), calls_at((0, 1, 1)), fleet(0.25))
    assert (result.replicas, result.placed, [card.type for card in result.by_card]) == (4, 4, [A100])


def test_slices_help_where_a_card_alone_is_not_used() -> None:
    calls = drawn_calls(1500, 7.0)

    def met(share: float, **service: Any) -> float:
        how = {"prefill": 0.00002, "decode": 0.01, "batch_cost": 0.05, "concurrent": 1, **service}
        setting = Fleet(Share(round(1000 * share)), None, 1, Service(**how), Objective(base=2, per_token=0.05))
        return serve(on(f"3x{A100}"), calls, setting).met_percent

    assert met(1) > met(0.25)  # one fast server is better than four slow ones
    assert met(0.25, saturation=0.25) > met(1, saturation=0.25) + 10


def test_the_same_calls_give_the_same_bytes() -> None:
    first, again = (
        serve(on(f"2x{A100}"), read_calls(EXCERPT), Fleet(Share(250), models=3)).model_dump_json() for _ in range(2)
    )
    assert first == again


# -- the command ----------------------------------------------------------------------------


def command(*args: object) -> Any:
    return CliRunner().invoke(main, ["simulate", "--azure", str(EXCERPT), "--serve", *map(str, args)])


def test_the_command(tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    args = ("--cards", f"2x{A100}", "--service", "concurrent=4, memory=8GiB", "--objective", "4:0.1")
    done = command(*args, "--share", 1, "--share", 0.25, "--json", "--html", page)
    assert done.exit_code == 0, done.output
    whole, quarter = json.loads(done.output)["runs"]
    assert (whole["version"], whole["calls"], whole["share"], quarter["replicas"]) == (1, 50, 1.0, 8)
    assert (whole["service"]["memory"], whole["service"]["concurrent"]) == (8192, 4)
    assert (whole["objective"], len(whole["percentiles"])) == ({"base": 4.0, "per_token": 0.1}, 100)
    assert page.read_text().startswith("<!doctype html>") and "latency" in page.read_text()
    assert "50 calls, met in" in command(*args).output


def test_the_command_takes_a_scenario(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    background = {"id": "train", "gpu": 1, "duration": 5}
    scenario = {"version": 1, "nodes": [{"name": "n", "devices": f"2x{A100}"}], "requests": [background]}
    path.write_text(json.dumps(scenario))
    done = command("--scenario", path, "--replicas", 2, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["background"] == {"done": 1}
    path.write_text(json.dumps({**scenario, "events": [{"at": 1, "node_down": "n"}]}))
    assert "does not know events" in command("--scenario", path).output
    path.write_text(json.dumps({**scenario, "requests": [{**background, "id": "replica", "count": 2}]}))
    assert "give it another name" in command("--scenario", path).output


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ((), "--serve needs the calls"),
        (("--cards", "2xnvidia/L4", "--scenario", "s.yaml"), "--serve needs the calls"),
        (("--cards", "2xnvida/L4"), "Did you mean 'nvidia/L4'?"),
        (("--cards", "2xnvidia/T4"), "at most 16.0 GiB here; the model needs 16.0 GiB and 1.0 GiB"),
        (("--cards", "2xnvidia/L4", "--share", "1.5"), "--share 1.5 must be"),
        (("--cards", "2xnvidia/L4", "--share", "nan"), "--share nan must be"),
        (("--cards", "2xnvidia/L4", "--replicas", "0"), "--replicas 0 must be at least 1"),
        (("--cards", "2xnvidia/L4", "--models", "3"), "2 replicas of 1 of a card for 3 models"),
        (("--cards", "2xnvidia/L4", "--objective", "3"), "such as 5:0.05"),
        (("--cards", "2xnvidia/L4", "--objective", "-1:0"), "base: Input should be greater"),
        (("--cards", "2xnvidia/L4", "--service", "saturation"), "must be KEY=VALUE"),
        (("--cards", "2xnvidia/L4", "--service", "decode=1,decode=2"), "decode is there twice"),
        (("--cards", "2xnvidia/L4", "--service", "saturate=1"), "Did you mean 'saturation'?"),
        (("--cards", "2xnvidia/L4", "--service", "memory=8"), "write a number with a unit"),
        (("--cards", "2xnvidia/L4", "--table", "t.csv"), "--table means nothing for --serve"),
    ],
)
def test_the_command_refuses(args: tuple[str, ...], problem: str) -> None:
    done = command(*args)
    assert (done.exit_code, problem in done.output) == (1, True), done.output


def test_its_options_mean_nothing_without_it(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["simulate", "--scenario", "s.yaml", "--share", "0.5"])
    assert (done.exit_code, "only --serve has it" in done.output) == (1, True)


def test_no_calls_and_no_room_are_errors() -> None:
    with pytest.raises(UsageError, match="no calls"):
        serve(on(f"1x{A100}"), [], fleet())
    busy = [{"id": "long", "gpu": 1, "duration": 99}]
    with pytest.raises(UsageError, match="no replica had a place"):
        serve(on(f"1x{A100}", requests=busy), calls_at((0, 1, 1)), fleet())
