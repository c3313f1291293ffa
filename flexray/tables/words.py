"""Events and commands in words, one line each."""

from __future__ import annotations

from datetime import datetime

from flexray.model import commands as c
from flexray.model import events as e
from flexray.model.amounts import format_memory, share_as_float
from flexray.model.happening import Happening
from flexray.model.lease import Placement
from flexray.tables.drawing import short


def happening_line(one: Happening) -> str:
    """``14:03:22 lease r1#1 was granted ...``, by the clock of this machine."""
    return f"{datetime.fromtimestamp(one.at):%H:%M:%S} {describe(one.what)}"


def describe(what: e.Event | c.Command) -> str:
    """What happened, or what the scheduler wants done."""
    for part in (_of_nodes, _of_requests, _of_slices, _of_the_scheduler, _command):
        found = part(what)
        if found:
            return found
    return type(what).__name__


def _of_nodes(what: e.Event | c.Command) -> str:
    match what:
        case e.NodeReported(inventory):
            states = [f"{short(d.id)} is {d.state.value}" for d in inventory.devices if d.state.value != "ready"]
            told = f"node {inventory.name} offers {len(inventory.devices)} devices"
            return f"{told}; {', '.join(states)}" if states else told
        case e.NodeLost(node):
            return f"node {node} is gone"
        case e.DeviceCordoned(cordon):
            return f"{short(cordon.device)} is {cordon.describe()}"
        case e.DeviceUncordoned(device):
            return f"{short(device)} is no longer cordoned"
    return ""


def _of_requests(what: e.Event | c.Command) -> str:
    match what:
        case e.SessionOpened(session, _, user, job):
            whose = " of ".join(filter(None, (f"job {job}" if job else "", user)))
            return f"session {session} opened{f': {whose}' if whose else ''}"
        case e.SessionClosed(session):
            return f"session {session} closed"
        case e.RequestSubmitted(request, session, _, task_class, asked):
            task = task_class.partition("/")[0]
            return f"request {request} of session {session} wants {asked.describe()} for {task} in queue {asked.queue}"
        case e.RequestCancelled(request):
            return f"request {request} is no longer wanted"
        case e.LeaseReleased(lease):
            return f"lease {lease} was handed back"
        case e.LeaseYielded(lease):
            return f"what ran on lease {lease} gave way"
        case e.LeaseCheckpointed(lease):
            return f"what runs on lease {lease} has stored its state"
        case e.TasksRan(lease, calls, seconds):
            return f"{calls} calls ran on lease {lease}, for {seconds:.3g} s"
        case e.StepsRan(lease, steps, seconds):
            return f"{steps:g} steps ran on lease {lease}, for {seconds:.3g} s"
        case e.LeaseBlocked(lease, session):
            return f"what runs on lease {lease} waits for tasks of session {session}"
        case e.LeaseUnblocked(lease):
            return f"what runs on lease {lease} waits no longer"
        case e.ResizeAsked(lease, share, memory):
            sizes = [] if share is None else [f"a share of {share_as_float(share):g}"]
            sizes += [] if memory is None else [format_memory(memory)]
            return f"what runs on lease {lease} asks for {' and '.join(sizes) or 'the size it has'}"
        case e.LeaseFound(submitted, lease, held):
            return f"session {submitted.session} holds lease {lease.lease} on {lease.slice}, for {held:.0f} s"
    return ""


def _of_slices(what: e.Event | c.Command) -> str:
    match what:
        case e.SliceStarted(name):
            return f"slice {name} has started"
        case e.SliceFailed(name, message):
            return f"slice {name} could not be started: {message}"
        case e.SliceEnded(name, message, _, cause):
            why = " ".join(filter(None, (f"({cause})" if cause else "", message)))
            return f"slice {name} has ended{f': {why}' if why else ''}"
        case e.SliceResized(name):
            return f"slice {name} has its new size"
        case e.ResizeRefused(name, message):
            return f"slice {name} keeps its size: {message}"
        case e.SliceFound(name, placement):
            return f"slice {name} is there, with {_place(placement)}"
    return ""


def _of_the_scheduler(what: e.Event | c.Command) -> str:
    match what:
        case e.QueuesConfigured(queues):
            return f"queues are now {', '.join(queue.name for queue in queues) or 'default only'}"
        case e.SpeedsRestored(rows):
            return f"{len(rows)} learnt run times were restored"
        case e.HistoryRestored(rows):
            return f"the past use of {len(rows)} queues was restored"
        case e.RecoveryBegan():
            return "the scheduler was started again; it finds out what there is"
        case e.RecoveryEnded():
            return "the scheduler knows what there is"
    return ""


def _command(what: e.Event | c.Command) -> str:
    match what:
        case c.StartSlice(name, placement):
            return f"start slice {name} with {_place(placement)}"
        case c.StopSlice(name, _, reason):
            return f"stop slice {name}: {reason.value}"
        case c.GrantLease(session, lease):
            return f"grant lease {lease.lease} to session {session}: {_place(lease.placement)}, slice {lease.slice}"
        case c.RecallLease(_, lease, stop, reason, winner):
            told = f"ask for lease {lease} back{' in the middle of its work' if stop else ''}: {reason.value}"
            return f"{told}, for {winner}" if winner else told
        case c.RevokeLease(_, lease, reason, message, requeued):
            return f"lease {lease} is over ({reason.value}): {message}{'; it starts again' if requeued else ''}"
        case c.FailRequest(_, request, reason, message):
            return f"request {request} fails ({reason.value}): {message}"
        case c.ResizeSlice(name, placement):
            return f"give slice {name} {_place(placement)}"
        case c.AnswerResize(_, lease, _, placement, refused):
            return (
                f"lease {lease} keeps its size: {refused}" if placement is None else f"lease {lease} has another size"
            )
    return ""


def _place(place: Placement) -> str:
    where = ", ".join(map(short, place.devices)) or "no device"
    return f"{share_as_float(place.share):g} and {format_memory(place.memory)} of {where}"
