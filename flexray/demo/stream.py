"""The requests: a random stream that a seed fixes, played at its own pace whether or not answers keep up."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request.

    Attributes:
        number: its place in the stream, from 0.
        at: seconds after the start of the stream.
        model: name of the model it asks.
        image: index of the test image it sends.
    """

    number: int
    at: float
    model: str
    image: int


def make_stream(seed: int, requests: int, rate: float, models: Sequence[str], images: int) -> tuple[Arrival, ...]:
    """A Poisson stream of single requests, each to a model and with an image drawn evenly.

    Args:
        seed: the same seed and arguments give the same stream.
        requests: how many.
        rate: mean arrivals per second, of all models together.
        models: names to draw from.
        images: number of test images to draw from.
    """
    draw = random.Random(seed)
    stream = []
    at = 0.0
    for number in range(requests):
        stream.append(Arrival(number, at, draw.choice(models), draw.randrange(images)))
        at += draw.expovariate(rate)
    return tuple(stream)
