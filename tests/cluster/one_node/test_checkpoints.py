"""A training loop that is moved goes on where it was."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import flexray as flex
from cluster.conftest import until

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("pool")

CONFIG = {"fake_devices": "1xA100-80GB.1xT4", "rematch_seconds": 1, "grace_seconds": 5}
STEPS = 60


def hold(file: str) -> None:
    """Keep the device as long as the file is there; empties the file when it has the device."""
    Path(file).write_text("")
    while Path(file).exists():
        time.sleep(0.05)


class Training:
    """A small network with everything that has state: momentum, dropout, a schedule, shuffled data."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.inputs = torch.randn(256, 16)
        self.labels = (self.inputs.sum(1) > 0).long()
        layers = torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(64, 2)
        self.model = torch.nn.Sequential(*layers)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, STEPS)
        self.losses: list[float] = []

    def step(self) -> None:
        picked = torch.randperm(256)[:32]
        loss = torch.nn.functional.cross_entropy(self.model(self.inputs[picked]), self.labels[picked])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.losses.append(loss.item())

    @property
    def state(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}
        states = {name: part.state_dict() for name, part in parts.items()}
        return {**states, "losses": self.losses, "random": torch.get_rng_state()}

    def load(self, state: dict[str, Any]) -> None:
        for name in ("model", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        self.losses = state["losses"]
        torch.set_rng_state(state["random"])


def train(log: str) -> tuple[list[float], dict[str, Any], int]:
    """Train to the end; on the T4 to the middle, until asked to leave. Returns losses, parameters, attempt."""
    here, training = flex.current(), Training()
    if here.restored is not None:
        training.load(here.restored)
    with Path(log).open("a") as file:
        file.write(f"{here.device.type.name} {len(training.losses)}\n")
    while len(training.losses) < STEPS:
        if "T4" not in here.device.type.name or len(training.losses) < STEPS // 2:
            training.step()
        else:
            time.sleep(0.02)
        here.checkpoint(training.state, every=3600)  # only when it is asked to give way
    return training.losses, training.model.state_dict(), here.attempt


def test_a_training_loop_that_is_moved_ends_with_the_same_parameters(tmp_path: Path) -> None:
    busy, log = tmp_path / "busy", tmp_path / "log"
    busy.write_text("wanted")
    first = flex.task(gpu=1, types="nvidia/A100*")(hold).remote(str(busy))
    until(lambda: not busy.read_text())
    request = flex.Request(runtime=36_000.0, throughput={"nvidia/A100*": 1.0, "nvidia/T4": 0.2}, preemptible=True)
    moved = flex.task(gpu=1, retries=0, request=request)(train).remote(str(log))
    until(lambda: log.exists() and log.read_text() == "nvidia/T4 0\n")
    time.sleep(0.2)  # some steps
    busy.unlink()
    first.result(60)
    losses, parameters, attempt = moved.result(60)
    places = [line.split() for line in log.read_text().splitlines()]
    assert [device for device, _ in places] == ["nvidia/T4", "nvidia/A100-80GB"] and attempt == 2
    assert 0 < int(places[1][1]) <= STEPS // 2, "it goes on where it was"
    alone = Training()
    while len(alone.losses) < STEPS:
        alone.step()
    assert losses == alone.losses
    assert all(torch.equal(parameters[name], value) for name, value in alone.model.state_dict().items())
