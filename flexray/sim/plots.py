"""Plots as inline SVG, without any script: lines, steps, and bars over time. All text is escaped here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

#: Okabe and Ito, "Color Universal Design": eight colours that the colour-blind can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
_WIDTH, _HEIGHT = 760, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 176, 14, 44
_POINTS = 1500
_BAR = 16


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a plot."""

    label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar over time: in a row, from ``start`` to ``end``, of a height in (0, 1], coloured by ``kind``."""

    row: str
    start: float
    end: float
    height: float
    kind: str
    label: str


@dataclass(frozen=True, slots=True)
class _Axes:
    """Data to pixels."""

    x: tuple[float, float]
    y: tuple[float, float]
    height: int = _HEIGHT

    def at(self, x: float, y: float) -> tuple[float, float]:
        wide, high = _WIDTH - _LEFT - _RIGHT, self.height - _TOP - _BOTTOM
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        return round(_LEFT + across * wide, 1), round(self.height - _BOTTOM - up * high, 1)


def line_plot(title: str, x_label: str, y_label: str, series: Sequence[Series], *, steps: bool = False) -> str:
    """Lines over one another; with ``steps`` each value holds until the next."""
    every = [point for one in series for point in one.points] or [(0.0, 0.0)]
    xs, ys = [x for x, _ in every], [y for _, y in every]
    axes = _Axes((min(xs), max(xs)), (min(0.0, *ys), max(ys) or 1.0))
    parts = list(_frame(axes, x_label, y_label))
    for number, one in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(_path(axes, _thinned(one.points), steps))
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts.append(_key(number, one.label, colour))
    return _svg(title, parts, _HEIGHT)


def bar_plot(title: str, rows: Sequence[str], bars: Sequence[Bar], end: float) -> str:
    """Who held what: a row per device, bars over time, those of one kind in one colour. Bars may overlap."""
    height = _TOP + _BOTTOM + _BAR * len(rows)
    axes = _Axes((0.0, end or 1.0), (0.0, float(len(rows)) or 1.0), height)
    kinds = list(dict.fromkeys(bar.kind for bar in bars))
    numbers = {row: number for number, row in enumerate(rows)}
    parts = list(_frame(axes, "time, s", "", y_ticks=False))
    parts += [
        f'<text x="{_LEFT - 6}" y="{_TOP + _BAR * number + 12}" text-anchor="end">{escape(row[-14:])}</text>'
        for row, number in numbers.items()
    ]
    stacked: dict[str, list[tuple[float, float]]] = {}
    for bar in sorted(bars, key=lambda one: (one.start, one.end, one.label)):
        held = [(until, size) for until, size in stacked.get(bar.row, []) if until > bar.start]
        below = min(sum(size for _, size in held), 1 - bar.height)
        stacked[bar.row] = [*held, (bar.end, bar.height)]
        x0, _ = axes.at(bar.start, 0)
        x1, _ = axes.at(bar.end, 0)
        y = _TOP + _BAR * numbers[bar.row] + 1 + (_BAR - 2) * (1 - below - bar.height)
        colour = COLOURS[kinds.index(bar.kind) % len(COLOURS)]
        parts.append(
            f'<rect x="{x0}" y="{y:.1f}" width="{max(x1 - x0, 0.5):.1f}" height="{(_BAR - 2) * bar.height:.1f}" '
            f'fill="{colour}" stroke="#fff" stroke-width="0.4"><title>{escape(bar.label)}</title></rect>'
        )
    parts += [_key(number, kind, COLOURS[number % len(COLOURS)]) for number, kind in enumerate(kinds[:12])]
    return _svg(title, parts, max(height, _TOP + _BOTTOM + 18 * min(len(kinds), 12)))


def _svg(title: str, parts: Sequence[str], height: int) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _frame(axes: _Axes, x_label: str, y_label: str, *, y_ticks: bool = True) -> Iterator[str]:
    left, bottom = axes.at(axes.x[0], axes.y[0])
    right, top = axes.at(axes.x[1], axes.y[1])
    yield f'<path d="M{left} {_TOP}V{bottom}H{_WIDTH - _RIGHT}" fill="none" stroke="#888"/>'
    for value in _ticks(*axes.x):
        x, _ = axes.at(value, axes.y[0])
        yield f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>'
    for value in _ticks(*axes.y) if y_ticks else ():
        _, y = axes.at(axes.x[0], value)
        yield f'<path d="M{left} {y}H{_WIDTH - _RIGHT}" stroke="#ddd"/>'
        yield f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{value:g}</text>'
    yield f'<text x="{(left + right) / 2}" y="{axes.height - 8}" text-anchor="middle">{escape(x_label)}</text>'
    yield f'<text x="14" y="{(top + bottom) / 2}" transform="rotate(-90 14 {(top + bottom) / 2})" '
    yield f'text-anchor="middle">{escape(y_label)}</text>'


def _ticks(low: float, high: float) -> list[float]:
    """About five round values within a range."""
    span = high - low
    if span <= 0:
        return [low]
    size = 10.0 ** (len(f"{int(span)}") - 1) if span >= 1 else 10.0 ** -len(f"{int(1 / span)}")
    step = next(size * factor for factor in (0.2, 0.5, 1, 2, 5, 10) if span / (size * factor) <= 6)
    first = int(low / step) + (low > int(low / step) * step)
    return [round(number * step, 9) for number in range(first, int(high / step + 1e-9) + 1)]


def _path(axes: _Axes, points: Sequence[tuple[float, float]], steps: bool) -> Iterator[str]:
    last: tuple[float, float] | None = None
    for point in points:
        x, y = axes.at(*point)
        if last is None:
            yield f"M{x} {y}"
        else:
            yield f"H{x}V{y}" if steps else f"L{x} {y}"
        last = (x, y)


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most so many points that a page stays small; the last one stays."""
    every = len(points) // _POINTS + 1
    return points if every == 1 else [*points[::every], points[-1]]


def _key(number: int, label: str, colour: str) -> str:
    x, y = _WIDTH - _RIGHT + 10, _TOP + 8 + 18 * number
    return (
        f'<rect x="{x}" y="{y - 8}" width="10" height="10" fill="{colour}"/>'
        f'<text x="{x + 15}" y="{y + 1}">{escape(label[:26])}</text>'
    )
