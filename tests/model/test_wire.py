"""Every event and command survives JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexray.errors import UsageError
from flexray.model.commands import COMMANDS, GrantLease
from flexray.model.devices import Device, DeviceType, Inventory
from flexray.model.events import EVENTS, NodeReported, RequestSubmitted, SliceStarted
from flexray.model.gang import Gang, Layout
from flexray.model.isolation import Guarantee, Isolation, Strength
from flexray.model.lease import Lease, LeaseId, Placement
from flexray.model.queue import Queue, QueueAmount
from flexray.model.request import Request
from flexray.model.wire import decode, encode

_whole = st.integers(0, 2**40)
st.register_type_strategy(
    Request,
    st.builds(
        Request,
        share=st.integers(1, 1000),
        devices=st.just(1),
        memory=st.none() | st.integers(1, 2**30),
        types=st.lists(st.text(min_size=1), max_size=2).map(tuple),
        cpus=_whole,
        burst=st.none() | st.integers(1, 1000),
        runtime=st.none() | st.floats(0.001, 1e9),
        gang=st.sampled_from([None, Gang(2), Gang(8, 2, Layout.SPREAD)]),
    ),
)
_amounts = st.builds(QueueAmount, devices=_whole, compute=st.none() | _whole, types=st.just((("nvidia/*", 4),)))
st.register_type_strategy(
    Queue,
    st.builds(
        Queue,
        name=st.text(min_size=1).filter(str.strip),
        parent=st.just("root"),
        quota=st.none() | _amounts,
        limit=st.none() | _amounts,
        weight=st.integers(0, 1000),
        priorities=st.sampled_from([(None, None), (0, None), (-1, 7)]),
        types=st.lists(st.text(min_size=1), max_size=2).map(tuple),
        half_life=st.none() | st.floats(0.001, 1e9),
    ),
)
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))


@pytest.mark.parametrize("kind", [*EVENTS, *COMMANDS], ids=lambda kind: kind.__name__)
@settings(max_examples=25)
@given(data=st.data())
def test_round_trip(kind: type, data: st.DataObject) -> None:
    message = data.draw(st.builds(kind, **{name: st.from_type(hint) for name, hint in _hints(kind).items()}))
    plain = encode(message)
    back = decode(json.loads(json.dumps(plain)))
    assert back == message and type(back) is kind
    assert encode(back) == plain
    assert next(iter(plain)) == "kind"
    hash(back)  # lists would have stayed lists


def _hints(kind: type) -> dict[str, Any]:
    from typing import get_type_hints

    return get_type_hints(kind)


def test_typed_values_come_back_typed() -> None:
    request = Request(types=("a", "b"), isolation=Isolation.MPS)
    event = RequestSubmitted("r", "S", "E", "c", request, parent=LeaseId("p", 2))
    back = decode(json.loads(json.dumps(encode(event))))
    assert type(back.parent) is LeaseId and str(back.parent) == "p#2"
    assert back.request.isolation is Isolation.MPS and back.request.types == ("a", "b")
    lease = Lease(LeaseId("r", 1), "s1", Placement("n", ("n/gpu0",), 500, 10), "x/y", Isolation.NONE)
    assert isinstance(lease.placement.devices, tuple)
    strong = dataclasses.replace(lease, guarantee=Guarantee(Strength.HARD, Strength.SOFT))
    granted = decode(json.loads(json.dumps(encode(GrantLease("S", strong)))))
    assert granted.lease == strong and granted.lease.guarantee.compute is Strength.HARD
    for asked in (Isolation.CGROUP, Strength.HARD):
        event = RequestSubmitted("r", "S", "E", "c", Request(isolation=asked))
        assert decode(json.loads(json.dumps(encode(event)))).request.isolation is asked


def test_a_journal_from_before_links_is_still_read() -> None:
    device = Device("n/gpu0", "n", 0, DeviceType("x/y", 1), "gpu", "fake", numa=1, links=((1, 4),))
    plain = json.loads(json.dumps(encode(NodeReported(Inventory("n", "n", (device,))))))
    assert decode(plain).inventory.devices == (device,)
    for name in ("numa", "links"):
        del plain["inventory"]["devices"][0][name]
    (old,) = decode(plain).inventory.devices
    assert (old.numa, old.links) == (-1, ())


def test_a_journal_from_before_near_is_still_read() -> None:
    event = RequestSubmitted("r", "S", "E", "c", Request(), near=(("n1", 8), ("n2", 1)))
    plain = json.loads(json.dumps(encode(event)))
    assert plain["near"] == [["n1", 8], ["n2", 1]] and decode(plain) == event
    del plain["near"]
    assert decode(plain).near == ()


def test_kinds_are_distinct_and_closed() -> None:
    names = [kind.__name__ for kind in (*EVENTS, *COMMANDS)]
    assert len(set(names)) == len(names) == 36
    for bad in ({"kind": "SliceMelted", "slice": "s1"}, {"slice": "s1"}, {}):
        with pytest.raises(UsageError, match="unknown record kind"):
            decode(bad)
    assert encode(SliceStarted("s1")) == {"kind": "SliceStarted", "slice": "s1"}


def test_messages_cannot_be_changed() -> None:
    device = Device("n/gpu0", "n", 0, DeviceType("x/y", 1), "gpu", "fake")
    with pytest.raises(AttributeError):
        device.state = "sick"  # type: ignore[misc]
    for kind in (*EVENTS, *COMMANDS):
        assert kind.__dataclass_params__.frozen, kind
