"""Neighbours among the devices of one node: which of them work together best, and how well a chosen set is connected.

What counts is the number of direct links (NVLink lanes) between two devices, then whether they hang on
one NUMA node. A NUMA node that is not known (-1) is nobody's neighbour.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

from flexray.model.devices import Device

_EXACT = 8
"""Up to so many devices every choice is looked at: 70 at most. Nodes with more are rare."""

Choice = tuple[int, ...]
"""Places of devices in the order of their indexes."""


def best_linked(devices: Sequence[Device], count: int) -> tuple[Device, ...]:
    """The ``count`` devices that work together best, in the order of their indexes.

    The most lanes among themselves; then the most of them on one NUMA node; then what the others keep: the most
    lanes among themselves, the most pairs on one NUMA node (so a pair is taken rather than two halves); then
    the lowest indexes. Exact for 8 devices or fewer. Above, a set grows from each device by the neighbour with the
    most lanes to those in it, then on the NUMA node that has the most of them, then with the fewest lanes
    to those outside, then with the lowest index; and the best of these sets by the rule above is taken.

    Args:
        devices: whole devices of one node and family, each once, in any order.
        count: how many, from 1 to ``len(devices)``.
    """
    ordered = sorted(devices, key=lambda device: device.index)
    if count == len(ordered) or not any(device.links or device.numa >= 0 for device in ordered):
        return tuple(ordered[:count])
    lanes = _lanes(ordered)
    numas = [device.numa for device in ordered]
    choices: Iterable[Choice]
    if len(ordered) <= _EXACT:
        choices = itertools.combinations(range(len(ordered)), count)
    else:
        choices = sorted({_grown(lanes, numas, seed, count) for seed in range(len(ordered))})
    return tuple(ordered[place] for place in _best(list(choices), lanes, numas))


def linked(devices: Sequence[Device], node: Sequence[Device]) -> float:
    """How well a chosen set is connected, 0 to 1; a single device is 1.

    The mean over its pairs of their lanes, in parts of the most lanes that any pair of ``node`` has. Where no
    device of ``node`` has links: the part of the pairs that are on one NUMA node, or of which one is not known.

    Args:
        devices: the chosen ones, of one node and family.
        node: all devices of that node and family.
    """
    pairs = list(itertools.combinations(devices, 2))
    if not pairs:
        return 1.0
    most = max((count for device in node for _, count in device.links), default=0)
    if most:
        return sum(min(most, _between(one, other)) for one, other in pairs) / (most * len(pairs))
    near = sum(1 for one, other in pairs if one.numa == other.numa or min(one.numa, other.numa) < 0)
    return near / len(pairs)


def _between(one: Device, other: Device) -> int:
    """Lanes between two devices; one side's word is enough."""
    return max(dict(one.links).get(other.index, 0), dict(other.links).get(one.index, 0))


def _lanes(ordered: Sequence[Device]) -> list[list[int]]:
    """Lanes between the devices, by their places in the order."""
    return [[_between(one, other) if one is not other else 0 for other in ordered] for one in ordered]


def _best(choices: list[Choice], lanes: list[list[int]], numas: list[int]) -> Choice:
    """The best by each rule in turn, of equals the first. Few are left after the first rule, which is the cheapest."""

    def inside(chosen: Choice) -> int:
        return sum(lanes[i][j] for i, j in itertools.combinations(chosen, 2))

    def together(chosen: Choice) -> int:
        return max(_on_nodes(numas, chosen).values(), default=0)

    def kept(chosen: Choice) -> int:  # those with equally many inside leave the more, the fewer they have in all
        return -sum(totals[place] for place in chosen)

    def kept_near(chosen: Choice) -> int:
        others = (place for place in range(len(lanes)) if place not in chosen)
        return sum(n * (n - 1) // 2 for n in _on_nodes(numas, others).values())

    totals = [sum(row) for row in lanes]
    for rule in (inside, together, kept, kept_near) if max(numas) >= 0 else (inside, kept):
        worths = [rule(chosen) for chosen in choices]
        most = max(worths)
        choices = [chosen for chosen, worth in zip(choices, worths, strict=True) if worth == most]
        if len(choices) == 1:
            break
    return choices[0]


def _on_nodes(numas: list[int], places: Iterable[int]) -> Counter[int]:
    """How many of the places are on each known NUMA node."""
    return Counter(numas[place] for place in places if numas[place] >= 0)


def _grown(lanes: list[list[int]], numas: list[int], seed: int, count: int) -> tuple[int, ...]:
    """A set grown from one device; see ``best_linked``."""
    chosen = [seed]
    left = [place for place in range(len(lanes)) if place != seed]
    while len(chosen) < count:
        nodes = _on_nodes(numas, chosen)

        def worth(place: int, nodes: Counter[int] = nodes) -> tuple[int, int, int, int]:
            inside = sum(lanes[place][other] for other in chosen)
            return inside, nodes[numas[place]], inside - sum(lanes[place]), -place

        best = max(left, key=worth)
        chosen.append(best)
        left.remove(best)
    return tuple(sorted(chosen))
