"""``flex.turn()``, and this process's gate: entered by a slice once, found by processes that it starts."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys

from flexray.devices.enforcers.turns import SOCKET
from flexray.runtime.after_import import after_import
from flexray.runtime.turn_gate import Gate

SWITCH = "FLEXRAY_TURNS"
"""``off`` in a task's environment: torch's steps take no turns by themselves; ``flex.turn()`` still does."""

_BACKENDS: dict[str, tuple[str, ...]] = {"cuda": ("cuda", "hip"), "npu": (), "xpu": ("xpu",)}
"""Modules of torch for devices that work while the program goes on, with what ``torch.version`` says of a build that
has them. torch_npu is a package of its own, which may be imported later."""

_gate: Gate | None = None
_looked = False


def enter_turns(path: str) -> None:
    """Called once in a slice's process, before user code: it takes turns at this socket; "" takes none."""
    if not path:
        return
    gate = _open(path)
    if os.environ.get(SWITCH, "").lower() != "off":
        after_import("torch", lambda torch: _install(torch, gate))


_NO_TURNS = contextlib.nullcontext()


def turn() -> contextlib.AbstractContextManager[None]:
    """Work on the device only while it is this slice's turn.

        with flex.turn():
            outputs = model(batch)

    Waits at the beginning until the turn comes, and at the end until the device has done what it was given. Where
    slices take no turns, and outside a slice, it does neither. Torch's modules, optimisers and data loaders
    take turns by themselves; this is for everything else. A turn inside a turn is part of it. Make it
    short: others wait until it ends, and for two seconds over their time they let it pass for hung and go on.
    """
    return _gate or _find() or _NO_TURNS


def _find() -> Gate | None:
    """The gate of the slice that started this process, if one did. Looks once."""
    global _looked
    if _gate is None and not _looked:
        _looked = True
        path = os.environ.get(SOCKET, "")
        if path:
            _open(path)
    return _gate


def _open(path: str) -> Gate:
    global _gate
    if _gate is None:
        os.register_at_fork(after_in_child=_forget)
        atexit.register(_leave)  # an interpreter with torch in it takes half a second to end
    _gate = Gate(path, synchronise)
    return _gate


def _forget() -> None:
    if _gate is not None:
        _gate.forget()


def _leave() -> None:
    if _gate is not None:
        _gate.leave()


def _install(torch: object, gate: Gate) -> None:
    from flexray.runtime.torch_steps import take_turns

    take_turns(torch, gate)


def synchronise() -> None:
    """Wait until the device has done what torch gave it. Nothing where torch has used no device."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    found = torch.__dict__  # what torch lacks it looks for elsewhere first, at length
    for name in _backends():
        if name in found and found[name].is_initialized():
            found[name].synchronize()


@functools.cache
def _backends() -> list[str]:
    """Those that this build of torch may have: they are looked at after each step. Torch is loaded."""
    version = vars(sys.modules["torch"].version)
    return [name for name, built in _BACKENDS.items() if not built or any(version.get(word) for word in built)]
