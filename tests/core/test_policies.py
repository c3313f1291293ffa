"""What policies choose: fragmentation, speed, scarcity; and that the index of classes changes none of it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from harness import GIB, TYPES, World, node
from walk import _Walker, walk

from flexray.build import build_scheduler
from flexray.config import PoolConfig
from flexray.core.books import Room
from flexray.core.landscape import NodeClass, NodeState
from flexray.core.placement import Pool
from flexray.core.policy import Option, Policy
from flexray.core.speeds import Speeds
from flexray.errors import UnknownPolicy, UsageError
from flexray.model.events import NodeReported, TasksRan
from flexray.model.request import Request, request_from_options
from flexray.policies import POLICIES, find_policy

WANTED = [
    {"gpu": 0.25}, {"gpu": 0.6, "memory": "2GiB"}, {"gpu": 1}, {"gpu": 2}, {"accelerator": 0.5, "cpus": 2},
    {"npu": 1}, {"gpu": 0.1, "types": "nvidia/T4"}, {"gpu": 0.3, "memory": "30GiB", "cpus": 1},
]  # fmt: skip


def placements(pool: Pool, policy: Policy) -> list[Any]:
    return [pool.chooser.place(request_from_options(options), policy, "task") for options in WANTED]


def scored_afresh(pool: Pool) -> None:
    """Forget every class and every score."""
    pool.chooser.forget()
    pool.landscape._class_of.clear()
    pool.landscape._classes.clear()
    pool.landscape._inhabited.clear()
    pool.landscape.log.clear()
    pool.landscape.version += 1
    pool.landscape._touched = dict.fromkeys(pool.host.rows)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=lambda policy: policy.name)
@pytest.mark.parametrize("seed", range(4))
def test_the_index_chooses_what_full_scoring_chooses(policy: Policy, seed: int) -> None:
    walker = _Walker(random.Random(seed), cut=seed > 1)
    pool = walker.world.scheduler.state.pool
    for step in range(150):
        walker.step()
        if step % 5 == 0:
            incremental = placements(pool, policy)
            scored_afresh(pool)
            assert placements(pool, policy) == incremental


@pytest.mark.parametrize("policy", POLICIES.values(), ids=lambda policy: policy.name)
@pytest.mark.parametrize("cut", [False, True])
def test_no_class_is_worth_more_than_its_bound(policy: Policy, cut: bool) -> None:
    walker = _Walker(random.Random(7), cut=cut)
    pool, compared, bounds = walker.world.scheduler.state.pool, 0, set()
    for step in range(200):
        walker.step()
        if step % 5:
            continue
        pool.landscape.refresh()
        for options in WANTED:
            request = request_from_options(options)
            scorer = pool.chooser._rated(request, policy, "task").scorer
            for found in pool.landscape.inhabited():
                most, scored = scorer.most(found), scorer.score(found)
                bounds.add(most)
                if scored is not None:
                    assert scored.total <= most
                    compared += 1
    assert compared > 50 and len(bounds) > 1


def test_a_class_is_scored_when_its_turn_has_come() -> None:
    """Slow devices are not looked at for who finds room on a fast one."""
    pool = pool_of(node("a", "2xA100"), node("t", "2xT4"), node("u", "1xT4"))
    policy, request = POLICIES["balanced"], request_from_options({"gpu": 0.5})
    choice = pool.chooser.place(request, policy, "task")
    assert choice is not None and choice.placement.node == "a"
    ranking = pool.chooser._rated(request, policy, "task").ranking
    assert len(ranking._entries) == 3 and len(ranking._scores) == 1


@pytest.mark.parametrize("policy", POLICIES.values(), ids=lambda policy: policy.name)
def test_the_order_in_which_nodes_come_changes_nothing(policy: Policy) -> None:
    nodes = [node(f"n{n}", f"{n % 3 + 1}x{kind}", cpus=8) for n, kind in enumerate(["A100", "T4", "H100", "A10"] * 3)]
    chosen = []
    for seed in range(3):
        random.Random(seed).shuffle(nodes)
        world = World(*nodes, policy=policy.name)
        for number, options in enumerate(WANTED * 3):
            world.submit(f"r{number}", **options)
            world.settle()
        chosen.append(world.placed)
    assert chosen[0] == chosen[1] == chosen[2]


@pytest.mark.parametrize("policy", POLICIES.values(), ids=lambda policy: policy.name)
def test_totals_are_within_bounds_and_explained(policy: Policy) -> None:
    world = walk(5, 200)
    for choice in filter(None, placements(world.scheduler.state.pool, policy)):
        assert [name for name, _ in choice.scores] == list(policy.weights)
    extremes = [Option(a, b, 1.0, c, d, e, f) for a in (0, 1) for b in (0, 1) for c in (0.01, 1) for d in (0, 1)
                for e in (-8, 8) for f in (0, 50)]  # fmt: skip
    weight = 1.0 if policy.additive else sum(policy.weights.values())
    for option in extremes:
        total = sum(policy.weights[name] / weight * value for name, value in policy.terms(option).items())
        assert policy.additive or 0 <= total <= 1


# -- fragments -----------------------------------------------------------------------------


def pool_of(*nodes: Any) -> Pool:
    scheduler = build_scheduler(PoolConfig())
    for inventory in nodes:
        scheduler.apply(NodeReported(inventory), 0.0)
    return scheduler.state.pool


def test_fragments_by_hand() -> None:
    """Mix: half 1 device, half 0.6 of one. A node with 0.5 and 1.0 free."""
    pool = pool_of(node("n", "2xA100", cpus=8))
    kind = pool.kinds.number(pool.devices["n/gpu0"])
    for _ in range(5_000):  # the prior no longer matters
        pool.mix.saw(request_from_options({"gpu": 1}))
        pool.mix.saw(request_from_options({"gpu": 0.6}))
    pool.mix.swap()
    half, whole = Room(kind, 500, 40 * GIB, 500, 40 * GIB), Room(kind, 1000, 80 * GIB, 1000, 80 * GIB)
    state = NodeState(8000, 0, 8000, 0, (half, whole))
    assert pool.mix.fragments(state) == pytest.approx(0.5, abs=0.01)  # the half device serves neither
    poor = Room(kind, 1000, 30 * GIB, 1000, 30 * GIB)  # all compute, but memory for neither
    assert pool.mix.fragments(state._replace(rooms=(poor,))) == pytest.approx(1.0, abs=0.01)
    lone = state._replace(rooms=(whole._replace(share=600, memory=48 * GIB),))
    assert pool.mix.fragments(lone) == pytest.approx(0.3, abs=0.01)  # serves one half of the mix


def test_what_rests_are_worth_by_hand() -> None:
    """The example of docs/placement.md: a third of the requests asks 0.7, two thirds 0.3."""
    pool = pool_of(node("n", "1xA100", cpus=8))
    kind = pool.kinds.number(pool.devices["n/gpu0"])
    for _ in range(4_000):
        pool.mix.saw(request_from_options({"gpu": 0.7}))
        for _ in range(2):
            pool.mix.saw(request_from_options({"gpu": 0.3, "cpus": 1}))
    pool.mix.swap()

    def worth(share: int, cores: int = 8000) -> float:
        room = Room(kind, share, share * 80 * GIB // 1000, share, 0)
        return pool.mix.worth().of(NodeClass(0, NodeState(cores, 0, cores, 0, (room,))))

    expected = {1000: 1.0, 800: 0.67, 700: 0.67, 500: 0.33, 300: 0.33, 200: 0.0, 0: 0.0}
    assert {share: worth(share) for share in expected} == pytest.approx(expected, abs=0.01)
    assert worth(1000, cores=500) == pytest.approx(0.33, abs=0.01)  # two thirds of the requests need a core


def test_without_host_cores_everything_is_a_fragment() -> None:
    pool = pool_of(node("n", "1xA100", cpus=8))
    kind = pool.kinds.number(pool.devices["n/gpu0"])
    for _ in range(5_000):
        pool.mix.saw(request_from_options({"gpu": 0.5, "cpus": 4}))
    pool.mix.swap()
    whole = Room(kind, 1000, 80 * GIB, 1000, 80 * GIB)
    assert pool.mix.fragments(NodeState(4000, 0, 4000, 0, (whole,))) == pytest.approx(0, abs=0.01)
    assert pool.mix.fragments(NodeState(3500, 0, 3500, 0, (whole,))) == pytest.approx(1, abs=0.01)


def test_places_that_lie_apart_are_fragments_and_worth_little() -> None:
    pool = pool_of(node("n", "1xMIG", cpus=8))
    kind = pool.kinds.number(pool.devices["n/gpu0"])
    for _ in range(5_000):
        pool.mix.saw(request_from_options({"gpu": 0.4}))
    pool.mix.swap()

    def state(*places: int) -> NodeState:
        bits = sum(1 << place for place in places)
        room = Room(kind, 500, 20 * GIB, 500, 20 * GIB, bits, bits)
        return NodeState(8000, 0, 8000, 0, (room,))

    together, apart = state(0, 1, 2, 3), state(1, 2, 4, 5)
    assert [pool.mix.fragments(one) for one in (together, apart)] == pytest.approx([0, 0.5], abs=0.01)
    worth = pool.mix.worth()
    assert [worth.of(NodeClass(n, one)) for n, one in enumerate((together, apart))] == pytest.approx([0.5, 0], abs=0.02)


def test_types_that_some_depend_on_have_a_price() -> None:
    pool = pool_of(node("a", "2xA100"), node("t", "2xT4"))
    for _ in range(500):
        pool.mix.saw(request_from_options({"gpu": 1, "types": "nvidia/A100*"}))
        pool.mix.saw(request_from_options({"gpu": 1}))
    pool.mix.swap()
    kinds = {device.type.name: pool.kinds.number(device) for device in pool.devices.values()}
    assert pool.mix.scarcity(kinds["nvidia/A100-80GB"]) == pytest.approx(1.0, abs=0.05)
    assert pool.mix.scarcity(kinds["nvidia/T4"]) == 0


def test_fgd_fills_the_rest_that_fits_exactly() -> None:
    world = World(node("n1", "1xA100"), node("n2", "1xA100"), policy="fgd")
    for number in range(40):
        world.submit(f"old{number}", gpu=0.4)
        world.settle()
        world.release(f"old{number}") if number not in (0,) else None
    world.submit("half", gpu=0.6)
    world.settle()
    assert world.placed["half"].split("/")[0] == world.placed["old0"].split("/")[0]


# -- speeds --------------------------------------------------------------------------------

NOMINAL = {"fast": 1.0, "slow": 0.2}


def test_before_anything_is_measured_the_catalog_speaks() -> None:
    assert Speeds().relative("c", NOMINAL) == {"fast": 1.0, "slow": pytest.approx(0.2)}


def test_measured_run_times_replace_the_catalog() -> None:
    speeds = Speeds()
    for _ in range(30):
        speeds.observe("c", "fast", 1, 1.0)
        speeds.observe("c", "slow", 1, 0.5)
    found = speeds.relative("c", NOMINAL)
    assert found["slow"] == 1.0 and found["fast"] == pytest.approx(0.5, abs=0.1)


def test_a_type_that_disappoints_is_tried_ever_less() -> None:
    speeds, tries = Speeds(), []
    for number in range(400):
        relative = speeds.relative("c", NOMINAL)
        chosen = max(relative, key=lambda name: relative[name])
        tries += [number] if chosen == "slow" else []
        speeds.observe("c", chosen, 1, 0.1 if chosen == "fast" else 0.5)
    assert 1 <= len(tries) <= 12 and tries[-1] > 60


def test_a_type_where_a_call_would_take_long_is_not_tried_out() -> None:
    speeds = Speeds()
    for _ in range(300):
        speeds.observe("c", "fast", 1, 60.0)
        assert speeds.relative("c", NOMINAL)["fast"] == 1.0


def test_other_classes_complete_what_was_never_seen() -> None:
    """The catalog takes both types for equal; ten classes found one four times slower; a new one is expected to."""
    speeds, equal = Speeds(), {"a": 1.0, "b": 1.0}
    for number in range(40):
        for _ in range(5):
            speeds.observe(f"c{number}", "a", 1, 0.1 * (number + 1))
            speeds.observe(f"c{number}", "b", 1, 0.4 * (number + 1))
    assert speeds.relative("new", equal)["b"] == pytest.approx(0.25, abs=0.05)


def test_declared_speeds_stand() -> None:
    speeds = Speeds()
    for _ in range(30):
        speeds.observe("c", "fast", 1, 0.1)
    declared = (("fa*", 0.5), ("slow", 1.0))
    assert speeds.relative("new", NOMINAL, declared) == {"fast": pytest.approx(0.5), "slow": 1.0}
    for known in (speeds.relative, speeds.likely):  # the calls of this class happened to be short on the one type
        assert known("c", NOMINAL, declared) == {"fast": pytest.approx(0.5), "slow": 1.0}
    assert speeds.seconds("c", NOMINAL, declared) == {"fast": pytest.approx(0.1), "slow": pytest.approx(0.05)}


def test_steps_are_compared_where_calls_are_of_any_length() -> None:
    """The slow type was given the short calls: by their lengths it would be the faster one."""
    speeds = Speeds()
    for number in range(10):
        speeds.observe("c", "fast", 1, 1000.0 + number)
        speeds.observe("c", "slow", 1, 10.0 + number)
        speeds.observe_steps("c", "fast", 50, 10.0)
        speeds.observe_steps("c", "slow", 50, 100.0)
    assert speeds.likely("c", NOMINAL) == {"fast": 1.0, "slow": pytest.approx(0.1, rel=0.05)}
    assert speeds.relative("c", NOMINAL)["slow"] == pytest.approx(0.1, rel=0.05)
    seconds = speeds.seconds("c", NOMINAL)
    assert seconds["slow"] == pytest.approx(10 * seconds["fast"], rel=0.05)
    assert 10 < seconds["fast"] < 1000  # a call is as long as calls were
    only_steps = Speeds()
    only_steps.observe_steps("c", "fast", 50, 10.0)
    assert only_steps.seconds("c", NOMINAL) == {}  # how long a call is they do not say
    assert only_steps.seconds("c", NOMINAL, runtime=100.0)["slow"] == pytest.approx(100.0)


def test_what_runs_is_not_moved_for_the_mere_chance_of_a_faster_device() -> None:
    """Of two types that should be equal, one was never tried: new work tries it, work that runs hardly gains by it."""
    speeds, equal = Speeds(), {"a": 1.0, "b": 1.0}
    for _ in range(1000):
        speeds.observe("c", "a", 1, 0.1)
    assert speeds.relative("c", equal)["a"] < 0.05
    assert 0.4 < speeds.likely("c", equal)["a"] < 0.6
    assert speeds.likely("c", equal, (("a", 1.0), ("b", 1.0))) == {"a": pytest.approx(1.0), "b": pytest.approx(1.0)}


def test_what_was_learnt_can_be_kept() -> None:
    speeds, again = Speeds(), Speeds()
    for _ in range(9):
        speeds.observe("c", "slow", 2, 0.1)
        speeds.observe("c", "fast", 2, 4.0)
    again.restore(speeds.rows())
    assert again.rows() == speeds.rows()
    assert again.relative("c", NOMINAL)["slow"] == 1.0


@pytest.mark.parametrize("throughput", [{"a": 0}, {"a": -1.0}, {"a": "1"}, {1: 1.0}, "fast", [("a",)], {"a": True}])
def test_bad_throughput_is_refused(throughput: Any) -> None:
    with pytest.raises(UsageError, match="throughput="):
        Request(throughput=throughput)


def test_tasks_go_where_they_were_measured_to_run_fast() -> None:
    world = World(node("a", "1xA100"), node("t", "1xT4"), policy="balanced")
    for number in range(20):
        world.submit(f"r{number}", gpu=1, task_class="odd")
        world.settle()
        lease = world.leases[f"r{number}"].lease
        where = world.placed[f"r{number}"]
        on_t4 = "t/" in where
        world.apply(TasksRan(lease, 1, 0.05 if on_t4 else 1.0))
        world.release(f"r{number}")
        world.settle()
        world.now += 1
    assert where == "t/gpu0"


# -- policies by name ------------------------------------------------------------------------


MINE = Policy("mine", {"roomy": 1.0}, lambda option: {"roomy": option.share_left})
NOT_ONE = TYPES


def test_a_policy_of_ones_own_by_import_path() -> None:
    assert find_policy("test_policies:MINE") is MINE
    assert build_scheduler(PoolConfig(policy="test_policies:MINE")).state.options.policy is MINE
    for path, text in (("nowhere:X", "cannot be imported"), ("test_policies:X", "cannot be imported"),
                       ("test_policies:NOT_ONE", "is a dict, not a")):  # fmt: skip
        with pytest.raises(UnknownPolicy, match=text):
            find_policy(path)


def test_weights_can_be_changed() -> None:
    policy = build_scheduler(PoolConfig(policy_weights={"speed": 0.0})).state.options.policy
    assert policy.weights["speed"] == 0.0 and policy.weights["keeps"] == 1.0
    with pytest.raises(UsageError, match=r"no term 'sped'; its terms: keeps"):
        build_scheduler(PoolConfig(policy_weights={"sped": 1.0}))
