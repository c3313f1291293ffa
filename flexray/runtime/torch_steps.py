"""Turns at torch's steps, without a word in the user's code.

A step of inference is the outermost module's forward pass. A training step goes on after it, through the backward
pass to the optimizer's step; fetching the next batch ends it too. Hooks look at no tensor and change nothing. In
what torch compiles there are none: a compiled module takes its turn as a whole, around it.
"""

from __future__ import annotations

import functools
import importlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol


class Steps(Protocol):
    """What hooks tell: a Gate, in tests something that counts."""

    def begin(self) -> None: ...

    def end(self) -> None: ...

    def stay_open(self, begun: float) -> None: ...

    def rest(self) -> None: ...


class _Here(threading.local):
    """Whether this thread is in a module's forward pass."""

    inside: bool = False


def take_turns(torch: Any, gate: Steps) -> list[Callable[[], None]]:
    """Install hooks for all modules, optimizers, data loaders and graphs; returns what removes them again."""
    undo = _hook_modules(torch, gate)
    # By its full name: torch.optim hides it.
    optimizer = importlib.import_module("torch.optim.optimizer")
    hook = getattr(optimizer, "register_optimizer_step_post_hook", None)
    if hook is not None:
        undo.append(hook(lambda *_: gate.rest()).remove)
    loader = getattr(torch.utils.data.dataloader, "_BaseDataLoaderIter", None)
    undo += _wrap(loader, "__next__", before=gate.rest)
    graph = getattr(torch.cuda, "CUDAGraph", None)
    # The capture of a graph is one step: to synchronise in the middle would break it.
    undo += _wrap(graph, "capture_begin", before=gate.begin, failed=gate.end)
    undo += _wrap(graph, "capture_end", after=gate.end)
    return undo


def _hook_modules(torch: Any, gate: Steps) -> list[Callable[[], None]]:
    """Around every module's call, not by torch's global hooks: those cost each inner module ten times as much, end no
    pass that is interrupted, and make torch.compile warn."""
    here, process = _Here(), os.getpid()
    compiling, learns = torch.compiler.is_compiling, torch.is_grad_enabled
    plain = torch.nn.Module.__call__

    @functools.wraps(plain)
    def call(module: Any, *args: Any, **options: Any) -> Any:
        # A forked child computes beside its parent's step, for it: a loader's worker would wait for its own reader.
        if here.inside or compiling() or os.getpid() != process:
            return plain(module, *args, **options)
        gate.begin()
        here.inside, begun = True, time.monotonic()
        try:
            return plain(module, *args, **options)
        finally:
            here.inside = False
            if module.training and learns():
                gate.stay_open(begun)
            gate.end()

    torch.nn.Module.__call__ = call
    return [functools.partial(setattr, torch.nn.Module, "__call__", plain)]


def _nothing() -> None:
    pass


def _wrap(
    owner: Any,
    name: str,
    before: Callable[[], None] = _nothing,
    after: Callable[[], None] = _nothing,
    failed: Callable[[], None] = _nothing,
) -> list[Callable[[], None]]:
    """Put calls around a method, where torch still has it: ``failed()`` when it raises, ``after()`` in any case."""
    method = getattr(owner, name, None)
    if method is None:
        return []

    @functools.wraps(method)
    def wrapped(*args: Any, **options: Any) -> Any:
        before()
        try:
            return method(*args, **options)
        except BaseException:
            failed()
            raise
        finally:
            after()

    setattr(owner, name, wrapped)
    return [functools.partial(setattr, owner, name, method)]
