"""Fine-tuning that makes room for urgent work: it stores its state, gives way, and goes on where it was.

Shows a preemptible task, ``checkpoint()``, which ends it when it has to give way, and ``restored``. A network that
knows upright digits learns turned ones, for so many seconds in all; meanwhile urgent work takes every device.

    python finetune_preemptible.py [--seconds 6]

Needs torch and scikit-learn: pip install "flexray-runtime[examples]"
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import digits
import numpy as np
import torch

import flexray as flex

HELD_BACK = 400
pretrain = flex.task(accelerator=1.0)(digits.train)


@flex.task(accelerator=1.0)
def finetune(weights: bytes, seconds: float) -> dict[str, Any]:
    """Train for so long, over all attempts; returns what became of it."""
    here = flex.current()
    device = here.torch_device
    images, labels = digits.data()
    turned = np.rot90(images.reshape(-1, 8, 8), axes=(1, 2)).reshape(-1, 64).copy()
    x, y = torch.from_numpy(turned).to(device), torch.from_numpy(labels).to(device)
    network = digits.network().to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001)

    def accuracy() -> float:
        with torch.inference_mode():
            return float((network(x[-HELD_BACK:]).argmax(dim=1) == y[-HELD_BACK:]).float().mean())

    state = here.restored  # of the attempt before, or None
    if state is None:
        network.load_state_dict(torch.load(io.BytesIO(weights), map_location=device, weights_only=True))
        state = {"epoch": 0, "trained": 0.0, "before": accuracy(), "attempts": []}
    else:
        network.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    state["attempts"].append((here.attempt, here.device.id, state["epoch"]))
    while state["trained"] < seconds:
        began = time.thread_time()  # the processor's: what others do on this machine does not count
        for some in torch.randperm(len(x) - HELD_BACK).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x[some]), y[some]).backward()
            optimizer.step()
        state["epoch"] += 1
        state["trained"] += time.thread_time() - began
        state |= {"model": network.state_dict(), "optimizer": optimizer.state_dict()}
        here.checkpoint(state, every=0.5)  # asked to give way it stores at once, and ends the task
    return {"before": state["before"], "after": accuracy(), "epochs": state["epoch"], "attempts": state["attempts"]}


@flex.task(accelerator=1.0, request=flex.Request(priority=1))
def urgent() -> float:
    time.sleep(0.5)
    return time.time()


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune a network that gives way to urgent work.")
    parser.add_argument("--seconds", type=float, default=6.0, help="of training, over all attempts")
    options = parser.parse_args()

    flex.init()
    place = Path(tempfile.mkdtemp())  # on several nodes, a directory that they share or a URL
    gives_way = flex.Request(preemptible=True, checkpoint_place=str(place))
    training = finetune.options(request=gives_way).remote(pretrain.remote(), options.seconds)
    while not any(path.is_file() for path in place.rglob("*")) and not training.done():
        time.sleep(0.05)
    asked = time.time()
    answered = max(flex.get([urgent.remote() for _ in flex.pool().devices]))
    print(f"urgent work on every device: asked for and done in {answered - asked:.1f} s, training gave way")
    result = training.result()
    for attempt, device, epoch in result["attempts"]:
        print(f"attempt {attempt} on {device}: from epoch {epoch}")
    print(f"{result['epochs']} epochs; accuracy on turned digits {result['before']:.3f}, then {result['after']:.3f}")
    flex.shutdown()
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
