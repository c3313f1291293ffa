"""The server of turns as slices see it: real sockets, real processes, nobody's steps timed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flexray.devices.enforcers.enforcer import Cell, NotResizable
from flexray.devices.enforcers.turns import SOCKET, Turns
from flexray.devices.turns.server import MOST_CONNECTIONS, TurnServer
from flexray.errors import IsolationFailed
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.devices import Device, DeviceType, Family
from flexray.model.isolation import Isolation, Strength

GPU = Device("ab12/gpu0", "ab12", 0, DeviceType("nvidia/T4", MemoryMiB(16000)), Family.GPU, "fake")
CPU = replace(GPU, id="ab12/cpu0", family=Family.CPU, cores=(0,))
HOLDER = """
import socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[1])
link.send(b"A\\n")
print(link.recv(99).decode(), flush=True)
sys.stdin.read()
"""


def cell(name: str, share: int = 250, burst: int = 1000, device: Device = GPU) -> Cell:
    return Cell(name, (device,), Share(share), Share(burst), MemoryMiB(100))


@pytest.fixture
def turns(tmp_path: Path) -> Iterator[Turns]:
    enforcer = Turns(tmp_path)
    yield enforcer
    for name in ("a", "b", "c"):
        enforcer.release(cell(name))


class Client:
    """A process of a slice, as far as the server sees one."""

    def __init__(self, path: str) -> None:
        self.link = socket.socket(socket.AF_UNIX)
        self.link.settimeout(60)
        self.link.connect(path)

    def ask(self) -> Client:
        self.link.send(b"A\n")
        return self

    def told(self) -> int:
        """Microseconds of the turn it gets; 0: the connection was ended."""
        try:
            said = self.link.recv(99)
        except ConnectionResetError:  # ended with something unread
            said = b""
        return int(said[2:]) if said else 0

    def has_nothing(self) -> bool:
        """Whether it was told nothing, after the server has certainly heard what was said before."""
        self.link.setblocking(False)
        try:
            return not self.link.recv(99)
        except BlockingIOError:
            return True
        finally:
            self.link.settimeout(60)


def test_a_turn_passes_from_one_to_the_other(turns: Turns) -> None:
    a, b = (Client(turns.prepare(cell(name)).turns) for name in "ab")
    assert 0 < a.ask().told() <= 50_000
    b.ask()
    assert turns.held()["b"].turns == 0 and b.has_nothing()
    a.link.send(b"R 0\n")
    assert b.told() > 0


def test_a_crashed_holder_loses_the_turn(turns: Turns) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, turns.prepare(cell("a")).turns], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None and holder.stdin is not None
    assert holder.stdout.readline().startswith(b"G")
    b = Client(turns.prepare(cell("b")).turns).ask()
    assert turns.held()["a"].turns == 1 and b.has_nothing()
    holder.kill()
    assert b.told() > 0
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()


def test_a_stopped_holder_loses_it_too_and_pays_when_it_goes_on(turns: Turns) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, turns.prepare(cell("a")).turns], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None and holder.stdin is not None
    assert holder.stdout.readline().startswith(b"G")
    os.kill(holder.pid, signal.SIGSTOP)
    b = Client(turns.prepare(cell("b")).turns).ask()
    assert b.told() > 0
    assert turns.held()["a"].used > 2.0
    os.kill(holder.pid, signal.SIGCONT)
    holder.communicate()
    assert turns.held()["a"].used >= 2.0


def test_processes_of_a_slice_share_its_turn(turns: Turns) -> None:
    path = turns.prepare(cell("a")).turns
    one, other = Client(path), Client(path)
    one.ask().told()
    left = other.ask().told()
    assert left > 0
    b = Client(turns.prepare(cell("b")).turns).ask()
    one.link.send(b"R 0\n")
    assert turns.held()["b"].turns == 0 and b.has_nothing()
    other.link.close()
    assert b.told() > 0


def test_devices_have_turns_of_their_own(turns: Turns) -> None:
    a = Client(turns.prepare(cell("a")).turns)
    b = Client(turns.prepare(cell("b", device=replace(GPU, id="ab12/gpu1", index=1))).turns)
    assert a.ask().told() > 0 and b.ask().told() > 0


@pytest.mark.parametrize("said", [b"B\n", b"R\n", b"R -1\n", b"R 1e3\n", b"\xff\xfe\n", b"\n", b"A" * 1000, b"A \n"])
def test_nonsense_ends_that_connection_alone(turns: Turns, said: bytes) -> None:
    a, b = (Client(turns.prepare(cell(name)).turns) for name in "ab")
    a.ask().told()
    b.ask()
    a.link.send(said)
    assert a.told() == 0
    assert b.told() > 0


def test_a_message_may_come_in_pieces(turns: Turns) -> None:
    a = Client(turns.prepare(cell("a")).turns)
    a.ask().told()
    for piece in (b"R ", b"1", b"2\nA", b"\n"):
        a.link.send(piece)
    assert a.told() > 0


def test_many_clients(turns: Turns) -> None:
    path = turns.prepare(cell("a")).turns
    clients = [Client(path).ask() for _ in range(MOST_CONNECTIONS)]
    assert all(client.told() > 0 for client in clients)
    assert Client(path).told() == 0
    clients.pop().link.close()
    turns.held()
    assert Client(path).ask().told() > 0


def test_a_client_that_never_reads_stops_nobody(turns: Turns) -> None:
    a, b = (Client(turns.prepare(cell(name)).turns) for name in "ab")
    a.link.settimeout(1)
    try:
        for _ in range(2000):
            a.link.send(b"A\nR 0\n" * 10)
    except OSError:  # it was thrown out
        pass
    a.link.close()
    assert b.ask().told() > 0


def test_what_a_client_said_before_it_was_thrown_out_is_forgotten_with_it(tmp_path: Path) -> None:
    """It holds the turn, asks twice more in one message and reads no answer: the second asks for nobody."""
    server = TurnServer()
    for name in "ab":
        server.obey({"op": "open", "slice": name, "path": tmp_path / name, "device": "d", "share": 250, "burst": 1000})
    a, b = (Client(str(tmp_path / name)) for name in "ab")
    for name in "ab":
        server._accept(server._lines[name])
    (deaf,) = server._lines["a"].connections
    a.ask()
    server._hear(server._lines["a"], deaf)
    server._advance()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    with contextlib.suppress(BlockingIOError):
        while True:
            deaf.send(b"x" * 100)
    a.link.send(b"A\nA\n")
    server._hear(server._lines["a"], deaf)
    assert not server._lines["a"].waiting and not server._lines["a"].connections
    b.ask()
    (other,) = server._lines["b"].connections
    server._hear(server._lines["b"], other)
    server._advance()
    assert b.told() > 0
    for name in "ab":
        server.obey({"op": "close", "slice": name})


def test_who_leaves_is_forgotten(turns: Turns) -> None:
    path = turns.prepare(cell("a")).turns
    b = Client(turns.prepare(cell("b")).turns)
    a = Client(path)
    a.ask().told()
    b.ask()
    turns.release(cell("a"))
    turns.release(cell("a"))
    assert b.told() > 0
    assert a.told() == 0 and not os.path.exists(path)


def test_amounts_change_while_it_runs(turns: Turns) -> None:
    path = turns.prepare(cell("a")).turns
    a = Client(path)
    a.ask().told()
    turns.resize(cell("a", share=500, burst=500))
    assert turns.prepare(cell("a", share=500)).turns == path
    a.link.send(b"R 0\nA\n")
    assert a.told() > 0
    with pytest.raises(NotResizable, match="b takes no turns"):
        turns.resize(cell("b"))


def test_a_server_that_dies_is_replaced_and_told(turns: Turns) -> None:
    path = turns.prepare(cell("a")).turns
    a = Client(path)
    pid = turns._keeper.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert a.told() == 0
    while turns._keeper.pid == pid:
        pass
    assert turns.held()["a"].turns == 0
    assert Client(path).ask().told() > 0


def test_the_server_ends_with_its_agent(tmp_path: Path) -> None:
    """However the agent ends: nobody has to tell it."""
    script = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import test_turn_server as t\n"
        "turns = t.Turns(pathlib.Path(sys.argv[2])); setup = turns.prepare(t.cell('a'))\n"
        "print(turns._keeper.pid, setup.turns, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, os.fspath(Path(__file__).parent), os.fspath(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    _, path = process.stdout.readline().decode().split()
    client = Client(path)
    process.kill()
    process.communicate()
    assert client.told() == 0  # the server has closed everything
    Turns(tmp_path).sweep([])
    assert not os.path.exists(path)


def test_probe_tries_and_leaves_nothing(turns: Turns, tmp_path: Path) -> None:
    found = turns.probe([GPU, CPU, replace(CPU, id="ab12/cpu1", cores=())])
    assert [support.usable for support in found.values()] == [True, True, False]
    assert [support.memory for support in found.values()] == [Strength.COOPERATIVE, Strength.NONE, Strength.NONE]
    assert list((tmp_path / "turns").iterdir()) == []


def test_probe_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "turns").write_text("in the way")
    support = Turns(tmp_path).probe([GPU])[GPU.id]
    assert not support.usable and "turns" in support.reason


def test_prepare_gives_a_socket_that_only_the_user_reaches(turns: Turns, tmp_path: Path) -> None:
    setup = turns.prepare(cell("a"))
    assert setup.isolation is Isolation.TURNS and setup.env == {SOCKET: setup.turns}
    folder = Path(setup.turns).parent
    assert (folder.stat().st_mode & 0o777, Path(setup.turns).stat().st_mode & 0o777) == (0o700, 0o600)


def test_whole_devices_take_no_turns(turns: Turns) -> None:
    both = replace(cell("a", 1000), devices=(GPU, replace(GPU, id="ab12/gpu1", index=1)))
    setup = turns.prepare(both)
    assert (setup.turns, setup.memory_fraction) == ("", 0.0)
    turns.release(both)


def test_torch_is_told_its_memory(turns: Turns) -> None:
    assert turns.prepare(cell("a")).memory_fraction == 100 / 16000
    assert turns.prepare(cell("a", 1000)).memory_fraction == 0.0


def test_a_slice_of_a_cpu_device_has_its_cores_in_its_turn(turns: Turns) -> None:
    setup = turns.prepare(cell("a", device=replace(CPU, cores=(0, 1))))
    assert (setup.threads, setup.env["OMP_NUM_THREADS"], setup.memory_fraction) == (2, "2", 0.0)


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "turns").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(IsolationFailed, match="another user's"):
        Turns(tmp_path).prepare(cell("a"))


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "turns").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IsolationFailed, match="no folder"):
        Turns(tmp_path).prepare(cell("a"))


def test_a_state_folder_with_a_long_path_has_short_sockets(tmp_path: Path) -> None:
    turns = Turns(tmp_path / ("long" * 30))
    path = turns.prepare(cell("a")).turns
    assert len(path) <= 107
    assert Client(path).ask().told() > 0
    turns.release(cell("a"))
    Path(path).parent.rmdir()


def test_sweep_leaves_what_others_use(turns: Turns, tmp_path: Path) -> None:
    other = Turns(tmp_path)
    theirs, ours = other.prepare(cell("c")).turns, turns.prepare(cell("a")).turns
    stale, wanted = tmp_path / "turns" / ("0" * 16), turns._path("w")
    for path in (stale, wanted):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(os.fspath(path))
    turns.sweep(["a", "w"])
    assert (os.path.exists(theirs), os.path.exists(ours), wanted.exists(), stale.exists()) == (True, True, True, False)
    turns.sweep([])
    assert (os.path.exists(theirs), os.path.exists(ours), wanted.exists()) == (True, False, False)
    other.release(cell("c"))


def test_usage_is_what_was_held_and_used(turns: Turns) -> None:
    assert turns.usage(cell("a"), [1]).busy_seconds is None
    a = Client(turns.prepare(cell("a")).turns)
    assert turns.usage(cell("a"), [1]).busy_seconds == 0.0
    a.ask().told()
    first = turns.usage(cell("a"), [1]).busy_seconds
    a.link.send(b"R 999999999\n")
    second = turns.usage(cell("a"), [1]).busy_seconds
    assert first is not None and second is not None and 0 < first <= second
    held = turns.held()["a"]
    assert held.turns == 1 and 0 < held.share < 1 and held.lent <= held.used


def as_stranger(path: str) -> str:
    """What another user who asks for a turn gets: ``nothing``, ``a turn``, or an error's name."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgid(65534)
            os.setuid(65534)
            said = "a turn" if Client(path).ask().told() else "nothing"
        except (BrokenPipeError, ConnectionResetError):  # thrown out before it had asked
            said = "nothing"
        except BaseException as error:
            said = type(error).__name__
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader) as answer:
        return answer.read()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")
def test_another_user_gets_no_turn() -> None:
    """Neither through the private folder nor, were it open, at the socket."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        turns = Turns(Path(name))
        path = turns.prepare(cell("a")).turns
        assert as_stranger(path) == "PermissionError"
        os.chmod(name, 0o755)
        os.chmod(Path(path).parent, 0o755)
        os.chmod(path, 0o666)
        assert as_stranger(path) == "nothing"
        turns.release(cell("a"))
