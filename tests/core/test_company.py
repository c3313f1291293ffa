"""Who slows whom down on one device: what is learnt of it, and from what."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Mapping
from itertools import product

import pytest
from harness import World, node
from hypothesis import given
from hypothesis import strategies as st

from flexray.core import alone, harm
from flexray.core.blame import Belief, Blame
from flexray.core.company import Company
from flexray.core.harm import MOST_CLASSES, MOST_PARTNERS, WORST
from flexray.core.speeds import Speeds
from flexray.model.events import SliceEnded, SpeedsRestored, TasksRan
from flexray.model.wire import decode, encode
from flexray.sim.clock import Simulation
from flexray.sim.scenario import parse_scenario, simulate

TRUTH = math.log(1.8)
Parts = Mapping[str, float]


def taught(*lessons: tuple[str, str, float], reports: int = 20) -> Company:
    """Each lesson (class, beside, factor) is told so many times, by a class whose time alone is known."""
    company = Company()
    for (task_class, beside, factor), _ in product(lessons, range(reports)):
        company.observe(task_class, {beside: 1.0}, math.log(factor), 1)
    return company


class Runs:
    """Reports as the scheduler gets them, of tasks that really take ``effects`` (log) longer beside others."""

    def __init__(self, effects: Mapping[tuple[str, str], float], noise: float = 0.0, seed: int = 0) -> None:
        self.company, self.speeds = Company(), Speeds()
        self._effects, self._noise, self._rng = effects, noise, random.Random(seed)

    def run(self, task_class: str, partners: Parts, times: int = 1, calls: int = 1) -> None:
        for _ in range(times):
            rate = math.exp(self._rng.gauss(0, self._noise))
            for name, part in partners.items():
                rate *= 1 - part * (1 - math.exp(-self._effects.get((task_class, name), 0.0)))
            known = self.speeds.expected(task_class, "T")
            seconds = self.company.ran(task_class, "T", calls, calls / rate, partners, known)
            self.speeds.observe(task_class, "T", calls, seconds)
            mean = self.company.alone(task_class, "T")
            if mean is not None:
                self.speeds.correct(task_class, "T", mean)

    def shuffled(self, task_class: str, company: list[Parts], times: int) -> None:
        for _ in range(times):
            self.run(task_class, self._rng.choice(company))

    def seconds(self, task_class: str) -> float:
        return math.exp(self.speeds.expected(task_class, "T")[0])


# -- one pair ------------------------------------------------------------------------------


def test_what_was_measured_is_believed_and_only_that_way_round() -> None:
    company = taught(("a", "b", 1.8))
    assert company.effect("a", "b") == pytest.approx(TRUTH, rel=0.25)
    assert company.effect("b", "a") == company.effect("a", "c") == company.effect("c", "b") == 0.0


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.02])
def test_no_harm_and_less_than_none_is_none(factor: float) -> None:
    company = taught(("a", "b", factor))
    assert company.effect("a", "b") == 0.0 and not company.knows("a") and not company.knows("b")


def test_little_known_is_harmless_and_more_known_is_believed_more() -> None:
    effects = [taught(("a", "b", 1.5), reports=n).effect("a", "b") for n in (1, 4, 40, 200)]
    assert effects[0] == 0.0
    assert effects == sorted(effects) and effects[-1] == pytest.approx(math.log(1.5), rel=0.1)
    many_calls = Company()
    many_calls.observe("a", {"b": 1.0}, math.log(1.8), 1000)
    assert many_calls.effect("a", "b") > 0.0, "the mean of many calls is worth several reports"


def test_one_odd_report_decides_little() -> None:
    company = taught(("a", "b", 1.0))
    company.observe("a", {"b": 1.0}, math.log(1000), 1)
    assert company.effect("a", "b") == 0.0


def test_what_has_changed_is_learnt_anew() -> None:
    company = taught(("a", "b", 1.8), reports=300)
    for _ in range(900):
        company.observe("a", {"b": 1.0}, 0.0, 1)
    assert company.effect("a", "b") == 0.0 and not company.knows("a")


def test_a_part_of_the_time_and_two_of_a_class() -> None:
    part = Runs({("a", "b"): TRUTH})
    part.shuffled("a", [{}, {"b": 0.3}, {"b": 0.6}], 200)
    assert part.company.effect("a", "b") == pytest.approx(TRUTH, rel=0.1)
    two = Company()
    for _ in range(50):
        two.observe("a", {"b": 2.0}, 2 * TRUTH, 1)
    assert two.effect("a", "b") == pytest.approx(TRUTH, rel=0.1)
    assert two.slowdown("a", {"b": 1.0 + 1e-12}) == pytest.approx(two.slowdown("a", {"b": 1.0})), "rounding"


# -- whose fault ---------------------------------------------------------------------------


def test_what_all_reports_have_in_common_is_the_class_own() -> None:
    runs = Runs({("a", "b"): TRUTH})
    runs.run("a", {"b": 1.0}, times=300)
    assert runs.company.effect("a", "b") == 0.0 and not runs.company.knows("a")
    assert runs.seconds("a") == pytest.approx(1.8)
    runs.run("a", {}, times=5)
    assert runs.company.effect("a", "b") == pytest.approx(TRUTH, rel=0.25), "the reports from before still tell"
    assert runs.seconds("a") == pytest.approx(1.0, rel=0.1)


def test_of_partners_of_a_class_never_alone_the_least_is_harmless() -> None:
    runs = Runs({("a", "b"): TRUTH})
    runs.shuffled("a", [{"b": 1.0}, {"c": 1.0}], 300)
    assert runs.company.effect("a", "b") == pytest.approx(TRUTH, rel=0.1)
    assert runs.company.effect("a", "c") == 0.0
    assert runs.seconds("a") == pytest.approx(1.0, rel=0.05)


def test_partners_that_are_always_together_share_and_one_of_them_apart_tells() -> None:
    runs = Runs({("a", "b"): TRUTH})
    runs.shuffled("a", [{}, {"b": 1.0, "c": 1.0}], 100)
    both = runs.company.effect("a", "b"), runs.company.effect("a", "c")
    assert both[0] == pytest.approx(both[1], abs=0.03) and both[0] < 0.6 * TRUTH
    runs.shuffled("a", [{}, {"c": 1.0}], 60)
    assert runs.company.effect("a", "b") == pytest.approx(TRUTH, rel=0.25)
    assert runs.company.effect("a", "c") < 0.1


@pytest.mark.parametrize("alone_part", [0.05, 0.5])
def test_speeds_are_those_alone(alone_part: float) -> None:
    runs = Runs({("a", "b"): TRUTH, ("a", "a"): math.log(1.3)})
    busy = round(20 * (1 - alone_part))
    runs.shuffled("a", [{}] * (20 - busy) + [{"b": 1.0}] * (busy // 2) + [{"a": 1.0}] * (busy - busy // 2), 400)
    assert runs.seconds("a") == pytest.approx(1.0, rel=0.1)
    assert runs.company.effect("a", "a") == pytest.approx(math.log(1.3), rel=0.25), "a class beside itself"


@pytest.mark.parametrize("company", [[{}, {"b": 1.0}, {"c": 1.0}], [{"b": 1.0}, {"c": 1.0}]], ids=["alone", "never"])
@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_noise_does_not_look_like_harm(noise: float, company: list[Parts]) -> None:
    found = []
    for seed in range(20):
        runs = Runs({}, noise, seed)
        runs.shuffled("a", company, 100)
        found += [runs.company.effect("a", name) for name in "bc"]
        assert runs.seconds("a") == pytest.approx(1.0, rel=0.5 * noise + 0.05)
    assert sum(effect > 0 for effect in found) <= 0.1 * len(found)
    assert sum(found) / len(found) < 0.02


def test_harm_is_found_in_noise() -> None:
    for seed in range(5):
        runs = Runs({("a", "b"): TRUTH}, 0.3, seed)
        runs.shuffled("a", [{}, {"b": 1.0}, {"c": 1.0}, {"b": 0.5, "c": 0.5}], 200)
        assert runs.company.effect("a", "b") == pytest.approx(TRUTH, rel=0.25)
        assert runs.company.effect("a", "c") < 0.1


def test_what_ran_beside_others_is_told_as_if_it_had_run_alone() -> None:
    company = taught(("a", "b", 1.8), reports=200)
    alone_seconds = company.ran("a", "T", 10, 36.0, {"b": 1.0}, (math.log(2.0), 50.0))
    assert alone_seconds == pytest.approx(20.0, rel=0.05)
    assert company.ran("c", "T", 10, 36.0, {"b": 1.0}, (0.0, 0.0)) == 36.0


# -- pairs that were never seen --------------------------------------------------------------


def test_one_bad_partner_says_nothing_of_others_and_several_do() -> None:
    one = taught(("a", "b", 2.0))
    assert one.effect("a", "new") == one.effect("new", "b") == 0.0 and not one.knows("new")
    several = taught(*(("a", f"b{i}", 2.0) for i in range(6)), *(("c", f"b{i}", 1.0) for i in range(6)))
    assert 0.1 < several.effect("a", "new") < math.log(2.0), "a suffers from everybody"
    assert several.effect("c", "new") == 0.0
    bully = taught(*((f"a{i}", "b", 2.0) for i in range(6)), *((f"a{i}", "c", 1.0) for i in range(6)))
    assert 0.1 < bully.effect("new", "b") < math.log(2.0), "b disturbs everybody"
    assert bully.effect("new", "c") == 0.0 and bully.knows("new")


# -- for callers -----------------------------------------------------------------------------


def test_the_loss_of_a_place() -> None:
    company = taught(("a", "b", 2.0), ("b", "a", 1.5), reports=200)
    on_a, on_b = (1 - math.exp(-company.effect(*pair)) for pair in (("a", "b"), ("b", "a")))
    assert on_a == pytest.approx(0.5, abs=0.03) and on_b == pytest.approx(1 / 3, abs=0.03)
    assert company.loss("a", 500, [("b", 300)]) == pytest.approx(0.5 * on_a + 0.3 * on_b)
    assert company.loss("a", 500, [("b", 300), ("c", 200)]) == pytest.approx(0.5 * on_a + 0.3 * on_b)
    twice = 0.4 * (1 - (1 - on_a) ** 2) + 2 * 0.3 * on_b
    assert company.loss("a", 400, [("b", 300), ("b", 300)]) == pytest.approx(twice)
    assert company.loss("a", 500, []) == company.loss("c", 500, [("b", 300), ("a", 200)]) == 0.0


@pytest.mark.parametrize("partners", [MOST_PARTNERS, 2])
def test_versions_tell_of_every_change(partners: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where room for few partners makes pairs come and go."""
    monkeypatch.setattr(harm, "MOST_PARTNERS", partners)
    company, names, changes = Company(), ["a", "b", "c", "d", "e", "new"], 0
    rng = random.Random(1)
    for _ in range(300):
        before = {name: company.version(name) for name in names}
        effects = {(one, other): company.effect(one, other) for one, other in product(names, names)}
        one, other = rng.choice(names[:-1]), rng.choice(names[:-1])
        company.observe(one, {other: 1.0}, 0.5 * (one == "a") + rng.gauss(0, 0.2), 1)
        for pair, effect in effects.items():
            if company.effect(*pair) != effect:
                assert all(company.version(name) != before[name] for name in pair)
        changes += any(company.version(name) != before[name] for name in names)
    assert changes
    if partners == MOST_PARTNERS:
        assert changes < 100 and company.effect("a", "new") > 0


def test_classes_that_come_and_go_change_no_version() -> None:
    company = taught(("a", "b", 1.8), reports=200)
    before = company.version("a")
    for number in range(MOST_CLASSES - 2):
        company.observe(f"c{number}", {f"d{number}": 1.0}, 0.0, 1)
    company.observe("a", {"b": 1.0}, TRUTH, 1)
    for number in range(MOST_CLASSES // 2):
        company.observe(f"e{number}", {f"f{number}": 1.0}, 0.0, 1)
    assert company.version("a") == before and company.effect("c0", "d0") == 0.0


# -- any history -----------------------------------------------------------------------------

CLASSES = "abcd"
classes = st.sampled_from(CLASSES)
parts = st.dictionaries(classes, st.floats(0.0, 3.0), max_size=3)
reports = st.lists(
    st.tuples(classes, st.sampled_from("ST"), st.integers(1, 100), st.floats(1e-3, 1e3), parts), max_size=60
)


def told(history: list[tuple[str, str, int, float, Parts]], name: Mapping[str, str]) -> Company:
    company = Company()
    for task_class, device_type, calls, seconds, partners in history:
        beside = {name[one]: part for one, part in partners.items()}
        alone = company.ran(name[task_class], device_type, calls, seconds, beside, (0.0, 0.0))
        assert 0 < alone <= seconds * (1 + 1e-9)
    return company


SAME = {name: name for name in (*CLASSES, "new")}


@given(reports)
def test_effects_are_bounded_and_what_is_not_known_is_harmless(
    history: list[tuple[str, str, int, float, Parts]],
) -> None:
    company = told(history, SAME)
    for one, other in product(SAME, SAME):
        effect = company.effect(one, other)
        assert 0.0 <= effect <= WORST
        assert 0.0 <= company.loss(one, 500, [(other, 500)]) <= 1.0
        if not company.knows(one) or not company.knows(other):
            assert effect == 0.0 and company.loss(one, 500, [(other, 500)]) == 0.0


@given(reports, st.permutations(CLASSES))
def test_names_do_not_matter(history: list[tuple[str, str, int, float, Parts]], order: list[str]) -> None:
    rename = dict(zip(CLASSES, order, strict=True))
    one, other = told(history, SAME), told(history, rename)
    for pair in product(CLASSES, CLASSES):
        renamed = other.effect(*(rename[name] for name in pair))
        # the order of a sum is another: a last digit may decide whether a change is shown
        assert renamed == pytest.approx(one.effect(*pair), abs=0.035)


@given(reports)
def test_what_was_learnt_survives_a_restart(history: list[tuple[str, str, int, float, Parts]]) -> None:
    company, again = told(history, SAME), Company()
    rows = company.rows()
    again.restore(tuple(tuple(row) for row in json.loads(json.dumps(rows))))
    assert again.rows() == rows
    for one, other in product(SAME, SAME):
        assert again.effect(one, other) == company.effect(one, other)
        assert again.knows(one) == company.knows(one)
    for name in CLASSES:
        assert again.alone(name, "T") == company.alone(name, "T")


def test_memory_is_bounded_and_the_latest_is_kept() -> None:
    company, last = Company(), f"c{MOST_CLASSES + 49}"
    for number in range(MOST_CLASSES + 50):
        for _ in range(4):
            company.observe(f"c{number}", {"p": 1.0}, 1.0, 10)
            company.observe(f"c{number}", {f"q{number}": 1.0}, 1.0, 10)
    assert company.effect("c0", "q0") == company.effect("c0", "new")
    assert company.effect(last, "p") > company.effect(last, "new") and company.effect(last, f"q{MOST_CLASSES + 49}")
    for number in range(MOST_PARTNERS + 20):
        company.observe("last", {f"p{number}": 1.0}, 0.5, 1)
    company.observe("last", {f"r{number}": 1.0 for number in range(2 * MOST_PARTNERS)}, 0.5, 1)
    pairs = [(task_class, beside) for task_class, kind, beside, *_ in company.rows() if task_class and beside]
    known = {task_class for task_class, _ in pairs}
    assert len(known) == MOST_CLASSES and "c0" not in known and last in known
    assert len([beside for task_class, beside in pairs if task_class == "last"]) == MOST_PARTNERS
    names = {name for pair in pairs for name in pair}
    kept = company._harm
    for table in (kept._changes, kept._harmful, kept._suffers, kept._disturbs, kept._seen_by, kept._blames):
        assert set(table) <= names


def test_so_are_the_bases() -> None:
    company = Company()
    for number in range(alone._MOST_BASES + 10):
        company.ran("a", f"T{number}", 1, 1.0, {"b": 1.0}, (0.0, 0.0))
    assert len(company.rows()) == 2 * alone._MOST_BASES
    assert company.alone("a", "T9") is None and company.alone("a", "T10") == 0.0


def test_when_all_is_forgotten_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harm, "MOST_CLASSES", 1)
    company = taught(*(("a", f"b{i}", 2.0) for i in range(6)))
    assert company.knows("new")
    before = company.version("new")
    company.observe("x", {"y": 1.0}, 0.0, 1)
    assert not any(company.knows(name) for name in ("a", "b0", "new")) and company.version("new") != before


# -- least squares -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_the_solution_is_the_best_without_a_negative_effect(seed: int) -> None:
    """At the least of a convex function over e >= 0, each gradient is 0, or not below 0 where e is 0."""
    rng, blame, noise, size = random.Random(seed), Blame(), 0.04, 1 + seed % 6
    names = [f"p{i}" for i in range(size)]
    priors = {name: Belief(rng.uniform(0, 0.5), rng.uniform(0.02, 0.3)) for name in names}
    for name in names:
        blame.enter(name, priors[name], 0.0)
    told = []
    for _ in range(12):
        common = rng.uniform(-1, 1)  # alike, so that one that came in first has to go again
        parts = {name: common + rng.uniform(-0.3, 0.3) for name in names if rng.random() < 0.8}
        told.append((parts, rng.gauss(0.2, 1)))
        if told[-1][0]:
            blame.add(*told[-1], 1.0)
    blame.solve(priors, noise)
    effects = {name: belief.mean for name, belief in blame.beliefs.items()}
    for name in names:
        gradient = (effects[name] - priors[name].mean) / priors[name].variance
        for felt, value in told:
            off = sum(part * effects[one] for one, part in felt.items()) - value
            gradient += felt.get(name, 0.0) * off / noise
        assert effects[name] >= 0 and blame.beliefs[name].variance > 0
        assert gradient == pytest.approx(0, abs=1e-6) if effects[name] > 0 else gradient > -1e-6


# -- who was beside whom -------------------------------------------------------------------------


def three() -> World:
    """a from 0, b from 10, c from 30, on one device; d has one for itself."""
    world = World(node("n1", "1xA100"), node("n2", "1xT4"))
    for at, name in ((0, "a"), (10, "b"), (30, "c")):
        world.now = at
        world.submit(name, task_class=name, gpu=0.3, types="nvidia/A100*")
        world.settle()
    world.submit("d", task_class="d", gpu=0.3, types="nvidia/T4")
    world.settle()
    return world


def beside(world: World, name: str) -> dict[str, float]:
    """What would be told of a lease now, in seconds since its last report; takes it."""
    slices = world.scheduler.state.slices
    record = slices.by_id[world.leases[name].slice]
    span = world.now - record.reported
    return {one: round(part * span, 6) for one, part in slices.company_of(record, world.now).items()}


def test_overlaps_of_three_lives() -> None:
    world = three()
    world.now = 40
    assert beside(world, "a") == {"b": 30, "c": 10} and beside(world, "a") == {}
    world.now = 50
    world.release("b")
    world.now = 60
    assert beside(world, "c") == {"a": 30, "b": 20}
    assert beside(world, "a") == {"b": 10, "c": 20}
    assert beside(world, "d") == {}
    world.now = 70
    world.submit("b2", task_class="b", gpu=0.3, types="nvidia/A100*")  # the warm slice again
    world.settle()
    world.submit("e", task_class="a", gpu=0.1, types="nvidia/A100*")
    world.settle()
    world.now = 75
    assert beside(world, "b2") == {"a": 10, "c": 5}, "from its own grant on, and two of a class"
    assert beside(world, "a") == {"a": 5, "b": 5, "c": 15}, "its own class too"


def test_a_slice_that_dies_was_there_until_then() -> None:
    world = three()
    world.now = 40
    world.apply(SliceEnded(world.leases["b"].slice))
    world.now = 50
    assert beside(world, "a") == {"b": 30, "c": 20}


def test_an_actor_is_company_and_keeps_no_account() -> None:
    world = three()
    world.submit("actor", task_class="actor", gpu=0.1, types="nvidia/A100*", reusable=False)
    world.settle()
    world.now = 40
    assert beside(world, "c") == {"a": 10, "b": 10, "actor": 10}
    slices = world.scheduler.state.slices.by_id
    assert slices[world.leases["actor"].slice].beside == {} and slices[world.leases["a"].slice].beside["c"] == 10


def test_a_slice_alone_on_its_device_costs_nothing() -> None:
    world = three()
    world.now = 40
    world.apply(TasksRan(world.leases["d"].lease, 1, 1.0))
    pool = world.scheduler.state.pool
    assert pool.company.rows() == [] and pool.speeds.expected("d", "nvidia/T4")[1] == 1
    world.apply(TasksRan(world.leases["a"].lease, 1, 1.0))
    assert {row[0] for row in pool.company.rows()} == {"a"}


def test_the_pool_sees_late_what_a_class_takes_alone() -> None:
    world = three()
    speeds = world.scheduler.state.pool.speeds

    def report(seconds: float) -> None:
        world.now += 1
        world.apply(TasksRan(world.leases["a"].lease, 1, seconds))

    for _ in range(100):
        report(1.8)
    assert math.exp(speeds.expected("a", "nvidia/A100-80GB")[0]) == pytest.approx(1.8, rel=0.01)
    world.release("b")
    for _ in range(10):
        report(1.0)
    assert math.exp(speeds.expected("a", "nvidia/A100-80GB")[0]) == pytest.approx(1.0, rel=0.05)
    assert world.scheduler.state.pool.company.effect("a", "b") == pytest.approx(TRUTH, rel=0.25)


# -- in the pool ------------------------------------------------------------------------------


def test_a_restarted_core_knows_it() -> None:
    rows = tuple(taught(("a", "b", 1.8)).rows())
    event = SpeedsRestored((("a", "T", 3.0, 0.5),), rows)
    assert decode(json.loads(json.dumps(encode(event)))) == event
    world = World()
    world.apply(event)
    company = world.scheduler.state.pool.company
    assert tuple(company.rows()) == rows and company.effect("a", "b") > 0.4


def test_a_journal_from_before_there_was_company_is_read() -> None:
    old = {"kind": "SpeedsRestored", "rows": [["a", "T", 3.0, 0.5]]}
    assert decode(old) == SpeedsRestored((("a", "T", 3.0, 0.5),))
    assert {f.name for f in dataclasses.fields(SpeedsRestored)} == {"rows", "company"}


SECONDS = {"a": 4.0, "b": 6.0, "c": 5.0}


def shared(weights: tuple[int, int, int], every: float, noise: float = 0.0) -> Simulation:
    """400 short jobs of half a device on three; a and b slow each other down, c nobody."""
    rng = random.Random(1)
    jobs = []
    for number in range(400):
        kind = rng.choices("abc", weights)[0]
        duration = SECONDS[kind] * math.exp(rng.gauss(0, noise))
        jobs.append({"id": f"r{number}", "class": kind, "gpu": 0.5, "at": number * every, "duration": duration})
    nodes = [{"name": f"n{number}", "devices": "1xnvidia/A100-80GB"} for number in range(3)]
    slowdown = {"[a, b, *]": 1.8, "[b, a, *]": 1.8}
    scenario = {"version": 1, "policy": "pack", "nodes": nodes, "requests": jobs, "slowdown": slowdown}
    return simulate(parse_scenario(scenario))


@pytest.mark.parametrize(
    ("weights", "every", "noise"),
    [((1, 1, 1), 1.3, 0.0), ((1, 1, 1), 0.6, 0.0), ((3, 6, 1), 1.0, 0.0), ((3, 6, 1), 1.0, 0.2)],
    ids=["some room", "crowded", "a beside b most of the time", "and noisy"],
)
def test_a_simulated_pool_learns_it(weights: tuple[int, int, int], every: float, noise: float) -> None:
    pool = shared(weights, every, noise).core.state.pool
    name = {kind: f"{kind}/gpu=0.5" for kind in SECONDS}
    for pair in product(SECONDS, SECONDS):
        effect = pool.company.effect(*(name[kind] for kind in pair))
        truth = TRUTH if set(pair) == {"a", "b"} else 0.0
        assert effect == pytest.approx(truth, rel=0.25, abs=0.05), pair
    for kind, seconds in SECONDS.items():
        mean, weight = pool.speeds.expected(name[kind], "nvidia/A100-80GB")
        assert weight > 20 and math.exp(mean) == pytest.approx(seconds, rel=0.1), kind
