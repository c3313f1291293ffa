"""``pack``: the least capable device that will do, filled as tightly as possible.

Best fit over compute and memory together keeps whole devices free for requests that
need one; the most specific (smallest, slowest) sufficient type goes first, so that the
large ones stay free for those who have no choice.
"""

from __future__ import annotations

from flexray.core.policy import Option, Policy


def _terms(option: Option) -> dict[str, float]:
    return {
        "specific": 1 - (option.memory_size + option.speed) / 2,
        "undisturbed": 1.0 - option.disturbs,
        "fit": 1 - (option.share_left + option.memory_left) / 2,
    }


PACK = Policy("pack", {"specific": 2.0, "undisturbed": 1.5, "fit": 1.0}, _terms)
