"""``spread``: the emptiest device first, so that work disturbs other work least."""

from __future__ import annotations

from flexray.core.placement import Candidates, FloatArray, Policy


def _terms(candidates: Candidates) -> dict[str, FloatArray]:
    return {
        "undisturbed": 1.0 - candidates.disturbs,
        "empty": (candidates.share_left + candidates.memory_left) / 2,
    }


SPREAD = Policy("spread", {"undisturbed": 1.5, "empty": 1.0}, _terms)
