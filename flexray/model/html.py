"""Tables for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def table(title: str, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """An HTML table; whatever is in it is text."""
    head = "".join(f"<th>{escape(header)}</th>" for header in headers)
    lines = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><caption>{escape(title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
