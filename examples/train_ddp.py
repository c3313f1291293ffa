"""Training with several members: PyTorch's DistributedDataParallel on quarters of devices.

Shows a gang, which starts with two members or more and may grow and shrink, ``init_process_group()`` without
arguments, and a checkpoint that all members take part in, so that losing one costs a few epochs.

    python train_ddp.py [--members 4] [--epochs 200]

Needs torch and scikit-learn: pip install "flexray-runtime[examples]"
"""

from __future__ import annotations

import argparse
import time

import digits
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import flexray as flex

HELD_BACK = 400


def train(epochs: int) -> tuple[int, int, float]:
    """One member's part; returns its rank, how many they are, and the accuracy of the model they all have."""
    here = flex.current()
    dist.init_process_group("gloo")  # the environment says the rest; flexray destroys the group afterwards
    images, labels = (torch.from_numpy(part) for part in digits.data())
    test_x, test_y = images[-HELD_BACK:], labels[-HELD_BACK:]
    # Parts of equal size, or the mean of the members' gradients is not that of the batch.
    size = (len(images) - HELD_BACK) // here.world_size * here.world_size
    mine_x, mine_y = images[here.rank : size : here.world_size], labels[here.rank : size : here.world_size]

    torch.manual_seed(0)
    state = here.restored or {"epoch": 0}  # what rank 0 has stored, on every rank
    network = digits.network()
    model = DistributedDataParallel(network)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    if here.restored is not None:
        network.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    for epoch in range(state["epoch"], epochs):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(mine_x), mine_y).backward()
        optimizer.step()
        if everybody_stores(epoch):
            parts = {"model": network.state_dict(), "optimizer": optimizer.state_dict()}
            here.checkpoint({"epoch": epoch + 1, **parts})
    with torch.inference_mode():
        right = (network(test_x).argmax(dim=1) == test_y).float().mean()
    return here.rank, here.world_size, float(right)


def everybody_stores(epoch: int) -> bool:
    """Every 20 epochs, and once any member is asked to stop: then all of them end after the same epoch."""
    asked = torch.tensor(float(flex.current().should_yield()))
    dist.all_reduce(asked, op=dist.ReduceOp.MAX)
    return bool(asked) or epoch % 20 == 19


def main() -> None:
    parser = argparse.ArgumentParser(description="Train digits with several members of a gang.")
    parser.add_argument("--members", type=int, default=4, help="at most so many; two are enough")
    parser.add_argument("--epochs", type=int, default=200)
    options = parser.parse_args()

    flex.init()
    together = flex.task(accelerator=0.25, gang=(min(2, options.members), options.members))(train)
    began = time.perf_counter()
    results = together.remote(options.epochs).result()
    print(f"{results[0][1]} members trained for {options.epochs} epochs in {time.perf_counter() - began:.1f} s")
    for rank, _, accuracy in results:
        print(f"rank {rank}: accuracy {accuracy:.3f}")
    flex.shutdown()


if __name__ == "__main__":
    main()
