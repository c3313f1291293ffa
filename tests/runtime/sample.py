"""Tasks and actors that several tests use: equal ones find the slices of earlier tests warm.

A burst asks for as many leases as could be of use, and each slice that starts for one takes a second: bursts of the
tests ask for whole devices, so that two start and not eight.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import flexray as flex
from runtime.support import Marks


@flex.task(gpu=0.25)
def echo(value: Any) -> Any:
    return value


@flex.task(gpu=0.25)
def add(one: Any, other: Any) -> Any:
    return one + other


@flex.task(gpu=0.25)
def fail(error: BaseException) -> None:
    raise error


@flex.task(gpu=0.25)
def sleep(seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


@flex.task(gpu=0.25)
def call(function: Any, *args: Any) -> Any:
    """Run whatever function is given: one task class, and so one warm slice, for many small tests."""
    return function(*args)


@flex.task(gpu=0.25)
async def call_async(function: Any, *args: Any) -> Any:
    return await function(*args)


@flex.task(gpu=0.25)
def hold(marks: Marks, name: str, release: str = "release") -> int:
    """Leave a mark, and run until another one appears or somebody asks to stop."""
    marks.leave(name, os.getpid())
    while not marks.count(release) and not flex.current().should_yield():
        time.sleep(0.01)
    return os.getpid()


def deaf(marks: Marks, name: str = "started") -> int:
    """Runs for ever, and never looks whether it should stop."""
    marks.leave(name, os.getpid())
    while not marks.count("release"):
        time.sleep(0.01)
    return os.getpid()


@flex.task(gpu=0.25)
def count_to(n: int) -> Iterator[int]:
    yield from range(n)


@flex.actor(gpu=0.25)
class Counter:
    def __init__(self, n: int = 0, step: int = 1) -> None:
        self.n, self.step = n, step

    def add(self, amount: int | None = None) -> int:
        self.n += self.step if amount is None else amount
        return self.n

    def pid(self) -> int:
        return os.getpid()

    def fail(self) -> None:
        raise KeyError("missing")

    def sleep(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def numbers(self, n: int) -> Iterator[int]:
        yield from range(n)

    def broken_numbers(self) -> Iterator[int]:
        yield 1
        raise OSError("the well ran dry")

    def hold(self, marks: Marks) -> int:
        marks.leave("held", os.getpid())
        while not marks.count("release"):
            time.sleep(0.01)
        return self.n


@flex.actor(gpu=0.25)
class Room:
    """Calls that meet each other, which only calls beside each other can."""

    def __init__(self, size: int) -> None:
        self.size, self.inside = size, 0

    async def enter(self) -> int:
        self.inside += 1
        while self.inside < self.size:
            await asyncio.sleep(0.005)
        return self.inside

    async def wait(self, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    async def numbers(self, n: int) -> AsyncIterator[int]:
        for number in range(n):
            await asyncio.sleep(0)
            yield number

    def plain(self) -> int:
        return self.inside
