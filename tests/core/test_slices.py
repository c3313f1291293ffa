"""The life of slices: warm reuse, making room, expiry, sessions that end, things that die, late messages."""

from __future__ import annotations

import pytest
from harness import World, kinds, lease_id, node

from flexray.model.commands import GrantLease, StartSlice
from flexray.model.devices import Inventory
from flexray.model.events import (
    LeaseReleased,
    NodeLost,
    NodeReported,
    RequestCancelled,
    RequestSubmitted,
    SessionClosed,
    SessionOpened,
    SliceEnded,
    SliceStarted,
)
from flexray.model.request import Request, request_from_options


def slow(*nodes, **config) -> World:
    """A world in which slices start and stop when the test says so; one A100 unless told otherwise."""
    return World(*(nodes or (node("n1", "1xA100", cpus=8),)), starts=False, stops=False, **config)


def idle(world: World, name: str, **options: object) -> str:
    """Leave a warm slice behind; returns its id."""
    world.submit(name, **options)
    world.settle()
    for slice_id in list(world.starting):
        world.started(slice_id)
    world.settle()
    slice_id = world.leases[name].slice
    world.release(name)
    world.settle()
    return slice_id


# -- warm slices ---------------------------------------------------------------------------


def test_the_way_of_a_request() -> None:
    world = slow()
    world.submit("r", gpu=0.5)
    assert kinds(world.decide()) == ["start s1.1"]
    assert world.decide() == []
    world.started("s1.1")
    assert kinds(world.decide()) == ["grant r#1"]
    world.release("r")
    assert world.decide() == []
    assert world.explain("r") is None
    (left,) = world.snapshot().slices
    assert (left.state, left.request, left.share) == ("idle", "", 0.5)


def test_nothing_is_placed_before_the_cycle(core: World) -> None:
    core.submit("r", gpu=1)
    core.apply(NodeReported(node("n2", "1xA100")))
    assert core.commands == [] and not core.snapshot().slices


@pytest.mark.parametrize(
    ("other", "warm"),
    [
        ({}, True),
        ({"session": "S2"}, True),  # another session of the same environment
        ({"session": "S3"}, False),  # another environment
        ({"task_class": "other"}, False),
        ({"reusable": False}, False),  # an actor wants a fresh process
    ],
)
def test_who_may_have_a_warm_slice(other: dict[str, object], warm: bool) -> None:
    world = slow()
    world.open("S2", "E")
    world.open("S3", "E3")
    first = idle(world, "a", gpu=0.5, task_class="c")
    world.submit("b", **{"gpu": 0.5, "task_class": "c", **other})
    commands = world.decide()
    if warm:
        assert kinds(commands) == ["grant b#1"] and world.leases["b"].slice == first
    else:
        assert kinds(commands) == ["start s1.2"]


def test_the_last_used_of_several_warm_slices_is_taken() -> None:
    world = slow()
    for name in "abc":
        world.submit(name, gpu=0.1)
    world.settle()
    for slice_id in list(world.starting):
        world.started(slice_id)
    world.settle()
    for name in "bca":
        world.now += 1
        world.release(name)
    world.submit("d", gpu=0.1)
    world.settle()
    assert world.leases["d"].slice == "s1.1"


def test_a_slice_that_is_starting_for_nobody_is_taken_over() -> None:
    world = slow()
    world.submit("a", gpu=1)
    world.decide()
    world.apply(RequestCancelled("a"))
    assert world.decide() == []
    world.submit("b", gpu=1)
    assert world.decide() == [] and world.reason("b") == "slice_starting"
    world.started("s1.1")
    assert kinds(world.decide()) == ["grant b#1"]


def test_an_actor_s_starting_slice_is_stopped_when_cancelled() -> None:
    world = slow()
    world.submit("a", gpu=1, reusable=False)
    world.decide()
    world.apply(RequestCancelled("a"))
    assert kinds(world.decide()) == ["stop s1.1 cancelled"]
    world.started("s1.1")  # late
    world.ended("s1.1")
    assert world.settle() == [] and not world.snapshot().slices


def test_no_warm_slice_of_a_suspect_device() -> None:
    world = slow()
    idle(world, "a", gpu=0.5)
    world.apply(NodeReported(node("n1", "1xA100 suspect", cpus=8)))
    world.submit("b", gpu=0.5)
    assert world.settle() == [] and world.reason("b") == "devices_sick"
    world.apply(NodeReported(node("n1", "1xA100", cpus=8)))
    assert kinds(world.decide()) == ["grant b#1"]


# -- making room ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left_idle", "wanted", "stopped"),
    [
        ([0.4, 0.3], {"gpu": 0.3}, []),  # there is room
        ([0.4, 0.3], {"gpu": 0.31}, ["a"]),  # longest idle first
        ([0.4, 0.3], {"gpu": 0.71}, ["a", "b"]),
        ([0.1, 0.3, 0.5], {"gpu": 0.2}, ["a"]),
        ([0.1, 0.3, 0.5], {"gpu": 0.35}, ["b"]),  # a comes first, and is not needed once b goes
        ([0.1, 0.1, 0.6], {"gpu": 0.8}, ["c"]),
        ([0.2, 0.2, 0.2, 0.2], {"gpu": 1}, ["a", "b", "c", "d"]),
        ([0.2, 0.2, 0.2, 0.2], {"gpu": 0.4}, ["a"]),
    ],
)
def test_which_idle_slices_make_room(left_idle: list[float], wanted: dict[str, object], stopped: list[str]) -> None:
    world = slow()
    names = "abcd"[: len(left_idle)]
    for name, share in zip(names, left_idle, strict=True):
        world.submit(name, gpu=share, task_class=name)
    world.settle()
    for slice_id in list(world.starting):
        world.started(slice_id)
    world.settle()
    slices = {name: world.leases[name].slice for name in names}
    for name in names:
        world.now += 1
        world.release(name)
    world.submit("new", **wanted)
    commands = world.decide()
    assert kinds(commands)[: len(stopped)] == [f"stop {slices[name]} make_room" for name in stopped]
    if not stopped:
        assert [type(c) for c in commands] == [StartSlice]
        return
    assert len(commands) == len(stopped) and world.reason("new") == "making_room"
    for name in stopped[:-1]:
        world.ended(slices[name])
        assert world.decide() == []
    world.ended(slices[stopped[-1]])
    assert [type(c) for c in world.decide()] == [StartSlice]
    assert world.reason("new") == "slice_starting"


def test_a_device_without_idle_slices_is_preferred() -> None:
    world = slow(node("n1", "1xA100"), node("n2", "1xA100"))
    warm = idle(world, "a", gpu=1)
    where = next(s.node for s in world.snapshot().slices if s.id == warm)
    world.submit("b", gpu=0.9)
    assert [c.placement.node for c in world.decide()] == [{"n1": "n2", "n2": "n1"}[where]]


def test_idle_slices_make_room_for_host_cores() -> None:
    world = slow(node("n1", "2xA100", cpus=4))
    warm = idle(world, "a", gpu=1, cpus=3)
    world.submit("b", gpu=1, cpus=2)
    assert kinds(world.decide()) == [f"stop {warm} make_room"]
    world.ended(warm)
    assert kinds(world.decide()) == ["start s1.2"]


def test_idle_slices_make_room_for_several_devices() -> None:
    world = slow(node("n1", "2xA100"))
    first = idle(world, "a", gpu=0.2)
    second = idle(world, "b", gpu=1)
    world.submit("c", gpu=2)
    assert kinds(world.decide()) == [f"stop {first} make_room", f"stop {second} make_room"]


def test_several_devices_leave_warm_slices_alone_where_they_can() -> None:
    world = slow(node("n1", "3xA100"))
    world.submit("a", gpu=0.2)
    world.settle()
    world.started("s1.1")
    world.settle()
    warm = world.placed["a"]
    world.release("a")
    world.submit("b", gpu=2)
    (command,) = world.decide()
    assert isinstance(command, StartSlice) and warm not in command.placement.devices
    world.submit("c", gpu=1, types="nvidia/*")
    assert kinds(world.decide()) == ["stop s1.1 make_room"]


def test_warm_slices_stay_while_their_room_is_being_made_elsewhere() -> None:
    """The room of a slice that is stopping is not asked for twice."""
    world = slow()
    idle(world, "a", gpu=0.6)
    world.submit("b", gpu=0.5)
    world.decide()
    world.submit("c", gpu=0.5)
    assert world.decide() == [] and world.reason("c") == "making_room"
    world.ended("s1.1")
    assert kinds(world.decide()) == ["start s1.2", "start s1.3"]


def test_expiry_is_after_the_configured_time_and_not_before() -> None:
    world = slow(warm_seconds=10)
    first = idle(world, "a", gpu=0.1)
    world.now += 4
    second = idle(world, "b", gpu=0.2)
    world.now += 5.9
    assert world.decide() == []
    world.now += 0.1
    assert kinds(world.decide()) == [f"stop {first} expired"]
    world.now += 4
    assert kinds(world.decide()) == [f"stop {second} expired"]


def test_use_starts_the_idle_time_anew() -> None:
    world = slow(warm_seconds=10)
    slice_id = idle(world, "a", gpu=0.1)
    world.now += 9
    assert idle(world, "b", gpu=0.1) == slice_id
    world.now += 9
    assert world.decide() == []


def test_a_slice_that_is_not_reusable_stops_after_its_lease() -> None:
    world = slow()
    world.submit("actor", gpu=0.5, reusable=False)
    world.settle()
    world.started("s1.1")
    world.settle()
    world.release("actor")
    assert kinds(world.decide()) == ["stop s1.1 not_reusable"]


# -- sessions ------------------------------------------------------------------------------


@pytest.mark.parametrize("another_lives", [False, True])
def test_the_end_of_a_session(another_lives: bool) -> None:
    world = slow(node("n1", "3xA100"))
    warm = idle(world, "idle", gpu=1, task_class="warm")
    for name in ("held", "starting"):
        world.submit(name, gpu=1, task_class=name)
        world.settle()
        if name == "held":
            world.started(world.starting[0])
            world.settle()
    world.submit("queued", gpu=3)
    world.settle()
    held, starting = world.leases["held"].slice, "s1.3"
    if another_lives:
        world.open("S2", "E")
    world.apply(SessionClosed("S"))
    assert world.snapshot().waiting == world.snapshot().running == ()
    stops = [f"stop {held} session_ended"]
    if not another_lives:  # what is warm may serve the other one
        stops = [f"stop {held} session_ended", f"stop {starting} cancelled", f"stop {warm} session_ended"]
    assert sorted(kinds(world.decide())) == sorted(stops)
    world.apply(SessionClosed("S"))
    world.apply(LeaseReleased(lease_id("held")))
    assert world.decide() == []
    if another_lives:
        world.submit("next", session="S2", gpu=1, task_class="warm")
        assert kinds(world.decide()) == ["grant next#1"]


def test_the_last_session_takes_the_warm_slices_along() -> None:
    world = slow()
    world.open("S2", "E")
    world.open("S3", "E3")
    warm = idle(world, "a", gpu=0.5)
    for session in ("S", "S3"):
        world.apply(SessionClosed(session))
        assert world.decide() == []
    world.apply(SessionClosed("S2"))
    assert kinds(world.decide()) == [f"stop {warm} session_ended"]


def test_a_slice_released_after_its_environment_ended_is_stopped() -> None:
    """A request may name another environment than its session's (tasks inside slices): it counts."""
    world = slow()
    world.open("S2", "E2")
    world.submit("a", session="S2", environment="E", gpu=0.5)
    world.settle()
    world.started("s1.1")
    world.settle()
    world.apply(SessionClosed("S"))
    world.release("a")
    assert kinds(world.decide()) == ["stop s1.1 session_ended"]


def test_requests_of_an_unknown_session_are_dropped() -> None:
    world = slow()
    world.submit("a", session="ghost", gpu=0.5)
    world.apply(SessionClosed("ghost"))
    assert world.decide() == [] and world.explain("a") is None


# -- what dies -----------------------------------------------------------------------------


def test_a_lost_slice_starts_again_with_the_next_attempt(core: World) -> None:
    core.submit("a", gpu=1)
    core.settle()
    core.ended(core.leases["a"].slice, "killed by the kernel")
    assert kinds(core.settle()) == ["revoke a#1 slice_lost again", "start s1.2", "grant a#2"]
    revoked = next(c for c in core.commands if c.__class__.__name__ == "RevokeLease")
    assert revoked.message == "killed by the kernel"


def test_a_lost_request_keeps_its_place_in_line() -> None:
    world = World(node("n1", "1xA100"))
    for name in ("a", "b", "c"):
        world.submit(name, gpu=1)
        world.settle()
    assert [r.id for r in world.snapshot().waiting] == ["b", "c"]
    world.starts = False
    world.ended(world.leases["a"].slice)
    world.decide()
    assert [r.id for r in world.snapshot().waiting] == ["a", "b", "c"]
    assert world.explain("a").state == "reserved"
    assert [world.explain(name).position for name in "bc"] == [1, 2]


def test_what_cannot_start_again_fails(core: World) -> None:
    core.submit("a", gpu=1, restartable=False)
    core.settle()
    core.ended(core.leases["a"].slice)
    assert kinds(core.settle()) == ["revoke a#1 slice_lost"]
    assert core.explain("a") is None and core.leases == {}


def test_three_failed_starts_and_no_more() -> None:
    world = slow(node("n1", "1xA100"))
    world.submit("a", gpu=1)
    for attempt in (1, 2, 3):
        assert kinds(world.decide()) == [f"start s1.{attempt}"]
        world.failed_to_start(f"s1.{attempt}", f"no driver ({attempt})")
    assert kinds(world.decide()) == ["fail a start_failed"]
    assert world.failed["a"].message == "no driver (3)" and world.explain("a") is None
    assert world.decide() == [] and not world.snapshot().slices


def test_a_start_failure_goes_to_the_request_the_slice_starts_for() -> None:
    world = slow()
    world.submit("a", gpu=1)
    world.decide()
    world.apply(RequestCancelled("a"))
    world.failed_to_start("s1.1")
    world.submit("b", gpu=1)
    for attempt in (2, 3):
        world.decide()
        world.failed_to_start(f"s1.{attempt}")
    assert kinds(world.decide()) == ["start s1.4"]


def test_a_lost_node() -> None:
    world = World(node("n1", "1xA100"), node("n2", "1xT4"))
    world.submit("a", gpu=0.5, types="nvidia/A100*", memory="1GiB")
    world.submit("b", gpu=0.5, memory="1GiB")
    world.submit("warm", gpu=0.1, types="nvidia/A100*")
    world.settle()
    world.release("warm")
    world.apply(NodeLost("n1"))
    world.apply(NodeLost("n1"))
    world.apply(NodeLost("never seen"))
    assert kinds(world.settle()) == ["revoke a#1 node_lost again", "fail a infeasible"]
    assert [d.id for d in world.snapshot().devices] == ["n2/gpu0"]
    assert set(world.placed) == {"b"}
    world.ended("s1.1")  # late
    world.apply(NodeReported(node("n1", "1xA100")))
    assert world.settle() == []
    assert next((d.id, d.share_free) for d in world.snapshot().devices) == ("n1/gpu0", 1.0)


def test_a_device_that_leaves_is_gone_when_its_slices_are() -> None:
    world = slow(node("n1", "2xA100"))
    world.submit("a", gpu=1)
    world.settle()
    world.started("s1.1")
    world.settle()
    gone = world.placed["a"]
    stays = ({"n1/gpu0", "n1/gpu1"} - {gone}).pop()
    both = node("n1", "2xA100")
    rest = tuple(d for d in both.devices if d.id == stays)
    world.apply(NodeReported(type(both)("n1", "n1", rest)))
    assert kinds(world.decide()) == ["revoke a#1 device_lost again", "stop s1.1 device_left", "start s1.2"]
    left = {d.id: d.state for d in world.snapshot().devices}
    assert left == {gone: "lost", stays: "ready"}, "in the books until its slice has ended, for nothing new"
    world.started("s1.2")
    world.settle()
    assert world.placed == {"a": stays} and world.leases["a"].lease.attempt == 2
    world.ended("s1.1")
    assert [d.id for d in world.snapshot().devices] == [stays]
    world.apply(NodeReported(both))
    assert {d.id: d.state for d in world.snapshot().devices} == {gone: "ready", stays: "ready"}


def test_a_device_leaves_at_once_when_a_slice_was_only_planned_on_it() -> None:
    world = slow(node("n1", "1xA100 1xT4", cpus=2))
    idle(world, "a", gpu=1, cpus=2, types="nvidia/A100*")
    world.submit("b", gpu=1, cpus=1, types="nvidia/T4")
    assert kinds(world.decide()) == ["stop s1.1 make_room"]
    world.apply(NodeReported(node("n1", "1xA100", cpus=2)))
    assert [d.id for d in world.snapshot().devices] == ["n1/gpu0"]
    assert kinds(world.decide()) == ["fail b infeasible"]


def test_a_device_that_is_suspect_keeps_what_runs_and_takes_nothing_new() -> None:
    world = World(node("n1", "1xA100"))
    world.submit("a", gpu=0.5)
    world.settle()
    world.apply(NodeReported(node("n1", "1xA100 suspect")))
    world.submit("b", gpu=0.25)
    assert world.settle() == []
    assert world.reason("b") == "devices_sick" and set(world.placed) == {"a"}
    world.apply(NodeReported(node("n1", "1xA100")))
    world.settle()
    assert set(world.placed) == {"a", "b"}


def test_a_device_joins_when_ray_releases_it() -> None:
    world = World(node("n1", "1xA100 unclaimed"))
    world.submit("a", gpu=1)
    world.settle()
    assert world.reason("a") == "used_by_ray"
    world.apply(NodeReported(node("n1", "1xA100")))
    world.settle()
    assert world.placed == {"a": "n1/gpu0"}


# -- late and repeated messages ------------------------------------------------------------


def test_messages_of_an_old_attempt_are_dropped(core: World) -> None:
    core.submit("a", gpu=1)
    core.settle()
    core.ended(core.leases["a"].slice)
    core.settle()
    before = core.snapshot()
    core.apply(LeaseReleased(lease_id("a", 1)))
    core.apply(LeaseReleased(lease_id("a", 3)))
    core.ended("s1.1")
    core.started("s1.1")
    core.failed_to_start("s1.1")
    assert core.decide() == [] and core.snapshot() == before
    assert core.leases["a"].lease == lease_id("a", 2)


def test_repeated_messages_change_nothing() -> None:
    events = [
        NodeReported(node("n1", "2xA100")),
        SessionOpened("S9", "E"),
        RequestSubmitted("a", "S9", "E", "c", request_from_options({"gpu": 1})),
        RequestSubmitted("x", "S9", "E", "d", request_from_options({"gpu": 1})),
        RequestCancelled("x"),
        SliceStarted("s1.1"),
        LeaseReleased(lease_id("a")),
        SliceEnded("s1.1"),
        NodeLost("n1"),
        SessionClosed("S9"),
    ]
    once, twice = slow(node("n1", "2xA100")), slow(node("n1", "2xA100"))
    for event in events:
        once.apply(event)
        twice.apply(event)
        if not isinstance(event, RequestSubmitted) or event.id == "a":
            assert once.decide() == twice.decide()
        twice.apply(event)
        assert once.decide() == twice.decide()
        assert once.snapshot() == twice.snapshot()
    assert [c for c in once.commands if isinstance(c, GrantLease)]


def test_cancelling_what_holds_a_lease_is_ignored(core: World) -> None:
    core.submit("a", gpu=1)
    core.settle()
    core.apply(RequestCancelled("a"))
    core.apply(RequestCancelled("never seen"))
    assert core.settle() == [] and core.explain("a").state == "leased"


def test_a_cancelled_plan_frees_what_was_promised() -> None:
    world = slow()
    warm = idle(world, "a", gpu=1)
    world.submit("b", gpu=0.6)
    assert kinds(world.decide()) == [f"stop {warm} make_room"]
    world.submit("c", gpu=0.6, types="nvidia/*")
    world.decide()
    assert world.reason("c") == "no_room"
    world.apply(RequestCancelled("b"))
    assert world.decide() == [] and world.reason("c") == "making_room"
    world.ended(warm)
    assert kinds(world.decide()) == ["start s1.3"]


# -- views ---------------------------------------------------------------------------------


def test_explanations_along_the_way() -> None:
    world = slow(node("n1", "1xA100 2xT4"), node("n2", "1x910B"))
    needs = {"gpu": 1, "types": "nvidia/A100*", "priority": 1}
    for name in ("a", "b"):
        world.submit(name, **needs)
    world.submit("c", gpu=1, types="nvidia/A100*")
    world.decide()
    a, b, c = (world.explain(name) for name in "abc")
    assert (a.state, a.wait_reason, a.position, a.devices) == ("reserved", "slice_starting", 0, ("n1/gpu0",))
    assert a.lease is None and 0 < sum(value for _, value in a.scores) <= 1
    assert [name for name, _ in a.scores] == ["specific", "undisturbed", "fit"]
    assert (b.state, b.wait_reason, b.position, b.devices, b.lease) == ("queued", "no_room", 1, (), None)
    assert dict(b.removed) == {"family": 1, "type": 2} and dict(b.busy) == {"no_room": 1}
    assert c.position == 2 and "has to end" in c.needs
    assert "waits for no_room (position 1)" in str(b) and "never fits: 1 by family, 2 by type" in str(b)
    world.started("s1.1")
    world.decide()
    a = world.explain("a")
    assert (a.state, a.wait_reason, a.needs, a.lease) == ("leased", "", "", lease_id("a"))
    assert "score: " in str(a) and "on n1/gpu0" in str(a)
    world.ended("s1.1")
    world.apply(NodeReported(node("n1", "1xA100 sick 2xT4")))
    world.decide()
    assert world.explain("a").lease is None, "it lost the lease it had"
    assert (world.explain("a").wait_reason, world.explain("a").position) == ("devices_sick", 1)
    assert world.explain("nobody") is None


def test_snapshot_adds_up() -> None:
    world = World(node("n1", "2xA100", cpus=8), node("n2", "1xT4 1x910B", cpus=4))
    loads = [{"gpu": 0.25, "cpus": 1}, {"gpu": 0.6, "memory": "3GiB"}, {"gpu": 2}, {"npu": 0.125}, {"gpu": 2}]
    for at, options in enumerate(loads):
        world.submit(f"r{at}", **options)
    world.settle()
    world.release("r1")
    world.settle()
    shot = world.snapshot()
    for device in shot.devices:
        here = [s for s in shot.slices if device.id in s.devices]
        assert device.share_held + device.share_free == 1
        assert device.memory_held + device.memory_free == device.memory
        assert round(device.share_held * 1000) == sum(round(s.share * 1000) for s in here)
        assert device.memory_held == sum(s.memory for s in here)
        assert device.slices == tuple(s.id for s in here)
    (queue,) = shot.queues
    assert (queue.running, queue.waiting) == (len(shot.running), len(shot.waiting))
    assert queue.running + queue.waiting == 4
    held = sum(s.share * len(s.devices) for s in shot.slices if s.request)
    assert queue.devices_held == pytest.approx(held) and held < sum(d.share_held for d in shot.devices)
    assert {n.id: n.cpus - n.cpus_free for n in shot.nodes} in ({"n1": 1, "n2": 0}, {"n1": 0, "n2": 1})
    assert shot.now == world.now and {r.state for r in shot.running} == {"leased"}


def test_requests_know_nothing_of_each_other_s_options() -> None:
    assert Request() == Request() and hash(Request(types=("a",))) == hash(Request(types=["a"]))


def test_a_request_nobody_has_looked_at_yet_does_not_blame_ray(core: World) -> None:
    core.submit("a", gpu=1)
    assert core.reason("a") != "used_by_ray"


def test_a_planned_slice_does_not_start_on_a_sick_device() -> None:
    world = slow(node("n1", "1xT4"))
    warm = idle(world, "a", gpu=1)
    world.submit("b", gpu=0.5)
    world.decide()
    world.apply(NodeReported(node("n1", "1xT4 sick")))
    world.ended(warm)
    assert world.decide() == []


@pytest.mark.parametrize(
    ("now", "options"), [(node("n1", "1xT4", cpus=8), {"cpus": 8}), (node("n1", "1xA100"), {"memory": "80GiB"})]
)
def test_a_node_that_reports_more_has_more(now: Inventory, options: dict[str, object]) -> None:
    world = World(node("n1", "1xT4"))
    world.apply(NodeReported(now))
    world.submit("a", gpu=1, **options)
    world.settle()
    assert set(world.placed) == {"a"}
