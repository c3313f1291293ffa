"""The small torch models of ``serving.py``: what they do for a request, and their files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flexray.demo.models import Trained, TrainedModel

WIDTH, LAYERS = 2048, 6
"""Of a model: 25 million weights, 100 MB, about 15 ms of one core for a pass."""
MOST_PASSES = 6


class Network:
    """A deep perceptron. A request is for a number of passes, as one to a language model is for a number of tokens."""

    def __init__(self, number: int) -> None:
        draw = np.random.default_rng(number)
        self._number = number
        self._weights = [draw.standard_normal((WIDTH, WIDTH), dtype=np.float32) / WIDTH**0.5 for _ in range(LAYERS)]
        self._layers: list[Any] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"number": self._number, "weights": self._weights}

    def __setstate__(self, state: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        self._number, self._weights = state["number"], state["weights"]
        self.unpark()

    def predict(self, requests: list[int]) -> list[int]:
        """The model's number for each request, once its passes are done."""
        for passes in requests:
            state = torch.ones(1, WIDTH)
            for _ in range(passes):
                for layer in self._layers:
                    state = torch.relu(state @ layer)
        return [self._number for _ in requests]

    def park(self) -> None:
        """Let go of what is on the device; the host's copy stays."""
        self._layers = []

    def unpark(self) -> None:
        """Have it on the device again."""
        self._layers = [torch.from_numpy(weights.copy()) for weights in self._weights]


class Loaded:
    """A network from its file, for ``flex.serving.model``."""

    def __init__(self, path: str) -> None:
        with Path(path).open("rb") as file:
            self._network: Network = pickle.load(file)
        self._network.predict([1])

    def predict(self, passes: int) -> int:
        """As a network does for one request."""
        return self._network.predict([passes])[0]

    def park(self) -> None:
        """Let go of the device."""
        self._network.park()

    def unpark(self) -> None:
        """Have it again."""
        self._network.unpark()


def write_models(folder: Path, count: int) -> Trained:
    """So many models, each in a file of its own; "images" are the numbers of passes that a request may ask for."""
    models = []
    for number in range(count):
        path = folder / f"model{number}.pickle"
        path.write_bytes(pickle.dumps(Network(number), protocol=5))
        size = path.stat().st_size
        models.append(TrainedModel(f"model{number}", "Network", __name__, path, size, 1.0, (number,)))
    return Trained(tuple(models), tuple(range(1, MOST_PASSES + 1)))
