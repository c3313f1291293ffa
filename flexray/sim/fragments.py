"""How much of the idle devices is of no use to the tasks that are typical: the fragmentation measure of FGD.

From Weng et al., "Beware of Fragmentation", USENIX ATC 2023, section 3. For a node with
devices that have r_g left, and a task shape that asks for k devices with d of each:

    f(shape) = sum of all r_g     if it asks for no device, or the node's type, cores or count of devices with
                                  r_g >= d do not do for it
             = sum of r_g < d     otherwise: slivers that are too small

and the measure is the mean of f over the shapes, weighted by how often they occur.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flexray.model.devices import Inventory

COVERAGE = 0.95
"""The most frequent shapes that make up this part of the tasks count, as in the published work."""


class Shape(NamedTuple):
    """Thousandths of cores, thousandths of each device, devices, allowed type patterns (none: any)."""

    cpus: int
    share: int
    devices: int
    types: tuple[str, ...]


def typical_shapes(shapes: Iterable[tuple[Shape, int]]) -> list[tuple[Shape, float]]:
    """The most frequent shapes that cover 95 % of all, with their part among those; ties in order of the shape."""
    counts: Counter[Shape] = Counter()
    for shape, count in shapes:
        counts[shape] += count
    kept: list[tuple[Shape, int]] = []
    covered = 0
    for shape, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        kept.append((shape, count))
        covered += count
        if covered >= COVERAGE * counts.total():
            break
    return [(shape, count / covered) for shape, count in kept]


class Fragments:
    """What is left on each node, and how much of it is fragments, in thousandths of devices: ``total``."""

    def __init__(self, nodes: Sequence[Inventory], shapes: Sequence[tuple[Shape, float]]) -> None:
        self._rows = {node.node: row for row, node in enumerate(nodes)}
        self._columns = {device.id: i for node in nodes for i, device in enumerate(node.devices)}
        self._cpus = [int(node.cpus) for node in nodes]
        self._left = [np.full(len(node.devices), 1000, np.int64) for node in nodes]
        self._share = np.array([shape.share for shape, _ in shapes], np.int64)
        self._need = np.array([shape.cpus for shape, _ in shapes], np.int64)
        self._count = np.array([shape.devices for shape, _ in shapes], np.int64)
        self._weight = np.array([weight for _, weight in shapes], np.float64)
        masks: dict[str, NDArray[np.bool_]] = {}
        self._allowed = [masks.setdefault(kind, _allowed(kind, shapes)) for kind in map(_type_of, nodes)]
        self._of = [self._measure(row) for row in range(len(nodes))]
        self.total = float(sum(self._of))

    def take(self, node: str, devices: Iterable[str], share: int, cpus: int) -> None:
        """Something was placed there."""
        row = self._rows[node]
        for device in devices:
            self._left[row][self._columns[device]] -= share
        self._cpus[row] -= cpus
        after = self._measure(row)
        self.total += after - self._of[row]
        self._of[row] = after

    def _measure(self, row: int) -> float:
        left = self._left[row]
        if not len(left):
            return 0.0
        fits = left[None, :] >= self._share[:, None]
        usable = self._allowed[row] & (self._need <= self._cpus[row]) & (fits.sum(axis=1) >= self._count)
        slivers = np.where(fits, 0, left[None, :]).sum(axis=1)
        return float(self._weight @ np.where(usable, slivers, left.sum()))


def _type_of(node: Inventory) -> str:
    return node.devices[0].type.name if node.devices else ""


def _allowed(kind: str, shapes: Sequence[tuple[Shape, float]]) -> NDArray[np.bool_]:
    """Per shape, whether it asks for devices and takes those of this type."""
    return np.array(
        [s.devices > 0 and (not s.types or any(fnmatchcase(kind, pattern) for pattern in s.types)) for s, _ in shapes],
        np.bool_,
    )
