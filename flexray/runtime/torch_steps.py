"""Turns at torch's steps, without a word in the user's code.

A step of inference is the outermost module's forward pass. A training step goes on after it, through the backward
pass to the optimizer's step; fetching the next batch ends it too. Hooks look at no tensor and change nothing. In
what torch compiles they vanish: a compiled module takes its turn as a whole, around it.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from typing import Any, Protocol


class Steps(Protocol):
    """What hooks tell: a Gate, in tests something that counts."""

    def begin(self) -> None: ...

    def end(self) -> None: ...

    def stay_open(self, begun: float) -> None: ...

    def rest(self) -> None: ...


class _Here(threading.local):
    """This thread's outermost module, while its forward pass runs."""

    module: Any = None
    begun: float = 0.0


def take_turns(torch: Any, gate: Steps) -> list[Any]:
    """Install hooks for all modules, optimizers and data loaders; returns handles with ``remove()`` where there are."""
    handles = _hook_modules(torch, gate)
    optimizer = getattr(torch.optim.optimizer, "register_optimizer_step_post_hook", None)
    if optimizer is not None:
        handles.append(optimizer(lambda *_: gate.rest()))
    _before(torch.utils.data.dataloader, "_BaseDataLoaderIter", "__next__", gate.rest)
    _hook_graphs(torch, gate)
    return handles


def _hook_modules(torch: Any, gate: Steps) -> list[Any]:
    here, process = _Here(), os.getpid()
    compiling = torch.compiler.is_compiling

    def before(module: Any, _: Any) -> None:
        # A forked child computes beside its parent's step, for it: a loader's worker would wait for its own reader.
        if compiling() or os.getpid() != process:
            return
        if here.module is module:  # an interrupt left its last pass without the hook after it
            gate.end()
        elif here.module is not None:
            return
        gate.begin()
        here.module, here.begun = module, time.monotonic()

    def after(module: Any, _: Any, output: Any) -> None:
        if compiling() or here.module is not module:
            return
        here.module = None
        if module.training and torch.is_grad_enabled():
            gate.stay_open(here.begun)
        gate.end()

    modules = torch.nn.modules.module
    return [
        modules.register_module_forward_pre_hook(before),
        modules.register_module_forward_hook(after, always_call=True),
    ]


def _hook_graphs(torch: Any, gate: Steps) -> None:
    """The capture of a CUDA graph is one step: to synchronise in the middle would break it."""
    graph: Any = getattr(torch.cuda, "CUDAGraph", None)
    begin, end = getattr(graph, "capture_begin", None), getattr(graph, "capture_end", None)
    if begin is None or end is None:
        return

    @functools.wraps(begin)
    def capture_begin(*args: Any, **options: Any) -> Any:
        gate.begin()
        try:
            return begin(*args, **options)
        except BaseException:
            gate.end()
            raise

    @functools.wraps(end)
    def capture_end(*args: Any, **options: Any) -> Any:
        try:
            return end(*args, **options)
        finally:
            gate.end()

    graph.capture_begin, graph.capture_end = capture_begin, capture_end


def _before(module: Any, kind: str, name: str, action: Any) -> None:
    """Call ``action()`` before a method, where torch still has it."""
    owner = getattr(module, kind, None)
    method = getattr(owner, name, None)
    if method is None:
        return

    @functools.wraps(method)
    def wrapped(*args: Any, **options: Any) -> Any:
        action()
        return method(*args, **options)

    setattr(owner, name, wrapped)
