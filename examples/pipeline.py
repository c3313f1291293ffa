"""A pipeline of tasks: Futures as arguments, so that each task starts when what it needs is there.

    load -> split -> features (one per way of seeing the images) -> train (one per features) -> evaluate

The script only says what depends on what; it waits once, at the end, and the data goes
from slice to slice.

    python pipeline.py

Needs scikit-learn: pip install "flexray-runtime[examples]"
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import flexray as flex

WAYS = ("pixels", "rows and columns", "contrast")


@flex.task(accelerator=0.5)
def load() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images / 16.0, labels


@flex.task(accelerator=0.5)
def split(data: tuple[np.ndarray, np.ndarray], part: float) -> dict[str, np.ndarray]:
    images, labels = data
    order = np.random.default_rng(0).permutation(len(images))
    train, test = np.split(order, [int(part * len(order))])
    return {"train_x": images[train], "train_y": labels[train], "test_x": images[test], "test_y": labels[test]}


@flex.task(accelerator=0.5)
def features(parts: dict[str, np.ndarray], way: str) -> dict[str, np.ndarray]:
    def seen(rows: np.ndarray) -> np.ndarray:
        images = rows.reshape(-1, 8, 8)
        if way == "rows and columns":
            return np.hstack([images.sum(axis=1), images.sum(axis=2)])
        if way == "contrast":
            return np.hstack([np.diff(images, axis=1).reshape(len(rows), -1), np.diff(images, axis=2)[:, :, 0]])
        return rows

    return {**parts, "train_x": seen(parts["train_x"]), "test_x": seen(parts["test_x"])}


@flex.task(accelerator=0.5)
def train(parts: dict[str, np.ndarray]) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=500).fit(parts["train_x"], parts["train_y"])


@flex.task(accelerator=0.5)
def evaluate(model: Any, parts: dict[str, np.ndarray]) -> float:
    return float(model.score(parts["test_x"], parts["test_y"]))


def main() -> None:
    flex.init()
    began = time.perf_counter()
    parts = split.remote(load.remote(), 0.75)  # a Future as an argument: nobody waits here
    seen = {way: features.remote(parts, way) for way in WAYS}
    scores = {way: evaluate.remote(train.remote(seen[way]), seen[way]) for way in WAYS}
    print(f"{2 + 3 * len(WAYS)} tasks described in {1000 * (time.perf_counter() - began):.0f} ms")

    for way, score in scores.items():
        print(f"{way:>18}: accuracy {score.result():.3f}")
    best = max(WAYS, key=lambda way: scores[way].result())
    print(f"best: {best}, after {time.perf_counter() - began:.1f} s")
    flex.shutdown()


if __name__ == "__main__":
    main()
