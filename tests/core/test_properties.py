"""Nothing bad ever, something good eventually: random histories on some devices, checked against a ledger of their own.

The books are checked after every event and cycle (``harness``); here they are also compared, at every step, with
what the commands alone say: what StartSlice took and what has not ended since.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from random import Random
from typing import Any

from harness import World, kinds, node
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flexray.catalog import profiles_of
from flexray.core.records import SliceRecord
from flexray.model.amounts import share_of
from flexray.model.commands import (
    AnswerResize,
    GrantLease,
    RecallLease,
    ResizeSlice,
    RevokeLease,
    StartSlice,
    StopSlice,
)
from flexray.model.devices import Cordon, DeviceState, Inventory
from flexray.model.events import (
    DeviceCordoned,
    DeviceUncordoned,
    LeaseBlocked,
    LeaseCheckpointed,
    LeaseUnblocked,
    LeaseYielded,
    NodeLost,
    NodeReported,
    RecoveryEnded,
    RequestCancelled,
    ResizeAsked,
    ResizeRefused,
    SessionClosed,
    SliceFound,
    SliceResized,
)
from flexray.model.gang import Gang
from flexray.model.lease import Placement
from flexray.model.lifecycle import EndReason, RequestState, SliceState
from flexray.model.request import Request, request_from_options

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
NODES = {"n0": ("4xA100", 8), "n1": ("4xT4", 8), "n2": ("2xA10", 4), "n3": ("2xMIG", 8), "n4": ("1xvNPU", 4)}
#: fixed parts: share, MiB, places, and how many fit on a device; the smallest that is enough is granted.
PARTS = {
    "nvidia/A100-40GB": [
        (142, 5120, 1, 7), (142, 10240, 2, 4), (285, 10240, 2, 3), (428, 20480, 4, 2), (571, 20480, 4, 1),
        (1000, 40960, 8, 1),
    ],
    "ascend/910B3": [(250, 16384, 0, 4), (500, 32768, 0, 2), (1000, 65536, 0, 1)],
}  # fmt: skip
MOST_REQUESTS = 1000

shares = st.one_of(
    st.integers(1, 1000).map(lambda n: n / 1000), st.sampled_from([0.18, 0.25, 0.333, 0.5, 0.6, 1, 2, 4])
)
wanted = st.fixed_dictionaries(
    {"accelerator": shares},
    optional={
        "memory": st.sampled_from(["1MiB", "1GiB", "9GiB", "17GiB", "70GiB", "100GiB"]),
        "types": st.sampled_from(
            ["nvidia/A100*", "nvidia/A100-40GB", "ascend/*", "nvidia/T4", ("nvidia/T4", "nvidia/A10"), "amd/*"]
        ),
        "cpus": st.sampled_from([0.5, 2, 6]),
        "priority": st.integers(-1, 1),
        "request": st.just(Request(preemptible=True)),
        "gang": st.sampled_from([1, 2, 3, 5, (1, 4), (2, 3), Gang(4, 2, "spread")]),
    },
)
pick = st.integers(0, 10**6)


def _choose(things: list[Any], number: int) -> Any:
    return things[number % len(things)]


def _part(kind: str, request: Request) -> tuple[int, int, int, int] | None:
    """The fixed part that a request is granted on a type that is cut."""
    whole = kind == "ascend/910B3" and request.share == 1000  # it is not cut then, and takes the memory it asks for
    for share, memory, width, most in PARTS[kind]:
        enough = share + 1 >= request.share and (share < 1000 or request.share == 1000 or width)
        if enough and memory >= (request.memory or 0):
            return share, (request.memory or memory) if whole else memory, width, most
    return None


def _fits_somewhere(request: Request) -> bool:
    """Whether an empty, healthy pool could hold it; written without the core's filters."""
    for inventory in (node(name, what, cpus) for name, (what, cpus) in NODES.items()):  # each has a type of its own
        kind = inventory.devices[0].type
        memory = share_of(kind.memory, request.share) if request.memory is None else request.memory
        typed = not request.types or any(fnmatchcase(kind.name, pattern) for pattern in request.types)
        of_family = request.family in ("any", inventory.devices[0].family)
        if not typed or not of_family or memory > kind.memory:
            continue
        on_each = min(1000 // request.share, kind.memory // memory if memory else 1000)
        if kind.name in PARTS:
            part = _part(kind.name, request)
            if part is None:
                continue
            on_each = part[3]
        members = (
            len(inventory.devices) * on_each if request.devices == 1 else len(inventory.devices) // request.devices
        )
        members = min(members, inventory.cpus // request.cpus if request.cpus else members)
        if members >= (request.gang.enough if request.gang is not None else 1):
            return True
    return False


def _larger(one: Placement, other: Placement) -> Placement:
    return replace(one, share=max(one.share, other.share), memory=max(one.memory, other.memory))


def _root(name: str) -> str:
    """The request that was submitted: members of a gang are called ``r7.0``, ``r7.1`` and so on."""
    return name.split(".")[0]


class Pool(RuleBasedStateMachine):
    """Sessions S, S2 (of one environment) and S3 ask; slices start, fail, stop and die; devices come and go."""

    def __init__(self) -> None:
        super().__init__()
        terms = {
            "warm_seconds": 30,
            "lease_term_seconds": 3,
            "rematch_seconds": 3,
            "patience_seconds": 9,
            "drain_seconds": 3,
        }
        self.world = World(starts=False, stops=False, **terms)
        self.ledger: dict[str, tuple[Placement, int]] = {}
        self.asked: dict[str, Request] = {}
        self.ended: set[str] = set()
        self.start_failures: Counter[str] = Counter()
        #: slices that are getting another size: before, after; what leases have that were given another one.
        self.resizing: dict[str, tuple[Placement, Placement]] = {}
        self.sizes: dict[str, tuple[int, int]] = {}
        self.seen = 0

    def _inventory(self, name: str, state: str = "") -> Inventory:
        return node(name, f"{NODES[name][0]} {state}", NODES[name][1])

    def _note(self) -> None:
        """Bring the ledger up to date with the commands."""
        for command in self.world.commands[self.seen :]:
            if isinstance(command, StartSlice):
                record = self.world.scheduler.state.slices.by_id[command.slice]
                self.ledger[command.slice] = (command.placement, record.host[0])
            elif isinstance(command, ResizeSlice) and command.slice in self.ledger:
                before, cores = self.ledger[command.slice]
                self.resizing[command.slice] = (before, command.placement)
                self.ledger[command.slice] = (_larger(before, command.placement), cores)
            elif isinstance(command, AnswerResize) and command.placement is not None:
                self.sizes[command.lease.request] = (command.placement.share, command.placement.memory)
            elif isinstance(command, GrantLease):
                self.sizes.pop(command.lease.lease.request, None)
                assert command.lease.placement == self.ledger[command.lease.slice][0]
        self.seen = len(self.world.commands)

    @initialize()
    def join(self) -> None:
        for name in NODES:
            self.world.apply(NodeReported(self._inventory(name)))
        self.world.open("S2", "E")
        self.world.open("S3", "E3")

    # -- what happens --------------------------------------------------------------------

    @rule(options=wanted, count=st.integers(1, 60), session=st.sampled_from(["S", "S2", "S3"]),
          actor=st.integers(0, 5))  # fmt: skip
    def submit(self, options: dict[str, Any], count: int, session: str, actor: int) -> None:
        for _ in range(min(count, MOST_REQUESTS - len(self.asked))):
            name = f"r{len(self.asked)}"
            self.asked[name] = request_from_options(options)
            self.world.submit(name, session=session, reusable=actor > 0, **options)

    @rule()
    def cycle(self) -> None:
        self.world.decide()
        self._note()
        for _ in range(MOST_REQUESTS):  # each asks leases back for the heads of the lines, those behind them are next
            if not (again := self.world.decide()):
                break
            self._note()
            more = [command for command in again if not isinstance(command, RecallLease)]
            assert not more, f"a second cycle at the same instant has nothing else to do: {kinds(more)}"
        else:
            raise AssertionError("cycles at the same instant come to no end")

    @rule(seconds=st.sampled_from([0.5, 3, 31]))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds
        self.world.decide()

    @rule()
    def work_gives_way(self) -> None:
        asked = self.world.scheduler.state.evictions
        for lease in [one for one in self.world.leases.values() if one.slice in asked]:
            self.world.apply(LeaseYielded(lease.lease))

    @precondition(lambda self: self.world.leases)
    @rule(number=pick)
    def work_is_stored(self, number: int) -> None:
        name = _choose(list(self.world.leases), number)
        self.world.apply(LeaseCheckpointed(self.world.leases[name].lease))

    @precondition(lambda self: self.world.starting)
    @rule(number=pick, how_many=st.integers(1, 20))
    def slices_start(self, number: int, how_many: int) -> None:
        for _ in range(min(how_many, len(self.world.starting))):
            self.world.started(_choose(self.world.starting, number))

    @precondition(lambda self: self.world.starting)
    @rule(number=pick)
    def slice_fails(self, number: int) -> None:
        name = _choose(self.world.starting, number)
        self.start_failures[self.world.scheduler.state.slices.by_id[name].request or ""] += 1
        del self.ledger[name]
        self.world.failed_to_start(name)

    @precondition(lambda self: self.world.stopping)
    @rule(number=pick, how_many=st.integers(1, 20))
    def slices_stop(self, number: int, how_many: int) -> None:
        for _ in range(min(how_many, len(self.world.stopping))):
            name = _choose(self.world.stopping, number)
            del self.ledger[name]
            self.world.ended(name)

    @precondition(lambda self: self.world.leases)
    @rule(number=pick, how_many=st.integers(1, 20))
    def leases_end(self, number: int, how_many: int) -> None:
        for _ in range(min(how_many, len(self.world.leases))):
            name = _choose(list(self.world.leases), number)
            self.ended.add(_root(name))
            self.world.release(name)

    @precondition(lambda self: self.world.leases)
    @rule(number=pick)
    def slice_dies(self, number: int) -> None:
        name = _choose(list(self.world.leases), number)
        slice_id = self.world.leases[name].slice
        del self.ledger[slice_id]
        self.world.ended(slice_id)
        self.world.decide()

    @precondition(lambda self: self.world.leases)
    @rule(
        number=pick,
        share=st.none() | st.sampled_from([20, 60, 150, 300, 600, 1000]),
        memory=st.none() | st.integers(1, 9000),
    )
    def lease_asks_for_another_size(self, number: int, share: int | None, memory: int | None) -> None:
        name = _choose(list(self.world.leases), number)
        self.world.apply(ResizeAsked(self.world.leases[name].lease, share, memory))
        self.world.decide()  # what is booked for it is in the ledger once the command is out

    @precondition(lambda self: self.world.resizing)
    @rule(number=pick, done=st.booleans())
    def slice_has_its_new_size_or_not(self, number: int, done: bool) -> None:
        self._note()
        name = _choose(self.world.resizing, number)
        before, after = self.resizing.pop(name)
        runs = any(lease.slice == name for lease in self.world.leases.values())
        if runs and self.world.scheduler.state.slices.by_id[name].request:
            self.ledger[name] = (after if done else before, self.ledger[name][1])
        self.world.apply(SliceResized(name) if done else ResizeRefused(name, "stuck"))
        self.world.decide()

    @precondition(lambda self: self.asked)
    @rule(number=pick)
    def cancel(self, number: int) -> None:
        name = _choose(list(self.asked), number)
        if name not in self.world.leases:
            self.ended.add(name)
        self.world.apply(RequestCancelled(name))
        for member in [one for one in self.world.leases if one.startswith(f"{name}.")]:
            self.world.release(member)

    @precondition(lambda self: self.world.leases)
    @rule(number=pick)
    def lease_blocks(self, number: int) -> None:
        name = _choose(list(self.world.leases), number)
        self.world.block(name, "nobody's class")

    @rule(name=st.sampled_from(sorted(NODES)), state=st.sampled_from(["", "sick", "unclaimed", "suspect", "lost"]))
    def node_reports(self, name: str, state: str) -> None:
        self.world.apply(NodeReported(self._inventory(name, state)))

    @rule(device=st.sampled_from(["n0/gpu0", "n0/gpu3", "n1/gpu1", "n2/gpu0"]), drain=st.booleans())
    def operator_cordons(self, device: str, drain: bool) -> None:
        self.world.apply(DeviceCordoned(Cordon(device, drain=drain)))

    @rule(device=st.sampled_from(["n0/gpu0", "n0/gpu3", "n1/gpu1", "n2/gpu0"]))
    def operator_uncordons(self, device: str) -> None:
        self.world.apply(DeviceUncordoned(device))

    @rule(name=st.sampled_from(sorted(NODES)))
    def node_restarts(self, name: str) -> None:
        self.world.decide()
        self._note()
        self.ledger = {s: (place, cpus) for s, (place, cpus) in self.ledger.items() if place.node != name}
        self.world.apply(NodeLost(name))
        self.world.node_is_gone(name)
        self.world.apply(NodeReported(self._inventory(name)))
        self.world.decide()

    @rule(session=st.sampled_from(["S", "S2", "S3"]))
    def session_restarts(self, session: str) -> None:
        self.world.decide()
        state = self.world.scheduler.state
        self.ended |= {_root(r.id) for r in state.requests.values() if r.session == session}
        self.world.apply(SessionClosed(session))
        self.world.session_is_gone(session)
        self.world.open(session, "E3" if session == "S3" else "E")

    # -- the scheduler restarts ----------------------------------------------------------

    @rule(random=st.randoms(use_true_random=False), dead=st.sampled_from(["", "", "S", "S3"]))
    def scheduler_restarts(self, random: Random, dead: str) -> None:
        """Nodes and sessions come in any order, some when it is too late, and one perhaps never."""
        self.world.decide()
        self._note()
        self._settle_sizes()
        before = self.world.scheduler.state
        asked_back = {
            name: {"recalled": held is not None and held.state is RequestState.DRAINING,
                   "stop": lease.slice in before.evictions}
            for name, lease in self.world.leases.items()
            for held in [before.requests.get(name)]
        }  # fmt: skip
        slices = {name: before.slices.by_id[name] for name in self.ledger}
        if dead:
            self.ended |= {_root(r.id) for r in before.requests.values() if r.session == dead}
            self.world.session_is_gone(dead)
        blocked = [(lease, one) for lease, one in before.blocked.items() if one.session != dead]
        self.world.scheduler.decide(self.world.now + 1)  # what it decides now nobody hears of
        self.world.restart()
        cordons = [DeviceCordoned(cordon) for cordon in before.cordons.by_device.values()]
        for event in cordons:
            self.world.apply(event)
        comers: list[Callable[[], None]] = [partial(self._node_comes, name, slices) for name in NODES]
        comers += [partial(self._session_comes, s, asked_back, blocked) for s in ("S", "S2", "S3") if s != dead]
        comers.append(lambda: self.world.apply(RecoveryEnded()))
        random.shuffle(comers)
        for come in comers:
            come()
            assert not self.world.scheduler.state.recovery or all(
                isinstance(one, (StopSlice, RevokeLease, AnswerResize)) for one in self.world.decide()
            )
            self.books_are_the_sum_of_what_was_started()
            self._note()
        if dead:
            self.world.open(dead, "E3" if dead == "S3" else "E")

    def _settle_sizes(self) -> None:
        """Changes of size that are under way come to nothing."""
        for name, (before, _) in self.resizing.items():
            if name in self.ledger:
                self.ledger[name] = (before, self.ledger[name][1])
        self.resizing.clear()
        self.world.resizing.clear()

    def _node_comes(self, name: str, slices: dict[str, SliceRecord]) -> None:
        world = self.world
        world.scheduler.apply(NodeReported(self._inventory(name)), world.now)
        for slice_id, (place, _) in self.ledger.items():
            record = slices.get(slice_id)
            if place.node != name or record is None:
                continue
            state = SliceState.STARTING if slice_id in world.starting else SliceState.IDLE
            state = SliceState.STOPPING if slice_id in world.stopping else state
            facts = (record.environment, record.task_class, record.reusable, record.host)
            world.apply(SliceFound(slice_id, place, *facts, state, record.resized))

    def _session_comes(self, session: str, asked_back: dict[str, Any], blocked: list[Any]) -> None:
        world = self.world
        world.open(session, "E3" if session == "S3" else "E")
        for lease, one in blocked:
            if one.session == session:
                world.apply(LeaseBlocked(lease, session, one.waits_for))
        own = [name for name in self.asked if world.submitted[name][1].session == session]
        held = {_root(name): [] for name in world.leases}
        for name in world.leases:
            held[_root(name)].append(name)
        for name in own:
            for member in held.get(name, ()):
                world.apply(world.holds(member, **asked_back[member], closing=name in self.ended))
            if name not in held and name not in self.ended and name not in world.failed:
                world.apply(world.again(name))

    # -- what always holds ---------------------------------------------------------------

    @invariant()
    def books_are_the_sum_of_what_was_started(self) -> None:
        self._note()
        share: Counter[str] = Counter()
        memory: Counter[str] = Counter()
        cpus: Counter[str] = Counter()
        places: set[tuple[str, int]] = set()
        for place, cores in self.ledger.values():
            cpus[place.node] += cores
            for at in range(place.start, place.start + self._width(place)):
                assert not {(device, at) for device in place.devices} & places, "two parts on one place"
                places |= {(device, at) for device in place.devices}
            for device in place.devices:
                share[device] += place.share
                memory[device] += place.memory
        shot = self.world.snapshot()
        for device in shot.devices:
            assert share[device.id] <= 1000 and memory[device.id] <= device.memory
            assert round(device.share_held * 1000) == share[device.id]
            assert device.memory_held == memory[device.id]
        for n in shot.nodes:
            assert round((n.cpus - n.cpus_free) * 1000) == cpus[n.id] <= n.cpus * 1000

    @staticmethod
    def _width(place: Placement) -> int:
        parts = profiles_of("nvidia/A100-40GB")
        return next((part.width for part in parts if part.name == place.profile), 0)

    @invariant()
    def every_lease_has_a_slice_of_its_own(self) -> None:
        slices = [lease.slice for lease in self.world.leases.values()]
        assert len(set(slices)) == len(slices) and set(slices) <= set(self.ledger)
        for name, lease in self.world.leases.items():
            asked = self.asked[_root(name)]
            place = lease.placement
            if name in self.sizes:
                assert (place.share, place.memory, asked.devices) == (*self.sizes[name], 1)
                continue
            assert len(place.devices) == asked.devices
            if lease.device_type in PARTS:
                part = _part(lease.device_type, asked)
                assert part is not None and (place.share, place.memory) == part[:2]
                assert (place.start >= 0) == (lease.device_type == "nvidia/A100-40GB")
            else:
                assert place.share == asked.share and asked.memory in (None, place.memory)
            assert {device.split("/")[0] for device in lease.placement.devices} == {lease.placement.node}

    @invariant()
    def only_what_can_never_run_fails(self) -> None:
        for name, failure in self.world.failed.items():
            if failure.reason is EndReason.START_FAILED:
                assert max(n for member, n in self.start_failures.items() if _root(member) == name) >= 3
            else:
                assert failure.reason is EndReason.INFEASIBLE and not _fits_somewhere(self.asked[name])

    # -- what happens in the end ---------------------------------------------------------

    def teardown(self) -> None:
        """Nothing arrives any more, everything that runs ends, all devices are well: then everybody gets a turn."""
        world = self.world
        if not world.scheduler.state.pool.nodes:
            return
        for device in list(world.scheduler.state.cordons.by_device):
            world.apply(DeviceUncordoned(device))
        for name in NODES:
            world.apply(NodeReported(self._inventory(name)))
        world.starts = world.stops = True
        rounds = 0
        while world.scheduler.state.requests:
            rounds += 1
            assert rounds <= 2 * MOST_REQUESTS, f"still waiting: {world.snapshot().waiting[:3]}"
            world.wait(1)
            for lease in list(world.scheduler.state.blocked):
                world.apply(LeaseUnblocked(lease))
            for name in list(world.leases):
                self.ended.add(_root(name))
                world.release(name)
        world.settle()
        assert set(self.asked) == self.ended | set(world.failed)
        assert not world.leases and not world.scheduler.state.lines and not world.scheduler.state.gangs
        world.wait(31)
        assert not world.snapshot().slices
        assert {d.share_free for d in world.snapshot().devices} == {1.0}
        assert all(d.state == DeviceState.READY.value for d in world.snapshot().devices)


TestPool = Pool.TestCase
TestPool.settings = settings(
    max_examples=1000 if NIGHTLY else 40,
    stateful_step_count=100 if NIGHTLY else 40,
    deadline=None,
    derandomize=not NIGHTLY,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
