"""The slice: a Ray actor that confines its process and runs calls of whoever holds its lease.

Control calls have a concurrency group of their own, so that a slice answers while user
code runs. A call that carries an older grant than the slice has seen, or one without its seal, is refused.
"""

from __future__ import annotations

import inspect
import os
import pickle
import signal
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import ray

from flexray.devices.enforcers.enforcer import SliceSetup
from flexray.errors import LeaseLost, TaskError
from flexray.model.lease import Placement, SessionId
from flexray.runtime.channel import Channel, Pump
from flexray.runtime.checkpoints import Checkpoints, Desk, folder_of
from flexray.runtime.confine import confine, limit_heap, take_on
from flexray.runtime.current import Running, Stage, running
from flexray.runtime.last_words import note_last_words, words_of
from flexray.runtime.log_tags import tag_output, tag_records
from flexray.runtime.membership import meeting_place, run_as
from flexray.runtime.notes import Notes, notes_directory
from flexray.runtime.packing import LARGE, Packed, is_plain, owns_any, pack, pack_error
from flexray.runtime.performing import LazyFunction, part_of, perform, read_batch
from flexray.runtime.processes import identify
from flexray.runtime.protocol import Batch, Code, Reply, SliceIdentity, Token
from flexray.runtime.reconfine import reconfine
from flexray.runtime.run_queue import RunQueue
from flexray.runtime.runs import Holder, Outcome, Run, holder_of
from flexray.runtime.seals import is_sealed
from flexray.runtime.tracing import trace_runs

_FUNCTIONS_KEPT = 32
_POLL_SECONDS = 30.0
_RUN_THREADS = 64
_STRANGER = "this is another session's lease, or none"
_NEVER_REPEATED = "checkpoint() is for tasks: an actor's method and a stream are never repeated, nobody would find it"

M = TypeVar("M", bound=Callable[..., Any])


def _in_group(name: str) -> Callable[[M], M]:
    """Which of the actor's concurrency groups a method runs in (Ray's decorator, typed)."""
    return cast("Callable[[M], M]", ray.method(concurrency_group=name))


_control, _user, _run, _stream = map(_in_group, ("control", "user", "run", "stream"))


class SliceActor:
    """What runs in a slice's process. Created by the node agent only."""

    def __init__(
        self, identity: SliceIdentity, setup: SliceSetup, name: str, grace: float, telemetry: dict[str, str]
    ) -> None:
        confine(setup, identity.slice)
        for variable, value in telemetry.items():
            os.environ.setdefault(variable, value)
        take_on(identity.environment)
        tag_output(identity.environment.job, name)
        from flexray.runtime.process import enter_slice

        enter_slice(identity)
        self._tracing = trace_runs(identity.slice)
        tag_records(identity.slice, self._tracing is not None)
        self._identity = identity
        self._setup = setup
        self._name = name
        self._grant: tuple[int, int] = (0, 0)
        #: the last token that proved to be one of this slice, but for its session: an actor's handle is lent to others.
        self._genuine: tuple[Any, ...] = ()
        self._functions: OrderedDict[str, LazyFunction] = OrderedDict()
        self._instance: Any = None
        self._kept: dict[tuple[SessionId, int], Any] = {}
        self._channels: dict[tuple[SessionId, int], Channel] = {}
        self._channels_lock = threading.Lock()
        self._desk = Desk()
        directory = notes_directory(identity.placement.node)
        self._notes = Notes(directory / identity.slice)
        note_last_words(words_of(directory, identity.slice))
        self._runs = RunQueue(self._encode, self._notes.running, self._give_up, grace)

    # -- control ---------------------------------------------------------------------------

    @_control
    def hello(self) -> tuple[int, int, list[str]]:
        """(pid, start time, visible device ids): the slice's process answers, and nobody's code has run in it yet."""
        limit_heap(self._setup.data_limit)
        process = identify(os.getpid())
        assert process is not None
        ids = ray.get_runtime_context().get_accelerator_ids()
        return process.pid, process.started, [i for values in ids.values() for i in values]

    @_control
    def stay(self) -> None:
        """Never returns while the slice lives: its failure is how the agent learns of the slice's end."""
        threading.Event().wait()  # unbounded: the life of the slice

    @_control
    def take_back(self, token: Token, ids: list[int]) -> list[int]:
        """Drop calls that have not begun; returns their ids."""
        return self._runs.take_back(self._holder(token), ids)

    @_control
    def cancel(self, token: Token, number: int, force: bool) -> str:
        """``taken`` if the call had not begun, ``cancelling`` if it ends now, ``asked`` if it was told, ``gone``."""
        holder = self._holder(token)
        if self._runs.take_back(holder, [number]):
            return "taken"
        if not self._runs.is_known(holder, number):
            return "gone"
        cancelling = self._runs.ask_to_stop(holder, number)
        if force:
            self._notes.running(number)
            self._give_up("cancel")
        return "cancelling" if cancelling else "asked"

    @_control
    def give_way(self, token: Token) -> None:
        """The lease is taken back: what runs under it is asked to stop."""
        self._runs.give_way(self._holder(token))

    @_control
    def change_size(self, placement: Placement, setup: SliceSetup) -> None:
        """The slice has another share or memory from now on. Raises NotResizable, changing nothing."""
        reconfine(self._setup, setup)
        self._setup, self._identity.placement = setup, placement

    @_control
    def meeting_place(self) -> str:
        """Where this process could listen for the other members of its gang."""
        return meeting_place()

    def _give_up(self, cause: str) -> None:
        self._notes.cause(cause)
        os.kill(os.getpid(), signal.SIGKILL)

    # -- calls -----------------------------------------------------------------------------

    @_user
    def run(self, message: bytes, *values: Any) -> Any:
        """Run a batch here, one call after the other; answer with all results that nobody has collected yet."""
        batch = read_batch(message)
        refused = self._admit(batch, values)
        if refused is not None:
            return self._pad(refused, [], batch.slots)
        self._runs.execute(self._register(batch, values))
        return self._reply(batch.token, batch.slots)

    @_run
    def submit(self, message: bytes, *values: Any) -> Any:
        """Put a batch on the event loop; answer when it is finished, or its patience is over."""
        batch = read_batch(message)
        refused = self._admit(batch, values)
        if refused is not None:
            return self._pad(refused, [], batch.slots)
        self._runs.execute_async(self._register(batch, values))
        return self._reply(batch.token, batch.slots)

    @_run
    def collect(self, token: Token, slots: int) -> Any:
        """Answer when some call of the session has finished, with all that have by then."""
        self._runs.wait_some(self._holder(token), _POLL_SECONDS)
        return self._reply(token, slots)

    @_run
    def fetch(self, token: Token, number: int) -> tuple[bytes, Any]:
        """A large result, as an object that the caller owns, behind a word that says that it is one."""
        return b"", self._kept.pop((self._holder(token)[0], number))

    @_run
    def next_checkpoint(self, token: Token, taken: int) -> tuple[bytes, Any]:
        """The next state that a call stores, with what it is; the client has the one numbered ``taken``."""
        holder = self._holder(token)
        offer = self._desk.next(holder, taken, _POLL_SECONDS, lambda: self._runs.is_busy(holder))
        return (b"", None) if offer is None else (pickle.dumps(tuple(offer[:3])), offer.parcel)

    @_run
    def forget_checkpoints(self, token: Token, place: str, number: int) -> None:
        """A call is done: delete what it stored in its place."""
        self._holder(token)
        folder = folder_of(place, token, number)
        assert folder is not None
        folder().remove()

    def _admit(self, batch: Batch, values: tuple[Any, ...]) -> Reply | None:
        """Refuse stale and made-up grants; take in the function. None when the batch may run."""
        if not self._is_genuine(batch.token):
            return Reply((), 0, refused=_STRANGER)
        grant = (batch.token.epoch, batch.token.grant)
        if grant < self._grant:
            return Reply((), 0, refused="the slice has another holder now")
        if grant > self._grant:
            self._runs.new_grant(grant)
            self._desk.new_grant(grant)
        self._grant = grant
        if batch.blob is not None and batch.function not in self._functions:
            blob = values[batch.blob] if isinstance(batch.blob, int) else batch.blob
            self._functions[batch.function] = LazyFunction(blob)
            while len(self._functions) > _FUNCTIONS_KEPT:
                self._functions.popitem(last=False)
        if batch.function not in self._functions:
            return Reply((), 0, missing=batch.function)
        self._functions.move_to_end(batch.function)
        return None

    def _is_genuine(self, token: Token) -> bool:
        if token[:2] + token[3:] == self._genuine:
            return True
        genuine = is_sealed(self._identity.key, token)
        if genuine:
            self._genuine = token[:2] + token[3:]
        return genuine

    def _holder(self, token: Token) -> Holder:
        """Whose calls come under a token. Raises LeaseLost for one that is no lease's of this slice."""
        if not self._is_genuine(token):
            raise LeaseLost(_STRANGER)
        return holder_of(token)

    def _register(self, batch: Batch, values: tuple[Any, ...]) -> list[Run]:
        return self._runs.register(holder_of(batch.token), self._make_runs(batch, values), batch.patience)

    def _make_runs(self, batch: Batch, values: tuple[Any, ...]) -> list[Run]:
        find = self._find_target(batch.method, self._functions[batch.function])
        held = values[batch.held] if batch.held >= 0 else ()
        refusal = _NEVER_REPEATED if batch.method or batch.streams else ""
        begin = partial(self._begin, batch, refusal)
        enter = partial(_enter, Stage(self._identity, batch.token, begin, batch.member))
        runs = []
        for item in batch.items:
            call: Callable[[], Any] = partial(perform, find, values, held, *item[1:4])
            if batch.member is not None:
                call = partial(run_as, batch.member, call)
            if batch.streams:
                call = Pump(call, self._channel(batch.token.session, item[0]))
            header = batch.traces.get(item[0]) if batch.traces and self._tracing is not None else None
            if header is not None:
                call = self._traced(batch, header, item[0], call)
            run = Run(item[0], call, enter, batch.timeout)
            if held and len(item) > 4:
                begin(run, part_of(held, item[4]))
            runs.append(run)
        return runs

    def _traced(self, batch: Batch, header: str, number: int, call: Callable[[], Any]) -> Callable[[], Any]:
        assert self._tracing is not None
        name = f"{self._name}.{batch.method}" if batch.method else self._name
        return self._tracing.traced(header, name, str(batch.token.lease), (batch.token.session, number), call)

    def _find_target(self, method: str, function: LazyFunction) -> Callable[[], Callable[..., Any]]:
        """What gives the function to call, once in the user thread: unpickling it may run the user's code."""
        if method == "__init__":
            return lambda: partial(self._create, function.load())
        if method:
            return lambda: getattr(self._instance, method)
        return function.load

    def _create(self, cls: type, *args: Any, **kwargs: Any) -> None:
        self._instance = cls(*args, **kwargs)

    def _begin(self, batch: Batch, refusal: str, run: Run, found: Sequence[Any] = ()) -> Checkpoints:
        """The checkpoints of a call, made when it asks for them. What rank 0 of a gang stores is the gang's."""
        if run.checkpoints is None:
            token, stores = batch.token, batch.member is None or not batch.member.rank
            hand_over = partial(self._desk.hand_over, holder_of(token), run.id, bool(batch.place))
            folder = folder_of(batch.place, token, run.id)
            run.checkpoints = Checkpoints(found, folder, hand_over if stores else None, refusal)
        return run.checkpoints

    def _encode(self, ok: bool, result: Any) -> Outcome:
        if not ok:
            return Code.ERROR, pack_error(result)
        if is_plain(result):
            return Code.PLAIN, result
        if inspect.isgenerator(result) or inspect.isasyncgen(result):
            error: Exception = TypeError("a generator cannot be a result; call it with .stream()")
            return Code.ERROR, pack_error(error)
        try:
            packed: Packed = pack(result)
        except Exception as error:
            name = type(result).__name__
            failure = TaskError(f"the result, a {name}, cannot be pickled: {type(error).__name__}: {error}")
            failure.__cause__ = error
            return Code.ERROR, pack_error(failure)
        if packed.held or packed.size > LARGE:
            return Code.KEPT, (result, owns_any(packed.held))
        return Code.VALUE, packed.data

    def _reply(self, token: Token, slots: int) -> Any:
        finished, unfinished, count, seconds = self._runs.take(holder_of(token))
        done: list[tuple[int, int, Any]] = []
        returned: list[Any] = []
        for run, (code, payload) in finished:
            if code is Code.KEPT:
                result, owns = payload
                if len(returned) < slots:
                    code, payload = Code.SLOT, (len(returned), owns)
                    returned.append(result)
                else:
                    self._kept[token.session, run.id] = result
                    payload = owns
            done.append((run.id, int(code), payload))
        reply = Reply(tuple(done), unfinished, count, seconds)
        ends = {}
        if self._tracing is not None and self._tracing.has_ends:
            ends = {number: end for number, _, _ in done if (end := self._tracing.end_of((token.session, number)))}
        return self._pad(reply._replace(ends=ends) if ends else reply, returned, slots)

    @staticmethod
    def _pad(reply: Reply, returned: list[Any], slots: int) -> Any:
        header = pickle.dumps(tuple(reply), protocol=5)
        return (header, *returned, *[None] * (slots - len(returned))) if slots else header

    # -- streams ---------------------------------------------------------------------------

    @_stream
    def stream(self, token: Token, number: int) -> Iterator[tuple[bool, Any]]:
        """The items of a generator that ``run`` or ``submit`` runs: (True, item), or (False, packed error) last."""
        channel = self._channel(self._holder(token)[0], number)
        try:
            yield from channel
        finally:
            channel.closed.set()
            self._channels.pop((token.session, number), None)

    @_control
    def close_stream(self, token: Token, number: int) -> None:
        """Nobody reads the stream any more, or nothing will come: end it on both sides."""
        channel = self._channels.get((self._holder(token)[0], number))
        if channel is not None:
            channel.closed.set()

    def _channel(self, session: SessionId, number: int) -> Channel:
        with self._channels_lock:
            return self._channels.setdefault((session, number), Channel())


def _enter(stage: Stage, run: Run) -> None:
    running.set(Running(stage, run))


def make_slice_class() -> Any:
    """The Ray actor class of slices, made where a node agent needs it."""
    return ray.remote(
        num_cpus=0,
        max_restarts=0,
        max_task_retries=0,
        concurrency_groups={"control": 4, "user": 1, "run": _RUN_THREADS, "stream": 16},
    )(SliceActor)
