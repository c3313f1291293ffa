"""Batch inference with PyTorch: many batches through one small model, on quarters of devices.

Shows a task on a quarter of a device, a model that each slice loads once, and ``map``,
which keeps results in order and memory bounded however many batches there are.

    python batch_inference.py [--copies 20] [--batch 256]

Needs torch and scikit-learn: pip install "flexray-runtime[examples]"
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import digits
import numpy as np

import flexray as flex

train = flex.task(accelerator=0.25)(digits.train)


def main() -> None:
    parser = argparse.ArgumentParser(description="Classify digits in batches on slices of the pool.")
    parser.add_argument("--copies", type=int, default=20, help="how often the 400 test images are repeated")
    parser.add_argument("--batch", type=int, default=256, help="images per task")
    options = parser.parse_args()

    flex.init()
    weights = train.remote().result()
    print(f"trained: {len(weights)} bytes of weights")

    @flex.task(accelerator=0.25)
    def classify(images: np.ndarray) -> tuple[np.ndarray, str]:
        # `weights` travels with the function, once per slice, not with every batch; for a model of
        # gigabytes let it be a path or a URL that slices read.
        here = flex.current()
        model = digits.model(weights, here.torch_device)
        return digits.classify(model, images, here.torch_device)[0], here.slice

    test_images, labels = (np.concatenate([part[-400:]] * options.copies) for part in digits.data())
    batches = list(split(test_images, options.batch))
    began = time.perf_counter()
    results = list(classify.map(batches, progress=True))
    seconds = time.perf_counter() - began

    found = np.concatenate([digits_found for digits_found, _ in results])
    slices = {name for _, name in results}
    print(f"{len(found)} images in {len(batches)} batches on {len(slices)} slices: {seconds:.1f} s with their start")
    print(f"accuracy {np.mean(found == labels):.3f}")
    flex.shutdown()


def split(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Consecutive batches of at most ``size`` images."""
    for start in range(0, len(images), size):
        yield images[start : start + size]


if __name__ == "__main__":
    main()
