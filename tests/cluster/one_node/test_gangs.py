"""Gangs on a local Ray: members that train together, are lost, preempted, and grow."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flexray as flex
from cluster.conftest import until
from flexray import errors

CONFIG = {"cpu_devices": 1, "grace_seconds": 1, "rematch_seconds": 0.5, "linger_seconds": 0.1}
WAIT = 90
STEPS = 8


@pytest.fixture(autouse=True)
def all_is_given_back(pool: None) -> Iterator[None]:
    """After each test nothing waits, runs, or holds a slice that is not warm."""
    yield
    until(lambda: not flex.pool().waiting and not flex.pool().running)
    until(lambda: all(one.state == "idle" for one in flex.pool().slices))


def leave(file: Path, text: object = "x") -> None:
    with file.open("a") as out:
        out.write(f"{text}\n")


def lines(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


# -- training ------------------------------------------------------------------------------------------------


def train(rank: int, size: int, wrap: Any, state: dict[str, Any] | None, after: Any) -> list[list[float]]:
    """Train on this rank's part of each batch of 24; calls ``after(step, state)``; returns the parameters."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)
    plain = torch.nn.Sequential(*layers).double()
    data = torch.randn(STEPS, 24, 8, dtype=torch.float64)
    first = 0
    if state is not None:
        plain.load_state_dict(state["model"])
        first = state["step"]
    model = wrap(plain)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)  # without momentum: the parameters are all its state
    for step in range(first, STEPS):
        rows = data[step][rank::size]
        loss = ((model(rows) - rows.sum(1, keepdim=True)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after(step + 1, {"step": step + 1, "model": plain.state_dict()})
    return [parameter.detach().flatten().tolist() for parameter in plain.parameters()]


def train_together(log: Path) -> tuple[list[list[float]], int]:
    """One of three members, of which that of rank 2 dies in the middle; the others go on in their slices."""
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    here = flex.current()
    dist.init_process_group("gloo")  # no arguments: the environment says all of it
    assert (dist.get_rank(), dist.get_world_size()) == (here.rank, here.world_size)
    found = here.restored
    leave(log, 0 if found is None else found["step"])

    def after(step: int, state: dict[str, Any]) -> None:
        here.checkpoint(state)
        if step == STEPS // 2 and here.rank == 2 and found is None:
            os.kill(os.getpid(), signal.SIGKILL)

    parameters = train(here.rank, here.world_size, DistributedDataParallel, found, after)
    return parameters, here.world_size


def test_members_train_as_one_process_does_also_when_one_is_killed(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    log = tmp_path / "log"
    results = flex.task(accelerator=0.25, gang=(2, 3), retries=1)(train_together).remote(log).result(WAIT)
    alone = train(0, 1, lambda model: model, None, lambda step, state: None)
    found = [int(line) for line in lines(log)]
    assert found[:3] == [0] * 3  # three begin, and two go on, from one checkpoint
    assert found[3:5] in ([STEPS // 2 - 1] * 2, [STEPS // 2] * 2)
    assert {size for _, size in results} == {len(results)}
    for parameters, _ in results:
        for mine, other in zip(parameters, alone, strict=True):
            assert torch.allclose(torch.tensor(mine), torch.tensor(other), rtol=1e-9, atol=1e-12)


# -- losses and errors ---------------------------------------------------------------------------------------


def count(steps: int, log: Path, dies: int | None = None) -> int:
    """Counts, storing only when asked to give way; stays in the middle of the first attempt, where one rank may die."""
    here = flex.current()
    step = here.restored or 0
    leave(log, f"{here.rank}:{step}")
    while step < steps // 2:
        step += 1
    while step < steps:
        if here.restored is None:
            leave(log.with_suffix(f".{here.rank}"))
            if here.rank == dies:
                until(lambda: all(log.with_suffix(f".{rank}").exists() for rank in range(here.world_size)))
                os.kill(os.getpid(), signal.SIGKILL)
        else:
            step += 1
        here.checkpoint(step, every=3600)
        time.sleep(0.01)
    return step


@pytest.mark.parametrize("kept", ["with the client", "in a directory"])
def test_a_gang_that_loses_a_member_goes_on_where_it_was(tmp_path: Path, kept: str) -> None:
    log, folder = tmp_path / "log", tmp_path / "kept"
    folder.mkdir()
    request = flex.Request(checkpoint_place=str(folder) if kept == "in a directory" else None)
    gang = flex.task(accelerator=0.25, gang=3, retries=1, request=request)
    assert gang(count).remote(6, log, 1).result(WAIT) == [6] * 3
    until(lambda: not list(folder.iterdir()))  # nothing is left of it
    assert sorted(lines(log)) == ["0:0", "0:3", "1:0", "1:3", "2:0", "2:3"]


def die_or_wait(rank: int) -> None:
    if flex.current().rank == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    while not flex.current().should_yield():
        time.sleep(0.01)


def test_without_retries_a_lost_member_is_lease_lost() -> None:
    future = flex.task(accelerator=0.25, gang=3, retries=0)(die_or_wait).remote(1)
    with pytest.raises(errors.LeaseLost, match="retries=0"):
        future.result(WAIT)


def fail_or_wait(rank: int, log: Path) -> None:
    """Raises on one rank; of the others one looks whether it should stop, and one does not."""
    here = flex.current()
    leave(log, os.getpid())
    if here.rank == rank:
        until(lambda: len(lines(log)) == here.world_size)
        raise KeyError("mine")
    while here.rank == 0 or not here.should_yield():
        time.sleep(0.01)


def test_an_exception_of_one_member_ends_the_gang(tmp_path: Path) -> None:
    log = tmp_path / "log"
    future = flex.task(accelerator=0.25, gang=4)(fail_or_wait).remote(2, log)
    with pytest.raises(KeyError, match="rank 2 of 4: KeyError: 'mine'") as caught:
        future.result(WAIT)
    assert isinstance(caught.value, errors.TaskError) and len(lines(log)) == 4
    until(lambda: not flex.pool().slices)
    assert flex.pool().devices[0].share_free == 1.0


def test_cancelled_by_force(tmp_path: Path) -> None:
    log = tmp_path / "log"
    future = flex.task(accelerator=0.25, gang=2)(fail_or_wait).remote(5, log)
    until(lambda: len(lines(log)) == 2)
    assert not future.cancel()
    assert future.cancel(force=True)
    with pytest.raises(errors.Cancelled):
        future.result(WAIT)


# -- sharing -------------------------------------------------------------------------------------------------


def describe(log: Path | None = None) -> tuple[int, int, str, list[str]]:
    here = flex.current()
    if log is not None:
        leave(log, f"{here.request.split('.')[1]}")
        until(lambda: lines(log).count(here.request.split(".")[1]) == here.world_size)
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return here.rank, here.world_size, here.rendezvous, [os.environ[name] for name in names]


def test_two_gangs_that_each_need_the_whole_pool_run_one_after_the_other(tmp_path: Path) -> None:
    log = tmp_path / "log"
    gang = flex.task(accelerator=0.5, gang=2)(describe)
    for results in flex.get([gang.remote(log), gang.remote(log)], timeout=WAIT):
        place = results[0][2]
        host, _, port = place.rpartition(":")
        said = [(rank, 2, place, [str(rank), "2", host, port, str(rank), "2"]) for rank in range(2)]
        assert results == said
    first, *rest = lines(log)
    assert rest.count(first) == 1 and lines(log)[1] == first


def test_outside_a_gang_everybody_is_alone() -> None:
    def alone() -> Any:
        here = flex.current()
        return here.rank, here.world_size, here.rendezvous, [os.environ.get(n) for n in ("RANK", "MASTER_ADDR")]

    assert flex.task(accelerator=0.25)(alone).remote().result(WAIT) == (0, 1, "", [None, None])


def hold(file: Path) -> None:
    while file.exists():
        time.sleep(0.02)


def grow_to(size: int, log: Path) -> Any:
    """Counts, storing each step, until it is as large as that."""
    here = flex.current()
    leave(log, f"{here.world_size}:{'fresh' if here.restored is None else 'restored'}")
    step = here.restored or 0
    while here.world_size < size:
        step += 1
        here.checkpoint(step, every=0.1)
        time.sleep(0.02)
    return here.restored > 0


def test_an_elastic_gang_starts_with_what_is_there_and_grows(tmp_path: Path) -> None:
    busy, log = tmp_path / "busy", tmp_path / "log"
    busy.touch()
    holder = flex.task(accelerator=0.75)(hold).remote(busy)
    until(lambda: any(one.state == "held" for one in flex.pool().slices))
    future = flex.task(accelerator=0.25, gang=(1, 3))(grow_to).remote(3, log)
    until(lambda: lines(log) == ["1:fresh"])
    busy.unlink()
    holder.result(WAIT)
    assert future.result(WAIT) == [True] * 3
    assert lines(log) == ["1:fresh", *["3:restored"] * 3]


def test_a_gang_makes_room_as_a_whole_and_goes_on_where_it_was(tmp_path: Path) -> None:
    low_log, high_log = tmp_path / "low", tmp_path / "high"
    low = flex.task(accelerator=0.5, gang=2, retries=0, request=flex.Request(preemptible=True))
    future = low(count).remote(6, low_log)
    until(lambda: all(low_log.with_suffix(f".{rank}").exists() for rank in range(2)))
    high = flex.task(accelerator=0.5, gang=2, priority=5)(describe).remote(high_log)
    assert [rank for rank, *_ in high.result(WAIT)] == [0, 1]
    assert future.result(WAIT) == [6, 6] and sorted(lines(low_log)) == ["0:0", "0:3", "1:0", "1:3"]


def inner() -> int:
    return flex.current().rank


def outer() -> tuple[list[int], int]:
    """A task that waits for a gang, and for another one that takes its result."""
    results = flex.task(accelerator=0.25, gang=2)(inner).remote()
    return results.result(WAIT), flex.task(accelerator=0.25)(len).remote(results).result(WAIT)


def test_a_task_may_wait_for_a_gang() -> None:
    assert flex.task(accelerator=0.25)(outer).remote().result(WAIT) == ([0, 1], 2)


def test_what_a_gang_cannot_be() -> None:
    with pytest.raises(errors.InvalidRequest, match="gang=2 is for tasks"):
        flex.actor(accelerator=0.5, gang=2)(dict)
    with pytest.raises(errors.UsageError, match=r"no \.stream"):
        flex.task(accelerator=0.25, gang=2)(describe).stream()
    assert flex.task(accelerator=0.25, gang=2)(abs)(-1) == 1  # called plainly it runs here
    with pytest.raises(errors.Infeasible, match="at most 4 would ever fit"):
        flex.task(accelerator=0.25, gang=5)(describe).remote().result(WAIT)
