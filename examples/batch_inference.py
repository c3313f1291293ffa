"""Batch inference: Ray Data reads, batches and writes; the model runs on quarters of devices.

Ray Data streams blocks through ``map_batches`` as ever. What it runs there is thin, without a core or a device: it
passes each batch on to a flexray task and awaits the answer. The pool decides how many slices that takes; each loads
the model once. So data sets of any size go through with bounded memory, and Data needs no device of its own.

    python batch_inference.py [--copies 20] [--batch 256]

Needs torch, scikit-learn and Ray Data: pip install "flexray-runtime[examples]"
"""

from __future__ import annotations

import argparse
import time

import digits
import numpy as np
import ray

import flexray as flex

train = flex.task(accelerator=0.25)(digits.train)


class OnSlices:
    """What Ray Data runs: one process, which has four batches on slices at a time and waits for them."""

    def __init__(self, weights: bytes) -> None:
        @flex.task(accelerator=0.25)
        def classify(images: np.ndarray) -> tuple[np.ndarray, str]:
            # `weights` travels with the function, once per slice, not with every batch; for a model of
            # gigabytes let it be a path or a URL that slices read.
            here = flex.current()
            model = digits.model(weights, here.torch_device)
            return digits.classify(model, images, here.torch_device)[0], here.slice

        self.classify = classify

    async def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found, name = await self.classify.remote(batch["image"])
        return {"digit": found, "label": batch["label"], "slice": np.full(len(found), name)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Classify digits with Ray Data and slices of the pool.")
    parser.add_argument("--copies", type=int, default=20, help="how often the 400 test images are repeated")
    parser.add_argument("--batch", type=int, default=256, help="images per task")
    options = parser.parse_args()

    flex.init()
    weights = train.remote().result()
    print(f"trained: {len(weights)} bytes of weights")

    images, labels = (part[-400:] for part in digits.data())
    rows = [{"image": image, "label": label} for image, label in zip(images, labels, strict=True)]
    ray.data.DataContext.get_current().enable_progress_bars = False
    began = time.perf_counter()
    answers = ray.data.from_items(rows * options.copies, override_num_blocks=1).map_batches(
        OnSlices,
        fn_constructor_args=(weights,),
        batch_size=options.batch,
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=0,
    )
    right = count = 0
    slices: set[str] = set()
    for batch in answers.iter_batches(batch_size=None):
        right, count = right + int((batch["digit"] == batch["label"]).sum()), count + len(batch["digit"])
        slices |= set(batch["slice"])
    seconds = time.perf_counter() - began
    print(f"{count} images on {len(slices)} slices: {seconds:.1f} s with their start")
    print(f"accuracy {right / count:.3f}")
    flex.shutdown()


if __name__ == "__main__":
    main()
