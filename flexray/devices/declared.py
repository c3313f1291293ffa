"""Devices Ray was told of: ``ray start --num-gpus=4`` is enough to try everything.

Nothing is known of such a device but its number and, perhaps, its name; nothing is
enforced on it. An unnamed one has neutral speed and 16 GiB.
"""

from __future__ import annotations

import math

from flexray import catalog
from flexray.devices.backend import Health, NodeFacts, ProbeResult, ProbeStatus, Sample, device_id
from flexray.model.devices import Device, DeviceType, Family

TYPE_LABEL = "ray.io/accelerator-type"
"""Ray's node label with the name of the node's accelerator."""

TYPE_RESOURCE = "accelerator_type:"
"""What Ray's resource of the same meaning starts with."""

RAY_FAMILIES = {"GPU": Family.GPU, "NPU": Family.NPU}
"""Ray's resource name -> family."""


class DeclaredBackend:
    """Takes Ray's word for what a node has."""

    name = "declared"

    def probe(self, facts: NodeFacts) -> ProbeResult:
        """One device for each whole GPU or NPU among the node's resources; a fraction left over is dropped."""
        counts: dict[Family, int] = {}
        for resource, family in RAY_FAMILIES.items():
            amount = facts.resources.get(resource, 0.0)
            if not math.isfinite(amount):
                return ProbeResult(ProbeStatus.BROKEN, reason=f"Ray declares {amount} of {resource}")
            if amount >= 1:
                counts[family] = math.floor(amount)
        if not counts:
            return ProbeResult(ProbeStatus.NO_DEVICES, reason="Ray declares no whole GPU or NPU on this node")
        devices = tuple(
            Device(
                id=device_id(facts.node, family, index),
                node=facts.node,
                index=index,
                type=kind,
                family=family,
                backend=self.name,
            )
            for family, count in counts.items()
            for kind in [_type(facts, family, alone=len(counts) == 1)]
            for index in range(count)
        )
        return ProbeResult(ProbeStatus.OK, devices)

    def health(self, device: Device) -> Health:
        """Always well: there is nobody to ask."""
        return Health(ok=True)

    def sample(self, device: Device) -> Sample:
        """Nothing can be told of a declared device."""
        return Sample()


def _type(facts: NodeFacts, family: Family, alone: bool) -> DeviceType:
    """The type Ray names for a family; an unknown name counts only if the node has no other family."""
    names = [facts.labels.get(TYPE_LABEL, "")]
    names += sorted(key.removeprefix(TYPE_RESOURCE) for key in facts.resources if key.startswith(TYPE_RESOURCE))
    for name in filter(None, names):
        kind = catalog.find(name)
        if alone and not catalog.is_known(name):
            return kind
        if catalog.is_known(name) and catalog.family_of(kind.name) is family:
            return kind
    return DeviceType(f"declared/{family.value}", catalog.NEUTRAL_MEMORY, catalog.NEUTRAL_SPEED)
