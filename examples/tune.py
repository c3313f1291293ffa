"""Hyperparameter search: Ray Tune chooses and compares, each trial trains on a quarter of a device.

Tune's trials are thin processes without a device, and with a hundredth of a core, since Tune wants to book something:
each passes its parameters on to a flexray task and waits for the answer. So Tune may have as many trials open as it
likes, and the pool decides how many train at a time.

    python tune.py [--trials 6]

Needs torch, scikit-learn and Ray Tune: pip install "flexray-runtime[examples]"
"""

from __future__ import annotations

import argparse
import logging
from typing import Any

import digits
import ray
from ray import tune

import flexray as flex


@flex.task(accelerator=0.25)
def score(epochs: int, held_back: int) -> tuple[float, str]:
    """Accuracy on the images that were held back, and the slice it was found on."""
    here = flex.current()
    network = digits.model(digits.train(epochs, held_back), here.torch_device)
    images, labels = (part[-held_back:] for part in digits.data())
    found, _ = digits.classify(network, images, here.torch_device)
    return float((found == labels).mean()), here.slice


def trial(parameters: dict[str, Any]) -> dict[str, Any]:
    """What Tune runs."""
    accuracy, name = score.remote(parameters["epochs"], 400).result()
    return {"accuracy": accuracy, "slice": name}


def main() -> None:
    parser = argparse.ArgumentParser(description="Search for the number of epochs with Ray Tune and slices.")
    parser.add_argument("--trials", type=int, default=6)
    options = parser.parse_args()

    flex.init()
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    space = {"epochs": tune.grid_search([2 + 8 * number for number in range(options.trials)])}
    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": 0.01}),
        param_space=space,
        tune_config=tune.TuneConfig(max_concurrent_trials=4),
        run_config=tune.RunConfig(verbose=0),
    )
    results = tuner.fit()
    best = results.get_best_result("accuracy", "max")
    slices = {result.metrics["slice"] for result in results}
    print(f"{len(results)} trials on {len(slices)} slices")
    print(f"best: {best.config['epochs']} epochs, accuracy {best.metrics['accuracy']:.3f}")
    flex.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
