"""Ray Serve with models on slices: requests, lost slices, devices that are emptied, other shares, batch work beside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import flexray as flex
from cluster.conftest import until
from flexray.cli import main

pytest.importorskip("starlette")
pytestmark = pytest.mark.usefixtures("pool")

CONFIG = {
    "cpu_devices": 2,
    "grace_seconds": 1.0,
    "linger_seconds": 0.05,
    "lease_term_seconds": 1.0,
    "queues": [{"name": "serving", "quota": 2}, {"name": "batch"}],
}
BATCH_STEPS = 20
#: Serve looks whether a replica is done this often when it stops; two seconds otherwise.
QUICK = {"graceful_shutdown_wait_loop_s": 0.1}


@pytest.fixture(scope="module")
def url(pool: None) -> Iterator[str]:
    """Serve, on a free port."""
    from ray import serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.fixture
def run(url: str) -> Iterator[Any]:
    """Runs an application at ``/`` until the test is over, and then waits until no slice is held."""
    from ray import serve

    yield lambda application: serve.run(application, name="test", route_prefix="/")
    serve.delete("test")
    until(lambda: not any(piece.request for piece in flex.pool().slices))


def ask(url: str, body: Any = None, timeout: float = 60.0) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(url, data, timeout=timeout) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def opened(body: dict[str, Any]) -> None:
    while "gate" in body and not os.path.exists(body["gate"]):
        await asyncio.sleep(0.05)


class Echo:
    """What the tests serve: it says where it is, and takes as long as it is told, or until a file is there."""

    def __init__(self, factor: int = 2) -> None:
        self.factor = factor

    async def __call__(self, request: Any) -> dict[str, Any]:
        body = await request.json()
        await asyncio.sleep(body.get("seconds", 0))
        await opened(body)
        return {"answer": self.factor * body["x"], **self.where()}

    def where(self) -> dict[str, Any]:
        here = flex.current()
        return {"device": here.device.id, "share": here.share, "pid": os.getpid()}

    def reconfigure(self, config: dict[str, int]) -> None:
        self.factor = config["factor"]

    async def count(self, n: int) -> Any:
        for i in range(n):
            yield i

    @flex.serving.batch(max_size=4, wait_seconds=20)
    def together(self, items: list[int]) -> list[tuple[int, int]]:
        return [(item * self.factor, len(items)) for item in items]


class Words:
    def __call__(self, request: Any) -> Any:
        yield from (f"{word} " for word in request.query_params["say"].split("-"))


def test_a_deployment_answers_from_its_slices(url: str, run: Any) -> None:
    declared = flex.serving.deployment(**QUICK, gpu=0.25, memory="300MiB", queue="serving", num_replicas=2)(Echo)
    handle = run(declared.options(user_config={"factor": 3}).bind(2))
    held = [piece for piece in flex.pool().slices if piece.request]
    assert [(piece.share, piece.memory) for piece in held] == [(0.25, 300)] * 2
    with ThreadPoolExecutor(8) as threads:
        answers = [json.loads(text) for _, text in threads.map(lambda x: ask(url, {"x": x, "seconds": 0.2}), range(8))]
    assert [answer["answer"] for answer in answers] == [3 * x for x in range(8)]
    assert {answer["share"] for answer in answers} == {0.25}
    until(lambda: answers.append(json.loads(ask(url, {"x": 1})[1])) or len({answer["pid"] for answer in answers}) == 2)
    assert os.getpid() not in {answer["pid"] for answer in answers}
    assert list(handle.options(stream=True).count.remote(4)) == [0, 1, 2, 3]
    status, text = ask(url, {"y": 1})
    assert status == 500, text
    with pytest.raises(Exception, match="KeyError"):
        handle.reconfigure.remote({}).result()


def test_batches_and_streams(url: str, run: Any) -> None:
    handle = run(flex.serving.deployment(**QUICK, gpu=0.25)(Echo).bind())
    answers = [response.result() for response in [handle.together.remote(n) for n in range(8)]]
    assert [answer for answer, _ in answers] == [2 * n for n in range(8)]
    assert {size for _, size in answers} == {4}
    run(flex.serving.deployment(**QUICK, gpu=0.25)(Words).bind())
    assert ask(f"{url}/?say=one-two-three") == (200, "one two three ")


def test_a_killed_slice_comes_back_and_its_requests_run_again(url: str, run: Any) -> None:
    run(flex.serving.deployment(**QUICK, gpu=0.5, num_replicas=2)(Echo).bind())
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(ask, url, {"x": x, "seconds": 1.5}) for x in range(6)]
        victim = next(piece for piece in flex.pool().slices if piece.request)
        time.sleep(0.5)
        os.kill(json.loads(ask(url, {"x": 0})[1])["pid"], signal.SIGKILL)
        answers = [json.loads(one.result()[1]) for one in asked]
    assert [answer["answer"] for answer in answers] == [2 * x for x in range(6)]
    assert victim is not None
    until(lambda: sum(bool(piece.request) for piece in flex.pool().slices) == 2)


def test_a_replica_leaves_a_drained_device_and_loses_nothing(url: str, run: Any, tmp_path: Path) -> None:
    run(flex.serving.deployment(**QUICK, gpu=0.5)(Echo).bind())
    first = json.loads(ask(url, {"x": 1})[1])["device"]
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(2) as threads:
        long = threads.submit(ask, url, {"x": 21, "gate": str(gate)})
        time.sleep(0.3)
        operate("drain", first)
        try:
            moved = until(lambda: (found := json.loads(ask(url, {"x": 1})[1]))["device"] != first and found)
            assert moved["answer"] == 2 and not long.done(), "the old slice still works on what it had"
            gate.touch()
            answer = json.loads(long.result()[1])
            assert answer["answer"] == 42 and answer["device"] == first
            until(lambda: not [p for p in flex.pool().slices if first in p.devices])
        finally:
            gate.touch()
            operate("uncordon", first)


def operate(*arguments: str) -> None:
    done = CliRunner().invoke(main, [*arguments, "--address", "auto"])
    assert done.exit_code == 0, done.output


def test_another_share_under_load_loses_no_request(url: str, run: Any) -> None:
    run(flex.serving.deployment(**QUICK, gpu=0.25, num_replicas=2)(Echo).bind())
    stop, found = threading.Event(), []

    def load() -> None:
        while not stop.is_set():
            found.append(ask(url, {"x": 5, "seconds": 0.02}))

    with ThreadPoolExecutor(4) as threads:
        callers = [threads.submit(load) for _ in range(4)]
        until(lambda: len(found) > 20)
        run(flex.serving.deployment(**QUICK, gpu=0.5, num_replicas=2)(Echo).bind())
        until(lambda: all(json.loads(text)["share"] == 0.5 for _, text in found[-20:]))
        stop.set()
        for caller in callers:
            caller.result()
    assert {status for status, _ in found} == {200}
    answers = [json.loads(text) for _, text in found]
    assert {answer["answer"] for answer in answers} == {10}
    assert answers[0]["share"] == 0.25


@flex.task(gpu=1, queue="batch", request=flex.Request(preemptible=True))
def count_up(steps: int, gate: str) -> tuple[int, bool]:
    """Batch work that gives way and goes on where it was; it ends once the gate is there, however slow all else is."""
    here = flex.current()
    done = here.restored or 0
    resumed = done > 0
    while done < steps or not os.path.exists(gate):
        time.sleep(0.1)
        done += 1
        here.checkpoint(done)
    return done, resumed


def test_serving_takes_from_batch_work_and_never_the_other_way_round(url: str, run: Any, tmp_path: Path) -> None:
    scaling = {
        "min_replicas": 0,
        "max_replicas": 2,
        "target_ongoing_requests": 1,
        "upscale_delay_s": 0.2,
        "downscale_delay_s": 1.0,
        "downscale_to_zero_delay_s": 1.0,
        "look_back_period_s": 1.0,
        "metrics_interval_s": 0.2,
    }
    declared = flex.serving.deployment(
        **QUICK, gpu=1, queue="serving", autoscaling_config=scaling, max_ongoing_requests=2
    )
    run(declared(Echo).bind())
    gate = tmp_path / "gate"
    batch = [count_up.remote(BATCH_STEPS, str(gate)) for _ in range(3)]
    until(lambda: sum(queue.running for queue in flex.pool().queues if queue.name == "batch") == 2)
    until(lambda: sum(p.share for p in flex.pool().slices if p.task_class.startswith("count_up")) == 2)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda x: ask(url, {"x": x, "seconds": 2}), range(4)))
    assert {status for status, _ in answers} == {200}
    (taken, *_) = flex.pool().preemptions
    assert (taken.winner_queue, taken.victim_queue, taken.reason) == ("serving", "batch", "reclaim")
    assert not [one for one in flex.pool().preemptions if one.victim_queue == "serving"]
    gate.touch()
    done = [future.result(120) for future in batch]  # Serve has let go of its replicas by then
    assert all(steps >= BATCH_STEPS for steps, _ in done) and any(resumed for _, resumed in done)
    assert not [one for one in flex.pool().preemptions if one.victim_queue == "serving"]


class Sleeper:
    """A model that takes a while to load, and can park."""

    def __init__(self, seconds: float = 0.5) -> None:
        time.sleep(seconds)
        self.awake, self.parked = True, 0

    async def __call__(self, request: Any) -> dict[str, Any]:
        await opened(await request.json())
        return self.where()

    def where(self) -> dict[str, Any]:
        here = flex.current()
        assert self.awake
        return {"pid": os.getpid(), "share": here.share, "parked": self.parked, "device": here.device.id}

    def park(self) -> None:
        self.awake, self.parked = False, self.parked + 1

    def unpark(self) -> None:
        self.awake = True


def test_many_models_share_few_devices(url: str, run: Any) -> None:
    """Three models of 0.75 and one of 0.25 on two devices."""
    model = flex.serving.model
    large = {"gpu": 0.75, "wait_seconds": 30, "idle_seconds": 600}
    small = {"gpu": 0.25, "parked": {"gpu": 0.05}, "idle_seconds": 0.5}
    handle = run(
        flex.serving.models(
            *(model(name, Sleeper, **large) for name in ("a", "b", "c")), model("d", Sleeper, **small), **QUICK
        )
    )
    status, text = ask(f"{url}/e", {})
    assert (status, text) == (404, "InvalidRequest: there is no model 'e'; there are a, b, c, d")
    answers = {name: json.loads(ask(f"{url}/{name}", {})[1]) for name in "abd"}
    assert len({answer["pid"] for answer in answers.values()}) == 3
    assert answers["a"]["device"] != answers["b"]["device"]
    for _ in range(3):
        assert json.loads(ask(f"{url}/a", {})[1])["pid"] == answers["a"]["pid"], "kept warm"

    until(lambda: shown(url)["d"]["replicas"][0]["state"] == "parked")
    assert shown(url)["d"]["replicas"][0]["gpu"] == 0.05
    again = handle.call.remote("d", "where").result()
    assert again["pid"] == answers["d"]["pid"] and (again["share"], again["parked"]) == (0.25, 1)

    there = json.loads(ask(f"{url}/c", {})[1])
    assert there["share"] == 0.75 and there["device"] == answers["b"]["device"], "b was asked for least"
    found = shown(url)
    assert {name: found[name]["evicted"] for name in "abc"} == {"a": 0, "b": 1, "c": 0}
    assert found["c"]["cold_starts"] == 1 and found["c"]["cold_seconds"] > 0.5
    assert found["d"]["cold_starts"] == 1 and found["d"]["unpark_seconds"] < found["d"]["cold_seconds"]
    assert found["b"]["replicas"] == []


def test_a_request_waits_for_its_model_with_a_bound(url: str, run: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    whole = {"gpu": 1, "idle_seconds": 600}
    names = ("a", "b")
    late = flex.serving.model("late", Sleeper, gpu=1, wait_seconds=1.5)
    broken = flex.serving.model("broken", no_model, gpu=0.1, wait_seconds=60)
    run(flex.serving.models(*(flex.serving.model(name, Sleeper, **whole) for name in names), late, broken, **QUICK))
    status, text = ask(f"{url}/broken", {})
    assert status == 503 and "StartFailed: model 'broken' could not be loaded: " in text and "no such weights" in text
    with ThreadPoolExecutor(2) as threads:
        busy = [threads.submit(ask, f"{url}/{name}", {"gate": str(gate)}) for name in names]
        until(lambda: all(one["replicas"] and one["replicas"][0]["ongoing"] for one in map(shown(url).get, names)))
        status, text = ask(f"{url}/late", {})
        gate.touch()
        assert status == 503 and "model 'late' was not there within 1.5 s" in text and "no_room" in text
        assert [one.result()[0] for one in busy] == [200, 200], "nobody who works is evicted"
    until(lambda: ask(f"{url}/late", {})[0] == 200)  # a load that takes longer than a request waits goes on
    assert shown(url)["late"]["late"] >= 1 and shown(url)["late"]["cold_starts"] == 1


def no_model() -> None:
    raise ValueError("no such weights")


def shown(url: str) -> dict[str, Any]:
    return json.loads(ask(url)[1])
