"""Best fit and FGD as published, apart from flexray's core: what our figures for them are checked against.

From Weng et al., "Beware of Fragmentation" (USENIX ATC 2023), and the authors' simulator
(hkust-adsl/kubernetes-scheduler-simulator, Apache-2.0). Both see every node with the cores,
host memory, type and devices a task needs, take the one with the highest score, a whole
number from 0 to 100, and of equal ones the first in a random order that stays the same for the run.

    best fit   int(100 * (1 - cores left / 128 / 2 - devices left / 8 / 2)); the fullest device that will do
    FGD        int(100 * logistic(devices' worth of fragments that the node loses)); of a node's devices the one
               with the highest score, the first of equal ones. Fragments as in flexray/sim/fragments.py,
               for the shapes of the whole trace that cover 95 % of its tasks: the mix is given, not learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from flexray.model.amounts import WHOLE, MemoryMiB, Share
from flexray.model.devices import Inventory
from flexray.model.lease import Placement
from flexray.sim.fragments import Shape, typical_shapes
from flexray.sim.openb import Task, shape_of

PREFIX = "published-"
Numbers = NDArray[np.int64]
#: Scores of nodes for a task, and which of their devices it would use (-1: none, or several whole ones).
Scores = tuple[Numbers, Numbers]
_NO = -1


class Cluster:
    """What is left on every node: thousandths of cores, MiB, thousandths of each device (-1 where there is none)."""

    def __init__(self, nodes: Sequence[Inventory], tasks: Sequence[Task]) -> None:
        self.names = [node.node for node in nodes]
        self.ids = [[device.id for device in node.devices] for node in nodes]
        self.cpus = np.array([node.cpus for node in nodes], np.int64)
        self.memory = np.array([node.host_memory for node in nodes], np.int64)
        self.devices = np.full((len(nodes), max(len(node.devices) for node in nodes)), -1, np.int64)
        for row, node in enumerate(nodes):
            self.devices[row, : len(node.devices)] = WHOLE
        types = [node.devices[0].type.name if node.devices else "" for node in nodes]
        shapes = typical_shapes((shape_of(task), 1) for task in tasks)
        self._need = np.array([[s.cpus, s.share, s.devices] for s, _ in shapes], np.int64).T
        self._weight = np.array([weight for _, weight in shapes])
        self._types = types
        self._allowed = np.array([[s.devices > 0 and _takes(s, kind) for s, _ in shapes] for kind in types])

    def allows(self, shape: Shape) -> NDArray[np.bool_]:
        """Per node, whether the shape takes its type."""
        return np.array([not shape.devices or _takes(shape, kind) for kind in self._types])

    def fragments(self, rows: Numbers, cpus: Numbers, devices: Numbers) -> NDArray[np.float64]:
        """Fragments, in thousandths of devices, of nodes if they had these cores and devices left."""
        need, share, count = self._need
        fits = devices[:, None, :] >= share[None, :, None]
        usable = self._allowed[rows] & (need <= cpus[:, None]) & (fits.sum(axis=2) >= count)
        left = np.maximum(devices, 0)
        slivers = np.where(fits, 0, left[:, None, :]).sum(axis=2)
        measured: NDArray[np.float64] = np.where(usable, slivers, left.sum(axis=1)[:, None]) @ self._weight
        return measured


def _takes(shape: Shape, kind: str) -> bool:
    return not shape.types or kind in shape.types


def best_fit(cluster: Cluster, shape: Shape, rows: Numbers) -> Scores:
    """Least cores and devices left over."""
    left = np.maximum(cluster.devices[rows], 0)
    cpus = (cluster.cpus[rows] - shape.cpus) / 128_000
    after = (left.sum(axis=1) - shape.share * shape.devices) / 8_000
    scores = (100 * (1 - cpus / 2 - after / 2)).astype(np.int64)
    tightest = np.where(cluster.devices[rows] >= shape.share, cluster.devices[rows], 10 * WHOLE).argmin(axis=1)
    return scores, tightest if shape.devices == 1 else np.full(len(rows), _NO)


def fgd(cluster: Cluster, shape: Shape, rows: Numbers) -> Scores:
    """Steepest descent of fragmentation."""
    devices, cpus = cluster.devices[rows], cluster.cpus[rows] - shape.cpus
    before = cluster.fragments(rows, cluster.cpus[rows], devices)
    if not 0 < shape.share < WHOLE:
        whole = devices == WHOLE
        taken = whole & (whole.cumsum(axis=1) <= shape.devices)
        return _squash(before - cluster.fragments(rows, cpus, np.where(taken, 0, devices))), np.full(len(rows), _NO)
    width = devices.shape[1]
    after = np.repeat(devices, width, axis=0)
    after[np.arange(len(after)), np.tile(np.arange(width), len(rows))] -= shape.share
    after = np.where(after < -1, -1, after)  # devices that are too full are left out below
    measured = cluster.fragments(np.repeat(rows, width), np.repeat(cpus, width), after).reshape(-1, width)
    scores = np.where(devices >= shape.share, _squash(before[:, None] - measured), _NO)
    return scores.max(axis=1), scores.argmax(axis=1)


def _squash(lost: NDArray[np.float64]) -> Numbers:
    return (100 / (1 + np.exp(-lost / WHOLE))).astype(np.int64)


POLICIES: dict[str, Callable[[Cluster, Shape, Numbers], Scores]] = {
    f"{PREFIX}bestfit": best_fit,
    f"{PREFIX}fgd": fgd,
}


class Published:
    """One of ``POLICIES`` on a cluster, asked for one task after the other; scores are kept until a node changes."""

    def __init__(self, nodes: Sequence[Inventory], tasks: Sequence[Task], policy: str, seed: int) -> None:
        self._cluster, self._score = Cluster(nodes, tasks), POLICIES[policy]
        order = np.random.default_rng([seed, 1]).permutation(len(nodes))
        self._rank = np.empty(len(nodes), np.int64)
        self._rank[order] = np.arange(len(nodes))
        self._known: dict[Shape, tuple[int, Numbers, Numbers]] = {}
        self._changed: list[int] = []
        self._allocated = 0

    def place(self, task: Task) -> Placement | None:
        """Where the policy puts a task; None where it fits nowhere."""
        cluster, shape, request = self._cluster, shape_of(task), task.request
        scores, rooms = self._scores(shape)
        scores = np.where(cluster.memory >= request.host_memory, scores, _NO)
        best = scores.max()
        if best == _NO:
            return None
        ties = np.flatnonzero(scores == best)
        row = int(ties[self._rank[ties].argmin()])
        taken = [int(rooms[row])] if rooms[row] != _NO else list(self._whole(row, shape.devices))
        cluster.cpus[row] -= shape.cpus
        cluster.memory[row] -= request.host_memory
        cluster.devices[row, taken] -= shape.share
        self._changed.append(row)
        self._allocated += task.demand
        ids = cluster.ids[row]
        return Placement(cluster.names[row], tuple(ids[i] for i in taken), Share(shape.share), MemoryMiB(0))

    def check(self, allocated: int) -> None:
        """No node has less than nothing, and what was placed is what was counted elsewhere."""
        cluster = self._cluster
        if min(cluster.cpus.min(), cluster.memory.min(), cluster.devices.min() + 1) < 0 or allocated != self._allocated:
            raise AssertionError(f"{allocated} thousandths were counted, {self._allocated} placed")

    def _whole(self, row: int, count: int) -> Numbers:
        return np.flatnonzero(self._cluster.devices[row] == WHOLE)[:count]

    def _scores(self, shape: Shape) -> tuple[Numbers, Numbers]:
        """Score and room on every node, host memory aside; only nodes that changed are scored again."""
        size = len(self._cluster.names)
        if shape in self._known:
            read, scores, rooms = self._known[shape]
            stale = np.unique(np.array(self._changed[read:], np.int64))
        else:
            scores, rooms, stale = np.full(size, _NO), np.full(size, _NO), np.flatnonzero(self._cluster.allows(shape))
            self._known[shape] = (0, scores, rooms)
        allowed = stale[self._cluster.allows(shape)[stale]] if shape.types else stale
        fits = allowed[self._fits(shape, allowed)]
        scores[stale] = _NO
        if len(fits):
            scores[fits], rooms[fits] = self._score(self._cluster, shape, fits)
        self._known[shape] = (len(self._changed), scores, rooms)
        return scores, rooms

    def _fits(self, shape: Shape, rows: Numbers) -> NDArray[np.bool_]:
        cluster = self._cluster
        enough = (cluster.devices[rows] >= max(1, shape.share)).sum(axis=1) >= shape.devices
        fits: NDArray[np.bool_] = enough & (cluster.cpus[rows] >= shape.cpus)
        return fits
