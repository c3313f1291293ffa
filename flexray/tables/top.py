"""``flexray top``: the pool as lines of text, and what keys do to them. No terminal here.

A device is a bar of its slices: a letter for each, a capital one while somebody holds it; the line below a device says
which is which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from rich.text import Text

from flexray.model.amounts import format_memory
from flexray.model.snapshot import DeviceView, SliceView, Snapshot
from flexray.tables.drawing import IDLE_SECONDS, short

SORTS = ("name", "held", "busy", "free memory")
"""What devices are put in the order of; ``s`` takes the next one."""
KEYS = "q quit  ↑↓ scroll  s sort  d details  / filter"
_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_NARROW = 70
_LEAST, _LONGEST = 20, 50
"""Characters of a bar, on a terminal that is not narrow."""
_DETAILED = 8
"""With more devices than this their slices are listed only when asked for."""


@dataclass(frozen=True, slots=True)
class View:
    """What of the pool is looked at.

    Attributes:
        offset: lines that are scrolled away.
        sort: one of SORTS.
        filter: only lines of devices, queues and requests that have this in them.
        typing: whether keys go into the filter.
        details: whether slices are listed; None as there is room.
    """

    offset: int = 0
    sort: str = SORTS[0]
    filter: str = ""
    typing: bool = False
    details: bool | None = None


def pressed(view: View, key: str) -> View | None:
    """The view after a key ("up", "enter", "s"); None to quit."""
    if view.typing:
        if key in ("enter", "escape"):
            return replace(view, typing=False, filter="" if key == "escape" else view.filter)
        text = view.filter[:-1] if key == "backspace" else view.filter + key if len(key) == 1 else view.filter
        return replace(view, filter=text, offset=0)
    step = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -10, "page down": 10}.get(key)
    if key in ("q", "escape"):
        return None
    if step is not None:
        return replace(view, offset=max(0, view.offset + step))
    if key == "s":
        return replace(view, sort=SORTS[(SORTS.index(view.sort) + 1) % len(SORTS)])
    if key == "d":
        return replace(view, details=not view.details)
    return replace(view, typing=True) if key == "/" else view


def screen(snapshot: Snapshot, view: View, width: int, height: int) -> list[Text]:
    """What fits on a terminal: the head, the part of the lines that is scrolled to, and what keys there are."""
    lines, room = list(_lines(snapshot, view, width)), max(1, height - 2)
    first = min(view.offset, max(0, len(lines) - room))
    below = len(lines) - first - room
    foot = f"/{view.filter}▏" if view.typing else KEYS + (f"  filter: {view.filter}" if view.filter else "")
    shown = lines[first : first + room]
    shown += [Text("")] * (room - len(shown))
    foot = f"{foot}  {below} more below" if below > 0 else foot
    return [_cut(line, width) for line in (_head(snapshot, view), *shown, Text(foot, style="dim"))]


def page(snapshot: Snapshot, view: View, width: int) -> list[Text]:
    """All of it, for who has no terminal."""
    return [_cut(line, width) for line in (_head(snapshot, view), *_lines(snapshot, view, width))]


def _head(snapshot: Snapshot, view: View) -> Text:
    held = sum(device.share_held for device in snapshot.devices)
    busy = [piece.busy * len(piece.devices) for piece in snapshot.slices if piece.busy is not None]
    used = f"{sum(busy):.2f} busy" if busy else "busy ?"
    runs, waits = (sum(getattr(queue, name) for queue in snapshot.queues) for name in ("running", "waiting"))
    told = f"{len(snapshot.devices)} devices on {len(snapshot.nodes)} nodes: {held:.2f} held, {used}; "
    return Text(f"{told}{runs} run, {waits} wait  [by {view.sort}]", style="bold")


def _lines(snapshot: Snapshot, view: View, width: int) -> Iterator[Text]:
    for note in snapshot.notes:
        yield Text(f"note: {note}", style="yellow")
    yield from _device_lines(snapshot, view, width)
    yield from _queue_lines(snapshot, view)
    yield from _waiting_lines(snapshot, view)


def _cut(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    return line


# -- devices -----------------------------------------------------------------------------------------


def _device_lines(snapshot: Snapshot, view: View, width: int) -> Iterator[Text]:
    by_device: dict[str, list[SliceView]] = {}
    for piece in snapshot.slices:
        for name in piece.devices:
            by_device.setdefault(name, []).append(piece)
    details = view.details if view.details is not None else len(snapshot.devices) <= _DETAILED
    for device in sorted(snapshot.devices, key=_order(view.sort, by_device)):
        pieces = by_device.get(device.id, [])
        about = " ".join(
            [device.id, device.type, device.state, *(f"{p.task_class} {p.request} {p.user}" for p in pieces)]
        )
        if view.filter in about:
            yield _device_line(device, pieces, width)
            if details:
                yield from _legend(snapshot, pieces)


def _order(sort: str, by_device: dict[str, list[SliceView]]) -> Callable[[DeviceView], tuple[float, str]]:
    """Most first; those that are alike by their names."""
    amount: dict[str, Callable[[DeviceView], float]] = {
        "name": lambda device: 0.0,
        "held": lambda device: device.share_held,
        "busy": lambda device: _busy(by_device.get(device.id, [])) or 0.0,
        "free memory": lambda device: float(device.memory_free),
    }
    return lambda device: (-amount[sort](device), device.id)


def _busy(pieces: list[SliceView]) -> float | None:
    known = [piece.busy for piece in pieces if piece.busy is not None]
    return sum(known) if known else None


def _device_line(device: DeviceView, pieces: list[SliceView], width: int) -> Text:
    name = Text(f"{short(device.id):<14} ")
    busy = _busy(pieces)
    used = "   -" if not pieces else "   ?" if busy is None else f"{busy:4.2f}"
    memory = f"{device.memory_held / 1024:.1f}/{format_memory(device.memory)}"
    if width < _NARROW:
        after = f" {device.share_held:4.2f} {used}"
    else:
        after = f" {device.share_held:4.2f} held {used} busy {memory:>15}  {device.type}"
    state = "" if device.state == "ready" else f"  {device.state}{f': {device.reason}' if device.reason else ''}"
    room = max(_LEAST, min(_LONGEST, width - len(name) - 57)) if width >= _NARROW else max(8, width - len(name) - 14)
    line = name + _bar(pieces, room) + Text(after)
    return line + Text(state, style="red") if state else line


def _bar(pieces: list[SliceView], room: int) -> Text:
    """So many characters for a whole device, of which a slice has its part."""
    bar, passed = Text("["), 0.0
    for number, piece in enumerate(pieces):
        begin, passed = round(passed * room), passed + piece.share
        cells = max(1, round(passed * room) - begin)
        bar.append(_letter(number, piece) * min(cells, room - (len(bar) - 1)), style=_COLOURS[number % len(_COLOURS)])
    bar.append("." * (room - (len(bar) - 1)), style="dim")
    return bar + Text("]")


def _letter(number: int, piece: SliceView) -> str:
    letter = _LETTERS[number % len(_LETTERS)]
    return letter.upper() if piece.state == "held" else letter


def _legend(snapshot: Snapshot, pieces: list[SliceView]) -> Iterator[Text]:
    for number, piece in enumerate(pieces):
        task = piece.task_class.partition("/")[0]
        memory = "?" if piece.memory_used is None else f"{piece.memory_used / 1024:.1f}"
        line = Text("  ").append(f"{_letter(number, piece)} ", style=_COLOURS[number % len(_COLOURS)])
        used = "?" if piece.busy is None else f"{piece.busy:.2f}"
        line.append(f"{task:<20} {piece.share:4.2f} busy {used}  {memory}/{format_memory(piece.memory)}")
        line.append(f"  {piece.state} {_span(snapshot.now - piece.since)}  {piece.request} {piece.user}".rstrip())
        if piece.state == "held" and (piece.idle_seconds or 0.0) >= IDLE_SECONDS:
            line.append(f"  idle {_span(piece.idle_seconds or 0.0)}", style="yellow")
        yield line


# -- queues and requests -----------------------------------------------------------------------------


def _queue_lines(snapshot: Snapshot, view: View) -> Iterator[Text]:
    shown = [queue for queue in snapshot.queues if view.filter in queue.name]
    if shown:
        yield Text("queue             run  wait   held   quota   limit", style="bold")
    for queue in shown:
        counts = f"{queue.running:5d} {queue.waiting:5d} {queue.devices_held:6.2f}"
        yield Text(f"{queue.name:<15} {counts} {queue.quota or '-':>7} {queue.limit or '-':>7}")


def _waiting_lines(snapshot: Snapshot, view: View) -> Iterator[Text]:
    shown = [one for one in snapshot.waiting if view.filter in f"{one.id} {one.task_class} {one.queue}"]
    if shown:
        yield Text("waiting", style="bold")
    for one in shown:
        task = one.task_class.partition("/")[0]
        told = f"{one.id:<14} {task:<16} {one.queue:<10} {_span(snapshot.now - one.submitted):>6}  "
        yield Text(told).append(one.wait_reason, style="yellow").append(f"  {one.asked}")


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{max(0.0, seconds):.0f}s"
    return f"{seconds / 60:.0f}m" if seconds < 7200 else f"{seconds / 3600:.1f}h"
