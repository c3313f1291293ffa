"""On which nodes the large arguments of waiting calls are, as far as this process knows without asking anybody.

Ray keeps size and places of an object in the process that owns it, and that is the client for results
of its calls and for what it put into the object store itself. For an object of another owner nothing may be known.
Called with the client's lock held: a look at 8 objects takes some microseconds and sends no message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ray.experimental.locations import get_local_object_locations

from flexray.runtime.call import Call
from flexray.runtime.lineage import references_in
from flexray.runtime.targets import Target

#: So many calls and arguments are looked at for one request, and so many nodes are named in it.
_CALLS = 8
_ARGUMENTS = 16
_NODES = 4
_MIB = 2**20

Near = tuple[tuple[str, int], ...]


def near_next(target: Target) -> Near:
    """Where the large arguments are of the calls that the next lease to be asked for is likely to serve.

    Those are the calls of the backlog behind as many as there are requests already: each request speaks for
    other calls, or all leases of a backlog would be drawn to one node. For an actor, its constructor.

    Returns:
        (node, MiB of large arguments there), most first; () where there are none, or nothing is known.
    """
    if target.actor:
        return _near(target.arguments)
    backlog, first = target.backlog, len(target.asked)
    places = range(first, min(first + _CALLS, len(backlog)))
    return _near([slot for place in places for slot in backlog[place].slots])


def home_of(call: Call) -> str | None:
    """The node that has most of a call's large arguments, or None."""
    near = _near(call.slots)
    return near[0][0] if near else None


def _near(slots: Iterable[object]) -> Near:
    references = references_in(slots)
    if not references:
        return ()
    once = list(dict.fromkeys(references))[:_ARGUMENTS]
    try:
        found = get_local_object_locations(once)
    except Exception:  # it is advice: a request goes out without it
        return ()
    held: Counter[str] = Counter()
    for place in found.values():
        size = place["object_size"] or 0
        if size >= _MIB:  # what is smaller has arrived before a process could start
            held.update(dict.fromkeys(place["node_ids"], size))
    ranked = sorted(held.items(), key=lambda item: (-item[1], item[0]))
    return tuple((node, size // _MIB) for node, size in ranked[:_NODES])
