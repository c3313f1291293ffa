"""Placement policies by name: one file each, one table. To add one, add its file and its line."""

from __future__ import annotations

import difflib

from flexray.core.placement import Policy
from flexray.errors import UnknownPolicy
from flexray.policies.fast import FAST
from flexray.policies.fgd import FGD
from flexray.policies.pack import PACK
from flexray.policies.spread import SPREAD

POLICIES: dict[str, Policy] = {policy.name: policy for policy in (PACK, SPREAD, FGD, FAST)}


def find_policy(name: str) -> Policy:
    """The policy of that name. Raises UnknownPolicy with the nearest one."""
    try:
        return POLICIES[name]
    except KeyError:
        near = difflib.get_close_matches(name, POLICIES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownPolicy(f"unknown policy {name!r}.{hint} Known: {', '.join(sorted(POLICIES))}") from None
