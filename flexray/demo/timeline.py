"""One self-contained HTML page: the figures, and a drawing of who held which device when."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from flexray.demo.measure import Hold, Side
from flexray.demo.report import ROWS, sentences

if TYPE_CHECKING:
    from flexray.demo import DemoResult

_WIDTH, _LEFT, _RIGHT = 1120, 150, 20
_LANE, _GAP, _TITLE = 30, 5, 34
"""Heights in pixels: of a lane, between lanes, and of a side's title."""
_LETTER = 7.0
"""Width of a letter, about; a label is drawn where it fits."""

_STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfb; --ink: #1f2328; --soft: #667085; --line: #d9dce1;
  --m0: #2a78d6; --m1: #d9622b; --m2: #14935f; --m3: #b77f00; --m4: #6a4fc9; --m5: #c8437f; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e8eaed; --soft: #9aa3b0; --line: #363b44;
  --m0: #5b9df0; --m1: #f0844f; --m2: #35bd88; --m3: #e0aa2e; --m4: #9b85f0; --m5: #ea74a8; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 1160px; padding: 0 1rem; }
h1 { font-size: 1.35rem; } .soft { color: var(--soft); }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
td, th { padding: .25rem .9rem; border-bottom: 1px solid var(--line); text-align: right; font-weight: normal; }
th { color: var(--soft); } td:first-child, th:first-child { text-align: left; padding-left: 0; }
.scroll { overflow-x: auto; } svg { display: block; min-width: 760px; width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); } svg text.soft { fill: var(--soft); }
svg text.title { font-size: 14px; font-weight: 600; }
svg text.name { paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-opacity: .8; }
.grid { stroke: var(--line); } .start { stroke: var(--soft); stroke-dasharray: 4 3; }
.lane { fill: var(--line); fill-opacity: .35; } .legend span { margin-right: 1.1rem; white-space: nowrap; }
.legend i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .35em; }
"""


def write_timeline(result: DemoResult) -> None:
    """Write the page to ``result.timeline``; it loads nothing from anywhere."""
    result.timeline.write_text(page(result), encoding="utf-8")


def page(result: DemoResult) -> str:
    """The page's HTML."""
    colours = {model.name: f"var(--m{number})" for number, model in enumerate(result.models)}
    legend = "".join(f'<span><i style="background:{colour}"></i>{escape(m)}</span>' for m, colour in colours.items())
    rows = "".join(
        f"<tr><td>{escape(title)}</td><td>{figure(result.whole)}</td><td>{figure(result.slices)}</td></tr>"
        for title, figure in ROWS
    )
    said = "".join(f"<p>{escape(line)}</p>" for line in sentences(result))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>flexray demo: who held which device when</title><style>{_STYLE}</style></head><body>
<h1>Who held which device when</h1>
<p class="soft">{result.requests} requests at {result.rate:g} per second on average (seed {result.seed}), the same for
both; seconds after the start of the stream. Pale: a model holds the room. Hatched: the room waits for its model.
Solid: a model call runs. Hover for times.</p>
<p class="legend">{legend}</p>
<div class="scroll">{_drawing((result.whole, result.slices), colours)}</div>
<div class="scroll"><table><tr><th></th><th>{escape(result.whole.title)}</th><th>{escape(result.slices.title)}</th></tr>
{rows}</table></div>
{said}</body></html>
"""


class _Scale:
    """Seconds to pixels: one scale for both sides."""

    def __init__(self, sides: Sequence[Side]) -> None:
        holds = [hold for side in sides for hold in side.holds]
        self.first = math.floor(min((hold.asked for hold in holds), default=0.0))
        self.last = math.ceil(max([hold.left for hold in holds] + [side.wall for side in sides] + [self.first + 1.0]))

    def x(self, seconds: float) -> float:
        """The place of an instant on the drawing."""
        part = (seconds - self.first) / (self.last - self.first)
        return round(_LEFT + part * (_WIDTH - _LEFT - _RIGHT), 2)

    def ticks(self) -> Iterator[int]:
        """Round seconds to mark, at most about 15."""
        step = next(step for step in (1, 2, 5, 10, 20, 60, 3600) if (self.last - self.first) / step <= 15)
        yield from range(math.ceil(self.first / step) * step, self.last + 1, step)


def _drawing(sides: Sequence[Side], colours: dict[str, str]) -> str:
    scale = _Scale(sides)
    marks: list[str] = [_hatch(number, colour) for number, colour in enumerate(colours.values())]
    top = 0
    for side in sides:
        marks.append(f'<text class="title" x="0" y="{top + 22}">{escape(side.title)}</text>')
        top += _TITLE
        for device, lane, holds in lanes(side):
            label = f"{short(device)}{f', slice {lane + 1}' if any(h.share < 1 for h in holds) else ''}"
            marks.append(f'<text class="soft" x="0" y="{top + _LANE / 2 + 4}"><title>{escape(device)}</title>')
            marks.append(f"{escape(label)}</text>")
            width = scale.x(scale.last) - _LEFT
            marks.append(f'<rect class="lane" x="{_LEFT}" y="{top}" width="{width}" height="{_LANE}"/>')
            for hold in holds:
                marks.extend(_held(hold, side, scale, top, list(colours).index(hold.model)))
            top += _LANE + _GAP
        top += _GAP
    grid = [
        f'<line class="{"grid" if tick else "start"}" x1="{scale.x(tick)}" x2="{scale.x(tick)}" y1="{_TITLE - 6}" '
        f'y2="{top}"/><text class="soft" x="{scale.x(tick)}" y="{top + 16}" text-anchor="middle">{tick} s</text>'
        for tick in scale.ticks()
    ]
    size = f'viewBox="0 0 {_WIDTH} {top + 24}" role="img" aria-label="Device timeline"'
    return f"<svg {size}>{''.join(grid)}{''.join(marks)}</svg>"


def lanes(side: Side) -> list[tuple[str, int, list[Hold]]]:
    """(device, lane, holds): models that are on a device at the same time get lanes beside each other."""
    found: list[tuple[str, int, list[Hold]]] = []
    for device in side.devices:
        rows: list[list[Hold]] = []
        for hold in sorted((h for h in side.holds if h.device == device), key=lambda h: (h.asked, h.model)):
            free = next((row for row in rows if row[-1].left <= hold.asked), None)
            if free is None:
                rows.append([hold])
            else:
                free.append(hold)
        found.extend((device, lane, row) for lane, row in enumerate(rows))
    return found


def short(device: str) -> str:
    """A device's id without its node, for a label: ``cpu0``."""
    return device.rsplit("/", 1)[-1]


def _hatch(number: int, colour: str) -> str:
    return (
        f'<pattern id="wait{number}" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        f'<rect width="2.2" height="7" style="fill:{colour}"/></pattern>'
    )


def _held(hold: Hold, side: Side, scale: _Scale, top: int, number: int) -> Iterator[str]:
    """One model's stay: hatched until it is ready, pale while it stays, a solid mark for each call."""
    colour = f"var(--m{number})"
    x, ready, left = scale.x(hold.asked), scale.x(hold.ready), scale.x(hold.left)
    calls = [
        a
        for a in side.answers
        if (a.model, a.device) == (hold.model, hold.device) and hold.ready <= a.began < hold.left
    ]
    note = (
        f"{hold.model} on {short(hold.device)}: asked {hold.asked:.2f} s, ready {hold.ready:.2f} s, "
        f"left {hold.left:.2f} s, {len(calls)} requests"
    )
    yield f"<g><title>{escape(note)}</title>"
    yield f'<rect x="{x}" y="{top}" width="{ready - x:.2f}" height="{_LANE}" fill="url(#wait{number})" opacity=".6"/>'
    yield (
        f'<rect x="{ready}" y="{top}" width="{max(0.5, left - ready):.2f}" height="{_LANE}" '
        f'style="fill:{colour};stroke:{colour}" fill-opacity=".22"/>'
    )
    for call in calls:
        began, ended = scale.x(call.began), scale.x(call.ended)
        width = max(0.6, ended - began)
        yield f'<rect x="{began}" y="{top + 18}" width="{width:.2f}" height="{_LANE - 18}" style="fill:{colour}"/>'
    width = len(hold.model) * _LETTER
    if left - x > width:
        place = ready if left - ready > width else x
        yield f'<text class="name" x="{place + 4}" y="{top + 13}">{escape(hold.model)}</text>'
    yield "</g>"
