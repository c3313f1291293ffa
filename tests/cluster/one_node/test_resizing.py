"""A running slice changes its size: asked by what runs on it, or by who made the actor."""

from __future__ import annotations

import asyncio

import pytest

import flexray as flex
from cluster.conftest import until
from flexray.model.snapshot import SliceView

pytestmark = pytest.mark.usefixtures("pool")

CONFIG = {"fake_devices": "1xT4"}


def shown() -> SliceView:
    (piece,) = [piece for piece in flex.pool().slices if piece.state == "held"]
    return piece


@flex.actor(gpu=0.25)
class Server:
    def size(self) -> tuple[float, int]:
        return flex.current().share, flex.current().memory // 2**20

    def resize_to(self, share: float) -> tuple[float, float]:
        before = flex.current()
        before.resize(gpu=share)
        return before.share, flex.current().share


class Resizer:
    def resize(self, image: str) -> str:
        return f"small {image}"


def test_an_actor_is_given_another_size() -> None:
    server = Server.remote()
    whole = flex.pool().devices[0].memory
    assert server.size.remote().result(60) == (0.25, whole // 4)
    server.resize(gpu=0.5)
    assert server.size.remote().result(60) == (0.5, whole // 2)
    assert (shown().share, flex.pool().devices[0].share_held) == (0.5, 0.5)
    server.resize(memory="100MiB")
    assert server.size.remote().result(60) == (0.5, 100)
    assert server.resize_to.remote(0.75).result(60) == (0.5, 0.75)
    with pytest.raises(flex.errors.ResizeRefused, match=r"keeps its size: it needs .* more of .*gpu0"):
        server.resize(memory=f"{whole + 1}MiB")
    assert server.size.remote().result(60) == (0.75, 100)
    server.stop()
    until(lambda: not flex.pool().slices)


def test_a_task_asks_for_itself_and_what_follows_has_the_size_of_the_class() -> None:
    @flex.task(gpu=0.25)
    def grow(again: bool) -> tuple[float, str]:
        if again:
            flex.current().resize(gpu=1)
        return flex.current().share, flex.current().slice

    share, first = grow.remote(True).result(60)
    assert share == 1.0
    until(lambda: all(piece.state != "held" for piece in flex.pool().slices))
    share, second = grow.remote(False).result(60)
    assert share == 0.25 and second != first


def test_on_an_event_loop_it_says_what_to_write() -> None:
    @flex.actor(gpu=0.25)
    class Async:
        async def grow(self) -> tuple[str, float]:
            here = flex.current()
            try:
                here.resize(gpu=0.5)
            except flex.errors.UsageError as error:
                await asyncio.to_thread(here.resize, gpu=0.5)
                return str(error), flex.current().share
            return "", 0.0

    text, share = Async.remote().grow.remote().result(60)
    assert "await asyncio.to_thread" in text and share == 0.5


def test_a_class_with_such_a_method_keeps_it() -> None:
    handle = flex.actor(gpu=0.25)(Resizer).remote()
    assert handle.resize.remote("cat").result(60) == "small cat"


def test_what_makes_no_sense_is_said_at_once() -> None:
    server = Server.remote()
    for amounts in ({}, {"gpu": 2}, {"gpu": 0.5, "npu": 0.5}, {"memory": "much"}):
        with pytest.raises(flex.errors.InvalidRequest):
            server.resize(**amounts)


def test_a_slice_that_is_gone() -> None:
    server = Server.remote()
    server.size.remote().result(60)
    server.stop()
    with pytest.raises(flex.errors.LeaseLost, match="was stopped"):
        server.resize(gpu=0.5)
