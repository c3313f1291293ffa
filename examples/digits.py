"""What the PyTorch examples share: a small network for scikit-learn's digits (1797 images of 8 x 8 pixels).

It is a module, not part of the scripts, because ``functools.cache`` needs one: what a
script defines itself travels to the slices by value, and a cache cannot.
"""

from __future__ import annotations

import functools
import io

import numpy as np
import torch
from sklearn.datasets import load_digits


def network() -> torch.nn.Module:
    """Untrained: 64 pixels in, a score for each of the ten digits out."""
    return torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))


def data() -> tuple[np.ndarray, np.ndarray]:
    """All images, as rows of 64 numbers in [0, 1], and the digits they show."""
    images, digits = load_digits(return_X_y=True)
    return (images / 16.0).astype(np.float32), digits


def train(epochs: int = 60, held_back: int = 400) -> bytes:
    """Train on all but the last ``held_back`` images, on whatever device this runs on; returns the weights."""
    import flexray as flex

    device = flex.current().torch_device
    images, digits = (torch.from_numpy(part[:-held_back]).to(device) for part in data())
    torch.manual_seed(0)
    model = network().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(epochs):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), digits).backward()
        optimizer.step()
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.getvalue()


@functools.cache
def model(weights: bytes, device: str) -> torch.nn.Module:
    """The trained network on a device: made once per process, so once per slice, however many calls ask for it."""
    print(f"loading the model on {device}")
    loaded = network()
    loaded.load_state_dict(torch.load(io.BytesIO(weights), map_location=device, weights_only=True))
    return loaded.to(device).eval()


def classify(model: torch.nn.Module, images: np.ndarray, device: str) -> tuple[np.ndarray, np.ndarray]:
    """The digit in each image, and how sure the model is of it, in [0, 1]."""
    with torch.inference_mode():
        sure, digits = model(torch.from_numpy(images).to(device)).softmax(dim=1).max(dim=1)
    return digits.cpu().numpy(), sure.cpu().numpy()
