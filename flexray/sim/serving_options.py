"""What ``--share``, ``--replicas``, ``--models``, ``--service`` and ``--objective`` say, as a fleet."""

from __future__ import annotations

from flexray.errors import UsageError
from flexray.model.amounts import parse_share
from flexray.sim.reading import validate
from flexray.sim.replicas import Objective, Service
from flexray.sim.serving_result import Fleet


def fleet_of(
    share: float, replicas: int | None, models: int | None, service: str | None, objective: str | None
) -> Fleet:
    """The fleet that the options describe; None is the default. Raises UsageError for what they cannot mean."""
    if not 0 < share <= 1:
        raise UsageError(f"--share {share:g} must be above 0 and at most 1: the part of a card that each replica gets")
    for name, given in (("replicas", replicas), ("models", models)):
        if given is not None and given < 1:
            raise UsageError(f"--{name} {given} must be at least 1")
    return Fleet(
        parse_share(share, "--share")[0],
        replicas,
        1 if models is None else models,
        validate(Service, _pairs("--service", service or ""), "--service"),
        objective_of(objective),
    )


def _pairs(option: str, text: str) -> dict[str, object]:
    """``decode=0.02,memory=8GiB`` as a dict, numbers as numbers."""
    found: dict[str, object] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise UsageError(f"{option}: {part!r} must be KEY=VALUE, such as decode=0.02, with commas between")
        if key in found:
            raise UsageError(f"{option}: {key} is there twice")
        found[key] = _number_or_text(value)
    return found


def _number_or_text(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def objective_of(text: str | None) -> Objective:
    """``5:0.05`` as an objective; None is the default. Raises UsageError for what cannot be meant."""
    if text is None:
        return Objective()
    base, colon, per_token = text.partition(":")
    given = {"base": _number_or_text(base), "per_token": _number_or_text(per_token)}
    if not colon or str in map(type, given.values()):
        raise UsageError(f"--objective {text!r} must be SECONDS:SECONDS-PER-GENERATED-TOKEN, such as 5:0.05")
    return validate(Objective, given, "--objective")
