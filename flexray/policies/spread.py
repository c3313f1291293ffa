"""``spread``: the emptiest device first, so that work disturbs other work least."""

from __future__ import annotations

from flexray.core.policy import Option, Policy


def _terms(option: Option) -> dict[str, float]:
    return {
        "undisturbed": 1.0 - option.disturbs,
        "empty": (option.share_left + option.memory_left) / 2,
    }


SPREAD = Policy("spread", {"undisturbed": 1.5, "empty": 1.0}, _terms)
