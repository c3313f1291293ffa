"""What has happened lately, as people look at it."""

from __future__ import annotations

from dataclasses import dataclass

from flexray.model.commands import Command
from flexray.model.events import Event


@dataclass(frozen=True, slots=True)
class Happening:
    """An event that the scheduler took in, or a command that it gave.

    ``number`` counts those of one incarnation from 1; ``at`` is seconds since 1970.
    """

    number: int
    at: float
    what: Event | Command


@dataclass(frozen=True, slots=True)
class Happenings:
    """The latest of them, oldest first, of the incarnation ``epoch``; ``last`` is the number of the last there was."""

    epoch: int
    last: int
    happenings: tuple[Happening, ...]
