"""Draws the pictures of the concepts page from the tables of the code.

    python docs/draw.py            # writes docs/pictures/*.svg; a test compares them with the tables

States stand in a row; a step forward is an arc above, a step back one below, and as high as it is long.
"""

from __future__ import annotations

from collections import defaultdict
from enum import Enum
from html import escape
from pathlib import Path

from flexray.model.condition import CONDITION_TABLE
from flexray.model.isolation import MECHANISMS, Strength
from flexray.model.lifecycle import REQUEST_TABLE, SLICE_TABLE

HERE = Path(__file__).parent / "pictures"
BOX, GAP, HEIGHT = 104, 36, 34
"""Pixels: width of a state, between two, height of one."""
LINE, FILL, TEXT = "#7a8699", "#e8eefc", "#1d2a44"
STYLE = "font: 13px system-ui, sans-serif"


def life(table: dict[tuple[Enum, Enum], Enum]) -> str:
    """A life cycle: {(state, step): state after it}."""
    named = {state for state, _ in table} | set(table.values())
    states = [state for state in type(next(iter(table))[0]) if state in named]
    arcs: dict[tuple[int, int], list[str]] = defaultdict(list)
    for (state, step), after in table.items():
        arcs[states.index(state), states.index(after)].append(str(step.value))
    spans = [(a, b) for a, b in arcs if a != b]
    above = max((b - a for a, b in spans if b > a), default=1)
    below = max((a - b for a, b in spans if b < a), default=0)
    middle = 26 + 23 * above
    parts = []
    for (a, b), steps in sorted(arcs.items()):
        if a != b:
            parts += _arc(a, b, ", ".join(steps), middle)
    for number, state in enumerate(states):
        x = number * (BOX + GAP) + 8
        size = f'width="{BOX}" height="{HEIGHT}" rx="7"'
        parts.append(f'<rect x="{x}" y="{middle}" {size} fill="{FILL}" stroke="{LINE}"/>')
        parts.append(_text(x + BOX / 2, middle + 22, str(state.value), TEXT, 14))
    width = len(states) * (BOX + GAP) - GAP + 16
    return _svg(width, middle + HEIGHT + 8 + 26 * below, parts)


def _arc(a: int, b: int, label: str, middle: int) -> list[str]:
    """From state a to state b, with its label at the top (or bottom)."""
    side = -1 if b > a else 1
    edge = middle if b > a else middle + HEIGHT
    offset = 12 * (1 if b > a else -1)
    start, end = (n * (BOX + GAP) + 8 + BOX / 2 for n in (a, b))
    start, end = start + offset, end - offset
    reach = edge + side * 30 * abs(b - a)
    tip = f'<path d="M{end - 4:g},{edge + side * 8:g} L{end:g},{edge} L{end + 4:g},{edge + side * 8:g}" fill="{LINE}"/>'
    path = f"M{start:g},{edge} C{start:g},{reach:g} {end:g},{reach:g} {end:g},{edge}"
    curve = f'<path d="{path}" fill="none" stroke="{LINE}"/>'
    top = edge + side * 0.75 * 30 * abs(b - a)
    return [curve, tip, _text((start + end) / 2, top + (-4 if side < 0 else 14), label, LINE, 12)]


def strengths() -> str:
    """Mechanisms against how strongly they hold compute and memory, weakest first."""
    order = list(Strength)
    left, row, unit = 110, 26, 104
    parts = [_text(left + unit * (n + 0.5), 18, one.text, LINE, 11) for n, one in enumerate(order)]
    for number, (mechanism, guarantee) in enumerate(MECHANISMS.items()):
        y = 32 + number * row
        style = f'text-anchor="end" style="{STYLE}"'
        parts.append(f'<text x="{left - 10}" y="{y + 14}" fill="{LINE}" {style}>{mechanism.value}</text>')
        for what, strength in (("compute", guarantee.compute), ("memory", guarantee.memory)):
            x = left + unit * (order.index(strength) + 0.5) + (-20 if what == "compute" else 20)
            title = f"<title>{mechanism.value}: {what} {escape(strength.text)}</title>"
            paint = f'fill="{FILL}" stroke="{LINE}"'
            if what == "compute":
                parts.append(f'<circle cx="{x:g}" cy="{y + 10}" r="7" {paint}>{title}</circle>')
            else:
                parts.append(f'<rect x="{x - 7:g}" y="{y + 3}" width="14" height="14" {paint}>{title}</rect>')
    bottom = 32 + len(MECHANISMS) * row + 22
    parts.append(_text(left + unit * len(order) / 2, bottom - 6, "circle: compute, square: device memory", LINE, 12))
    return _svg(left + unit * len(order) + 8, bottom, parts)


def _text(x: float, y: float, what: str, colour: str, size: int) -> str:
    style = f"font: {size}px system-ui, sans-serif"
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}" text-anchor="middle" style="{style}">{escape(what)}</text>'


def _svg(width: float, height: float, parts: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}">'
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def pictures() -> dict[str, str]:
    """The text of each picture, by file name."""
    return {
        "request.svg": life(REQUEST_TABLE),
        "slice.svg": life(SLICE_TABLE),
        "device.svg": life(CONDITION_TABLE),
        "isolation.svg": strengths(),
    }


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for name, text in pictures().items():
        (HERE / name).write_text(text)
