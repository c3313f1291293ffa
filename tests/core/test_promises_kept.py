"""What queues are promised is kept, whatever comes: quotas whenever demanded, limits always."""

from __future__ import annotations

from collections import Counter
from typing import Any

from harness import World, node
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flexray.model import events
from flexray.queue_file import parse_queues

DEVICES = {"nvidia/A100-80GB": 3, "nvidia/T4": 3}
NAMES = ("a", "b", "c")

part = st.integers(0, 3)
rules = st.tuples(st.tuples(part, part), st.sampled_from([None, 0, 1, 3]))
arrives = st.tuples(st.integers(1, 3), st.sampled_from(NAMES), st.sampled_from(sorted(DEVICES)))
ends = st.tuples(st.just(0), st.integers(0, 99), st.just(""))
histories = st.lists(st.one_of(arrives, arrives, ends), min_size=6, max_size=16)


def promised(wanted: tuple[Any, ...]) -> dict[str, dict[str, int]]:
    """Quotas by queue and type that the pool has devices for, whatever was drawn."""
    left, kept = dict(DEVICES), dict[str, dict[str, int]]()
    for name, (parts, _) in zip(NAMES, wanted, strict=True):
        kept[name] = {}
        for kind, amount in zip(sorted(DEVICES), parts, strict=True):
            kept[name][kind] = min(amount, left[kind])
            left[kind] -= kept[name][kind]
    return kept


def play(wanted: tuple[Any, ...], history: list[tuple[int, Any, str]]) -> None:
    quotas = promised(wanted)
    limits = {
        name: None if spare is None else sum(quotas[name].values()) + spare
        for name, (_, spare) in zip(NAMES, wanted, strict=True)
    }
    queues = [
        {"name": name, "quota": quotas[name], **({"limit": limits[name]} if limits[name] is not None else {})}
        for name in NAMES
    ]
    world = World(node("n1", "3xA100", cpus=64), node("n2", "3xT4", cpus=64), lease_term_seconds=1e6, rematch_seconds=0)
    world.apply(events.QueuesConfigured(parse_queues({"queues": queues})))
    for number, (count, who, kind) in enumerate(history):
        for copy in range(count):
            world.submit(f"r{number}.{copy}", gpu=1, queue=who, types=kind, task_class=f"{who}{kind}")
        if not count and world.leases:
            world.release(sorted(world.leases)[who % len(world.leases)])
        for _ in range(4):  # until whoever has to has given way
            world.settle()
            world.wait(2.5)
        check(world, quotas, limits)


def check(world: World, quotas: dict[str, dict[str, int]], limits: dict[str, int | None]) -> None:
    state = world.scheduler.state
    held: Counter[tuple[str, str]] = Counter()
    wants: Counter[tuple[str, str]] = Counter()
    for request in state.requests.values():
        key = (request.queue, request.request.types[0])
        wants[key] += 1
        held[key] += state.slice_of(request) is not None
    for name in NAMES:
        used, most = sum(held[name, kind] for kind in DEVICES), limits[name]
        assert most is None or used <= most
        for kind in DEVICES:
            sure = min(quotas[name][kind], wants[name, kind])
            assert held[name, kind] >= sure or used == most, f"{name} was promised {sure} {kind}: {held}, {wants}"


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(wanted=st.tuples(rules, rules, rules), history=histories)
def test_quotas_whenever_demanded_and_limits_always(wanted: tuple[Any, ...], history: list[Any]) -> None:
    play(wanted, history)
