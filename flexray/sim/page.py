"""One self-contained HTML page: headings, tables and inline SVG, no script and nothing fetched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from flexray.sim.sheets import Sheet

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 800px; margin: 2em auto; padding: 0 1em; color: #222 }
h1 { font-size: 1.5em } h2 { font-size: 1.1em; margin: 2em 0 .4em }
svg { width: 100%; height: auto } svg text { font: 11px system-ui, sans-serif; fill: #333 }
table { border-collapse: collapse } td, th { text-align: left; padding: .15em 1em .15em 0; font-weight: normal }
th { border-bottom: 1px solid #888; color: #555 }
"""


def page(title: str, sections: Iterable[tuple[str, str]]) -> str:
    """A page of sections, each a heading and what is below it as HTML."""
    body = "".join(f"<h2>{escape(heading)}</h2>{content}" for heading, content in sections)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )


def table(sheet: Sheet) -> str:
    """A table as HTML, without its title."""
    _, columns, rows = sheet
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    return f"<table><tr>{head}</tr>{''.join(_row(row) for row in rows)}</table>"


def _row(cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
