"""``fast``: the fastest device first, then the one that disturbs nobody and fits most tightly."""

from __future__ import annotations

from flexray.core.policy import Option, Policy


def _terms(option: Option) -> dict[str, float]:
    return {
        "speed": option.speed,
        "undisturbed": 1.0 - option.disturbs,
        "fit": 1 - (option.share_left + option.memory_left) / 2,
    }


FAST = Policy(
    "fast",
    {"speed": 10.0, "undisturbed": 1.5, "fit": 1.0, "company": 0.8, "near": 0.1, "linked": 0.1},
    _terms,
    uses_speed=True,
)
