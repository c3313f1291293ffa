"""Turns: slices of a device use it one after the other, each for its share of the time. See docs/isolation.md.

For devices that nothing stronger limits. It holds code that asks for its turn: torch's steps do by themselves
(``flexray/runtime/torch_steps.py``), other code with ``flex.turn()``. Code that does neither has the device whenever it
likes. Torch is told how much of the device's memory it may take. On CPU devices a slice has all cores in its turn.

It also lends: what a slice leaves idle the others use up to their burst, and it is back after one turn.
"""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flexray.devices.enforcers.enforcer import Cell, NotResizable, SliceSetup, Support, Usage
from flexray.devices.enforcers.framework import THREAD_VARIABLES
from flexray.devices.private import private_folder
from flexray.devices.turns.keeper import TurnKeeper
from flexray.errors import DeviceError, IsolationFailed
from flexray.model.amounts import WHOLE
from flexray.model.devices import Device, Family
from flexray.model.isolation import Isolation, Strength

SOCKET = "FLEXRAY_TURNS_SOCKET"
"""Tells processes that a slice starts where to ask for turns."""

_NOTE = "its share of the time is kept as far as its steps are torch's or use flex.turn(); no step is cut short"

_SOCKET_PATH = 107
"""Bytes in the path of a Unix socket."""
_NAME = 16
"""Characters of a socket's name: a digest, since ids of slices are too long."""
_ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class TurnsHeld:
    """What a slice had of its device, in seconds, since ``over`` seconds ago.

    Attributes:
        over: seconds since the slice came.
        used: seconds it held the turn and had something to do.
        lent: how many of them were above its share, averaged over ten seconds: others left them idle.
        turns: how many turns it was given.
    """

    over: float
    used: float
    lent: float
    turns: int

    @property
    def share(self) -> float:
        """Part of the time that it used; 0.0 of no time."""
        return self.used / self.over if self.over > 0 else 0.0


class Turns:
    """The turns of a node's devices. Thread-safe."""

    isolation = Isolation.TURNS

    def __init__(self, state: Path) -> None:
        """Args: state: the sockets are under it."""
        self._folder = _short(state / "turns")
        self._keeper = TurnKeeper()

    def probe(self, devices: Sequence[Device]) -> dict[str, Support]:
        """Starts a server, takes a turn and ends it. The device is not asked: whatever it is, turns can be taken."""
        reason = self._reason() if devices else ""
        return {device.id: _support(device, reason) for device in devices}

    def prepare(self, cell: Cell) -> SliceSetup:
        """A socket for the slice. A slice of several devices has them whole, so there is nobody to take turns with."""
        cores = _cores(cell)
        setup = SliceSetup(
            self.isolation,
            env=dict.fromkeys(THREAD_VARIABLES, str(len(cores))) if cores else {},
            cores=cores if hasattr(os, "sched_setaffinity") else (),
            threads=len(cores),
            memory_fraction=_memory_fraction(cell),
        )
        if len(cell.devices) != 1:
            return setup
        _make_private(self._folder)
        self._open(cell)
        path = os.fspath(self._path(cell.slice))
        return replace(setup, env={**setup.env, SOCKET: path}, turns=path, notes=(_NOTE,))

    def resize(self, cell: Cell) -> None:
        """Its weight and its cap change from the next turn on."""
        if not self._keeper.is_open(cell.slice):
            raise NotResizable(f"{cell.slice} takes no turns: prepare() it first")
        self._open(cell)

    def usage(self, cell: Cell, pids: Collection[int]) -> Usage:
        """Seconds it used its turns."""
        held = self.held().get(cell.slice)
        return Usage(busy_seconds=None if held is None else held.used)

    def held(self) -> dict[str, TurnsHeld]:
        """Slice -> what it had of its device; {} when the server does not answer."""
        try:
            report = self._keeper.report()
        except IsolationFailed:
            return {}
        return {name: TurnsHeld(of["over"], of["used"], of["lent"], int(of["turns"])) for name, of in report.items()}

    def release(self, cell: Cell) -> None:
        """The slice's socket goes; the server too, with the last."""
        self._keeper.close(cell.slice)

    def sweep(self, keep: Collection[str]) -> None:
        """Remove sockets that nobody listens at any more. One that somebody does is another agent's, or wanted."""
        for slice_id in self._keeper.opened():
            if slice_id not in keep:
                self._keeper.close(slice_id)
        kept = {self._path(slice_id) for slice_id in keep}
        for path in self._folder.glob("?" * _NAME):
            if path not in kept and not _is_served(path):
                path.unlink(missing_ok=True)

    def _open(self, cell: Cell) -> None:
        device = cell.devices[0].id
        path = os.fspath(self._path(cell.slice))
        self._keeper.open(cell.slice, path, device, cell.share, max(cell.share, cell.burst))

    def _path(self, slice_id: str) -> Path:
        return self._folder / hashlib.sha256(slice_id.encode()).hexdigest()[:_NAME]

    def _reason(self) -> str:
        """Why it does not work here, or ""."""
        name = f"probe {os.getpid()}"
        keeper, path = TurnKeeper(), self._path(name)
        try:
            _make_private(self._folder)
            keeper.open(name, os.fspath(path), name, 1, 1000)
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(_ANSWER_S)
                client.connect(os.fspath(path))
                client.send(b"A\n")
                return "" if client.recv(1) == b"G" else "the server of turns gives no turn"
        except (IsolationFailed, OSError) as error:
            return str(error)
        finally:
            keeper.end()


def _support(device: Device, reason: str) -> Support:
    if device.family is Family.CPU:
        reason = reason or ("" if device.cores else "no host cores")
        return Support(not reason, reason)
    return Support(not reason, reason, Strength.COOPERATIVE if device.type.memory > 0 else Strength.NONE)


def _cores(cell: Cell) -> tuple[int, ...]:
    """Host cores that the slice computes with in its turns; () on real devices."""
    without = [device.id for device in cell.devices if device.family is Family.CPU and not device.cores]
    if without or not cell.devices:
        raise IsolationFailed(f"{cell.slice}: {', '.join(without) or 'no device'} has no host cores")
    return tuple(sorted({core for device in cell.devices for core in device.cores}))


def _memory_fraction(cell: Cell) -> float:
    """What torch may take of the smallest device; 0.0: all, or nobody knows, or host memory."""
    smallest = min(device.type.memory for device in cell.devices)
    if cell.share >= WHOLE or smallest <= 0 or any(device.family is Family.CPU for device in cell.devices):
        return 0.0
    return min(1.0, cell.memory / smallest)


def _short(folder: Path) -> Path:
    """The folder, or one of a shorter name for it: paths of sockets are short."""
    if len(os.fsencode(folder)) + 1 + _NAME <= _SOCKET_PATH:
        return folder
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:_NAME]
    return Path(tempfile.gettempdir()) / f"flexray-{os.getuid()}" / name


def _make_private(folder: Path) -> None:
    """Only this user can reach the sockets in it. Raises IsolationFailed where somebody else made it."""
    try:
        private_folder(folder.parent)
        private_folder(folder)
    except DeviceError as error:
        raise IsolationFailed(f"no folder for the turns' sockets: {error}") from None


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_ANSWER_S)
        try:
            client.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # full, or not ours: somebody is there
            return True
    return True
