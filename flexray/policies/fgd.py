"""``fgd``: where the pool fragments least, judged by the requests that have arrived lately.

The score of FGD (Weng et al., USENIX ATC'23): the logistic function of the devices' worth
of fragments that the node loses, in hundredths, rounded down. The rounding is part of it:
exact descent packs worse.
"""

from __future__ import annotations

from flexray.core.policy import Option, Policy


def _terms(option: Option) -> dict[str, float]:
    return {"defragments": option.defragments}


FGD = Policy("fgd", {"defragments": 1.0}, _terms, step=0.01, additive=True, squash=True, uses_mix=True)
