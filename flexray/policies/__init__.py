"""Placement policies by name: one file each, one table. To add one, add its file and its line."""

from __future__ import annotations

import difflib
import importlib

from flexray.core.policy import Policy
from flexray.errors import UnknownPolicy
from flexray.policies.balanced import BALANCED
from flexray.policies.fast import FAST
from flexray.policies.fgd import FGD
from flexray.policies.pack import PACK
from flexray.policies.spread import SPREAD

POLICIES: dict[str, Policy] = {policy.name: policy for policy in (BALANCED, PACK, SPREAD, FGD, FAST)}


def find_policy(name: str) -> Policy:
    """The policy of that name, or at an import path ``module:NAME``.

    Raises UnknownPolicy with the nearest name, or with what is wrong at the path.
    """
    module, colon, attribute = name.partition(":")
    if colon:
        return _import_policy(module, attribute)
    try:
        return POLICIES[name]
    except KeyError:
        near = difflib.get_close_matches(name, POLICIES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownPolicy(f"unknown policy {name!r}.{hint} Known: {', '.join(sorted(POLICIES))}") from None


def _import_policy(module: str, attribute: str) -> Policy:
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownPolicy(f"policy {module}:{attribute} cannot be imported: {error}") from error
    if not isinstance(found, Policy):
        raise UnknownPolicy(f"{module}:{attribute} is a {type(found).__name__}, not a flexray.core.policy.Policy")
    return found
