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


class Echo:
    """What the tests serve: it says where it is, and takes as long as it is told."""

    def __init__(self, factor: int = 2) -> None:
        self.factor = factor

    async def __call__(self, request: Any) -> dict[str, Any]:
        body = await request.json()
        await asyncio.sleep(body.get("seconds", 0))
        return {"answer": self.factor * body["x"], **self.where()}

    def where(self) -> dict[str, Any]:
        here = flex.current()
        return {"device": here.device.id, "share": here.share, "pid": os.getpid()}

    def reconfigure(self, config: dict[str, int]) -> None:
        self.factor = config["factor"]

    async def count(self, n: int) -> Any:
        for i in range(n):
            yield i

    @flex.serving.batch(max_size=4, wait_seconds=0.2)
    def together(self, items: list[int]) -> list[tuple[int, int]]:
        return [(item * self.factor, len(items)) for item in items]


class Words:
    def __call__(self, request: Any) -> Any:
        yield from (f"{word} " for word in request.query_params["say"].split("-"))


def test_a_deployment_answers_from_its_slices(url: str, run: Any) -> None:
    declared = flex.serving.deployment(gpu=0.25, memory="300MiB", queue="serving", num_replicas=2)(Echo)
    handle = run(declared.options(user_config={"factor": 3}).bind(2))
    held = [piece for piece in flex.pool().slices if piece.request]
    assert [(piece.share, piece.memory) for piece in held] == [(0.25, 300)] * 2
    with ThreadPoolExecutor(8) as threads:
        answers = [json.loads(text) for _, text in threads.map(lambda x: ask(url, {"x": x, "seconds": 0.2}), range(8))]
    assert [answer["answer"] for answer in answers] == [3 * x for x in range(8)]
    assert len({answer["pid"] for answer in answers}) == 2 and {answer["share"] for answer in answers} == {0.25}
    assert os.getpid() not in {answer["pid"] for answer in answers}
    assert list(handle.options(stream=True).count.remote(4)) == [0, 1, 2, 3]
    status, text = ask(url, {"y": 1})
    assert status == 500, text
    with pytest.raises(Exception, match="KeyError"):
        handle.reconfigure.remote({}).result()


def test_batches_and_streams(url: str, run: Any) -> None:
    handle = run(flex.serving.deployment(gpu=0.25)(Echo).bind())
    answers = [response.result() for response in [handle.together.remote(n) for n in range(8)]]
    assert [answer for answer, _ in answers] == [2 * n for n in range(8)]
    assert {size for _, size in answers} == {4}
    run(flex.serving.deployment(gpu=0.25)(Words).bind())
    assert ask(f"{url}/?say=one-two-three") == (200, "one two three ")


def test_a_killed_slice_comes_back_and_its_requests_run_again(url: str, run: Any) -> None:
    run(flex.serving.deployment(gpu=0.5, num_replicas=2)(Echo).bind())
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(ask, url, {"x": x, "seconds": 1.5}) for x in range(6)]
        victim = next(piece for piece in flex.pool().slices if piece.request)
        time.sleep(0.5)
        os.kill(json.loads(ask(url, {"x": 0})[1])["pid"], signal.SIGKILL)
        answers = [json.loads(one.result()[1]) for one in asked]
    assert [answer["answer"] for answer in answers] == [2 * x for x in range(6)]
    assert victim is not None
    until(lambda: sum(bool(piece.request) for piece in flex.pool().slices) == 2)


def test_a_replica_leaves_a_drained_device_and_loses_nothing(url: str, run: Any) -> None:
    run(flex.serving.deployment(gpu=0.5)(Echo).bind())
    first = json.loads(ask(url, {"x": 1})[1])["device"]
    with ThreadPoolExecutor(2) as threads:
        long = threads.submit(ask, url, {"x": 21, "seconds": 4})
        time.sleep(0.3)
        operate("drain", first)
        try:
            moved = until(lambda: (found := json.loads(ask(url, {"x": 1})[1]))["device"] != first and found)
            assert moved["answer"] == 2 and not long.done(), "the old slice still works on what it had"
            answer = json.loads(long.result()[1])
            assert answer["answer"] == 42 and answer["device"] == first
            until(lambda: not [p for p in flex.pool().slices if first in p.devices])
        finally:
            operate("uncordon", first)


def operate(*arguments: str) -> None:
    done = CliRunner().invoke(main, [*arguments, "--address", "auto"])
    assert done.exit_code == 0, done.output


def test_another_share_under_load_loses_no_request(url: str, run: Any) -> None:
    run(flex.serving.deployment(gpu=0.25, num_replicas=2)(Echo).bind())
    stop, found = threading.Event(), []

    def load() -> None:
        while not stop.is_set():
            found.append(ask(url, {"x": 5, "seconds": 0.02}))

    with ThreadPoolExecutor(4) as threads:
        callers = [threads.submit(load) for _ in range(4)]
        until(lambda: len(found) > 20)
        run(flex.serving.deployment(gpu=0.5, num_replicas=2)(Echo).bind())
        before = len(found)
        until(lambda: len(found) > before + 20)
        stop.set()
        for caller in callers:
            caller.result()
    assert {status for status, _ in found} == {200}
    answers = [json.loads(text) for _, text in found]
    assert {answer["answer"] for answer in answers} == {10}
    assert answers[0]["share"] == 0.25 and answers[-1]["share"] == 0.5


@flex.task(gpu=1, queue="batch", request=flex.Request(preemptible=True))
def count_up(steps: int) -> tuple[int, bool]:
    """Batch work that gives way and goes on where it was."""
    here = flex.current()
    done = here.restored or 0
    resumed = done > 0
    while done < steps:
        time.sleep(0.2)
        done += 1
        here.checkpoint(done)
    return done, resumed


def test_serving_takes_from_batch_work_and_never_the_other_way_round(url: str, run: Any) -> None:
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
        gpu=1, queue="serving", autoscaling_config=scaling, max_ongoing_requests=2, graceful_shutdown_wait_loop_s=0.1
    )
    run(declared(Echo).bind())
    batch = [count_up.remote(BATCH_STEPS) for _ in range(3)]
    until(lambda: sum(queue.running for queue in flex.pool().queues if queue.name == "batch") == 2)
    until(lambda: sum(p.share for p in flex.pool().slices if p.task_class.startswith("count_up")) == 2)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda x: ask(url, {"x": x, "seconds": 2}), range(4)))
    assert {status for status, _ in answers} == {200}
    (taken, *_) = flex.pool().preemptions
    assert (taken.winner_queue, taken.victim_queue, taken.reason) == ("serving", "batch", "reclaim")
    assert not [one for one in flex.pool().preemptions if one.victim_queue == "serving"]
    done = [future.result(120) for future in batch]  # Serve has let go of its replicas by then
    assert [steps for steps, _ in done] == [BATCH_STEPS] * 3 and any(resumed for _, resumed in done)
    assert not [one for one in flex.pool().preemptions if one.victim_queue == "serving"]
