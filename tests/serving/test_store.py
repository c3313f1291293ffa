"""Many models, few devices: what is loaded, parked, stopped and evicted, decided without Ray or a clock."""

from __future__ import annotations

from typing import Any

import pytest

from flexray.errors import InvalidRequest
from flexray.serving.declared import Model, model
from flexray.serving.store import Copy, Do, Room, State, Store

DEVICE = 1000


class Parks:
    def park(self) -> None: ...

    def unpark(self) -> None: ...


def declared(name: str, **options: Any) -> Model:
    return model(name, Parks, **{"gpu": 0.5, **options})


def store(*models: Model) -> Store:
    return Store({one.name: one for one in models})


def steps(books: Store, now: float = 0.0) -> list[str]:
    return [f"{what.value} {copy.model.name}{copy.number}" for what, copy in books.next_steps(now)]


def ready(books: Store, name: str, device: str = "g0", now: float = 0.0) -> Copy:
    """A replica that was asked for and is there."""
    books.records[name].waiting += 1
    ((what, copy),) = books.next_steps(now)
    books.records[name].waiting -= 1
    assert what is Do.LOAD
    copy.device, copy.share, copy.memory = device, 0.5, DEVICE // 2
    books.loaded(copy, 4.0, now)
    return copy


def room(device: str = "g0", share: float = 0.0, **more: Any) -> Room:
    return Room(**{
        "device": device, "type": "nvidia/A100", "family": "gpu", "share": share, "memory": int(share * DEVICE),
        "total_memory": DEVICE, **more,
    })  # fmt: skip


def test_what_is_asked_for_is_loaded_once() -> None:
    books = store(declared("a"), declared("b", replicas=(1, 1)))
    assert steps(books) == ["load b1"], "the least that it wants, nobody having asked"
    books.records["a"].waiting = 3
    assert steps(books) == ["load a2"] and steps(books) == []


def test_more_requests_than_one_takes_load_another_up_to_the_most() -> None:
    books = store(declared("a", replicas=(0, 2), max_ongoing_requests=2))
    first = ready(books, "a")
    first.in_flight = 2
    assert books.choose("a") is None
    books.records["a"].waiting = 9
    assert steps(books) == ["load a2"] and steps(books) == []
    second = books.copies[1]
    books.loaded(second, 1.0, 0.0)
    assert books.choose("a") is second
    first.in_flight = 0
    assert books.choose("a") is first
    first.leaving = True
    assert books.choose("a") is second


@pytest.mark.parametrize(("parked", "step"), [(None, "stop"), ({"gpu": 0.01}, "park")])
def test_what_idles_goes_unless_it_is_to_be_there(parked: dict[str, float] | None, step: str) -> None:
    books = store(declared("a", replicas=(1, 2), idle_seconds=60, parked=parked, max_ongoing_requests=1))
    first = ready(books, "a")
    first.in_flight = 1
    second = ready(books, "a")
    first.used_at, second.used_at = 10.0, 20.0
    assert steps(books, 79) == []
    first.in_flight = 0
    assert steps(books, 69) == []
    assert steps(books, 100) == [f"{step} a1"], "the one that was used least lately; one stays"
    first.in_flight = 1
    assert steps(books, 100) == [f"{step} a2"]


def test_idle_replicas_beside_one_that_comes_back_are_parked_for_it() -> None:
    books = store(*(declared(name, parked={"gpu": 0.01}) for name in "abcd"), declared("e"))
    back, idle, busy = ready(books, "a"), ready(books, "b"), ready(books, "c")
    ready(books, "d", device="g1")
    ready(books, "e")
    back.state, busy.in_flight = State.UNPARKING, 1
    assert books.beside(back) == [idle, busy] and books.parks_for(back, 1.0) is idle
    idle.state = State.PARKED
    assert books.parks_for(back, 1.0) is None and books.beside(back) == [busy]
    busy.in_flight, books.records["c"].waiting = 0, 1
    assert books.parks_for(back, 1.0) is None, "somebody waits for it"


def test_a_parked_replica_comes_back_before_another_is_loaded() -> None:
    books = store(declared("a", parked={"gpu": 0.01}))
    copy = ready(books, "a")
    copy.state = State.PARKED
    assert books.choose("a") is None and steps(books) == []
    books.records["a"].waiting = 1
    assert steps(books) == ["unpark a1"] and steps(books) == []
    books.unparked(copy, 0.2, 5.0)
    assert books.choose("a") is copy
    assert (books.records["a"].cold_starts, books.records["a"].unparked) == (1, 1)


def test_a_load_that_failed_is_tried_again_later() -> None:
    books = store(declared("a"))
    books.records["a"].waiting = 1
    ((_, copy),) = books.next_steps(0.0)
    books.failed(copy, "no weights", 4.0)
    assert books.records["a"].failure == "no weights"
    assert steps(books, 7.9) == [] and steps(books, 8.1) == ["load a2"]


def test_a_load_that_nobody_waits_for_any_more_leaves_the_line_but_goes_on_once_it_has_a_slice() -> None:
    books = store(declared("a", wait_seconds=10), declared("b", wait_seconds=10))
    for name in "ab":
        books.records[name].waiting = 1
    first, second = (copy for _, copy in books.next_steps(0.0))
    second.in_line = False
    assert steps(books, 11) == []
    for name in "ab":
        books.records[name].waiting = 0
    assert steps(books, 9) == [] and steps(books, 11) == ["stop a1"] and first is not second


def test_a_replica_that_has_to_leave_is_replaced_and_stopped_when_it_is_done() -> None:
    books = store(declared("a", replicas=(1, 1)))
    ((_, copy),) = books.next_steps(0.0)
    books.loaded(copy, 1.0, 0.0)
    copy.leaving, copy.in_flight = True, 1
    assert steps(books) == ["load a2"]
    copy.in_flight = 0
    assert steps(books) == ["stop a1"]


def test_the_least_valuable_idle_replicas_make_room() -> None:
    names = ("a", "b", "c", "d")
    books = store(*(declared(name, idle_seconds=1e9) for name in names))
    copies = {name: ready(books, name, device) for name, device in zip(names[:3], ("g0", "g0", "g1"), strict=True)}
    for name, count in (("a", 5), ("b", 2), ("c", 9)):
        for _ in range(count):
            books.arrived(name, 0.0)
    books.records["d"].waiting = 1
    ((_, wanted),) = books.next_steps(0.0)
    rooms = [room("g0"), room("g1", 0.25)]
    assert books.victims(wanted, rooms, 0.0) == [copies["b"]]
    assert books.records["b"].evicted == 1
    assert books.victims(wanted, rooms, 1.0) == [], "the room that was made is given time to be taken"
    copies["b"].in_flight = 1
    assert books.victims(wanted, rooms, 10.0) == [copies["a"]], "who works stays"
    books.records["a"].waiting = 1
    assert books.victims(wanted, rooms, 20.0) == [copies["c"]], "what is asked for stays"


def test_a_slow_start_and_recent_use_make_a_model_worth_keeping() -> None:
    books = store(declared("slow"), declared("old"), declared("new"))
    slow, old, new = (ready(books, name) for name in ("slow", "old", "new"))
    books.records["slow"].cold_seconds = 60.0
    for name, at in (("slow", 0.0), ("old", 0.0), ("new", 900.0)):
        books.arrived(name, at)
    assert books.worth(slow, 900.0) > books.worth(new, 900.0) > books.worth(old, 900.0)


def test_no_more_is_evicted_than_is_needed_and_nothing_in_vain() -> None:
    books = store(declared("a"), declared("b"), declared("c", gpu=0.5, memory="700MiB"), declared("d", gpu=1))
    first, second = ready(books, "a"), ready(books, "b")
    first.share, first.memory, second.share, second.memory = 0.1, 100, 0.9, 700
    for name, copy in (("c", second), ("d", None)):
        books.records[name].waiting = 1
        ((_, wanted),) = books.next_steps(0.0)
        found = books.victims(wanted, [room()], 0.0)
        assert found == ([copy] if copy is not None else []), "all that there is would not do"
        books.gone(wanted)
        books.records[name].waiting = 0
    elsewhere = declared("e", types="nvidia/H100")
    books.models["e"], books.records["e"] = elsewhere, books.records["d"]
    assert books.victims(Copy(9, elsewhere, 0.0), [room()], 0.0) == []
    npu = declared("f", gpu=None, npu=0.1)
    assert books.victims(Copy(9, npu, 0.0), [room()], 0.0) == []
    assert books.victims(Copy(9, npu, 0.0), [room(family="cpu")], 0.0) == [first], "a stand-in is as good"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"replicas": (2, 1)}, "must be .least, most."),
        ({"replicas": (0, 0)}, "must be .least, most."),
        ({"gpu": 3.5}, "gpu"),
        ({"num_replicas": 2}, "unknown option 'num_replicas'"),
        ({"max_ongoing_requests": 0}, "1 or more"),
        ({"loader": int, "parked": {"gpu": 0.1}}, "int has no methods park"),
        ({"parked": {"cpus": 1}}, "not .'cpus'."),
        ({"name": "a/b"}, "without slashes"),
    ],
)
def test_a_model_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        model(**{"name": "a", "loader": Parks, "gpu": 0.5, **options})
