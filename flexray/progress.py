"""A bar that shows how many of several Futures are done: ``flex.progress``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from flexray.future import Future, as_completed
from flexray.runtime.blocking import is_notebook

T = TypeVar("T")


def progress(futures: Iterable[Future[T]], what: str = "done") -> Iterator[Future[T]]:
    """Yield Futures as they are done, like ``flex.as_completed``, and show how many are.

        for future in flex.progress([embed.remote(batch) for batch in batches], "embedding"):
            keep(future.result())

    The bar is in the notebook's cell, or on standard error where that is a terminal; elsewhere there is none.

    Args:
        what: what stands beside the bar.

    Raises:
        UsageError: something that is no Future.
    """
    several = list(futures)
    with _bar(what, len(several)) as show:
        for done, future in enumerate(as_completed(several), 1):
            show(done)
            yield future


@contextmanager
def _bar(what: str, of: int) -> Iterator[Callable[[int], None]]:
    if is_notebook():
        yield _cell(what, of)
        return
    from flexray.tables import progress_bar

    with progress_bar(what) as show:
        yield lambda done: show(done, of)


def _cell(what: str, of: int) -> Callable[[int], None]:
    """A bar below the cell that runs, which needs no widgets."""
    from html import escape

    from IPython.display import HTML, display

    def page(done: int) -> object:
        return HTML(f"<progress value='{done}' max='{of}'></progress> {escape(what)}: {done} of {of}")

    shown = display(page(0), display_id=True)
    return lambda done: shown.update(page(done))
