"""The input schema of scenarios, version 1, as pydantic models. Times in seconds, memory with units."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from flexray import catalog
from flexray.model.amounts import parse_memory
from flexray.model.devices import DeviceType
from flexray.sim.reading import did_you_mean

_GROUP = re.compile(r"\s*(\d+)\s*x\s*(\S+)\s*")


def _memory(value: object) -> int:
    if not isinstance(value, str) or value.strip().replace(".", "", 1).isdigit():
        raise ValueError(f'{value!r} is not an amount of memory; write a number with a unit, such as "8GiB"')
    return parse_memory(value)


def _devices(value: object) -> object:
    """``2xnvidia/T4, 1xnvidia/L4``, or a list of such texts and of objects, as a list of objects."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list):
        raise ValueError(f"{value!r} is neither a text such as 2xnvidia/T4 nor a list")
    return [_device_group(part) if isinstance(part, str) else part for part in parts]


def _device_group(text: str) -> dict[str, Any]:
    match = _GROUP.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no group of devices; write <count>x<type>, such as 2xnvidia/A100-80GB")
    return {"count": int(match[1]), "type": match[2]}


def _durations(value: object) -> object:
    return {"*": value} if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Seconds = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=1e11, allow_inf_nan=False)]
Memory = Annotated[
    int, BeforeValidator(_memory), WithJsonSchema({"type": "string", "description": "with a unit: 8GiB, 512MiB"})
]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Quota = Amount | dict[str, Amount]


class Part(BaseModel):
    """What holds for every part: an unknown key is an error, and 1 is not "1"."""

    model_config = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, frozen=True, strict=True, populate_by_name=True
    )


class DeviceGroup(Part):
    """Some equal devices of a node. ``memory`` and ``speed`` are needed only for types the catalog does not know."""

    type: Name
    count: int = Field(default=1, ge=1, le=10_000)
    memory: Memory | None = None
    """Memory of each device."""
    speed: Positive | None = None
    """Nominal throughput, nvidia/A100-80GB = 1; 1 where neither this nor the catalog says."""
    links: int | None = Field(default=None, ge=2, le=10_000)
    """Size of groups whose devices are all linked with each other (NVLink), each group on a NUMA node of its own."""
    profiles: Literal["mig", "vnpu"] | None = None
    """The devices are cut into the fixed parts that the catalog has for their type, by this mechanism."""

    @model_validator(mode="after")
    def _whole_groups(self) -> DeviceGroup:
        if self.links is not None and self.count % self.links:
            raise ValueError(f"links: groups of {self.links} do not divide the {self.count} devices")
        return self

    @model_validator(mode="after")
    def _known_or_described(self) -> DeviceGroup:
        if self.memory is None and not catalog.is_known(self.type):
            hint = did_you_mean(self.type, [entry.name for entry in catalog.CATALOG])
            raise ValueError(f"the catalog does not know {self.type!r}; add memory: (and speed:) to it.{hint}")
        return self

    @model_validator(mode="after")
    def _has_parts(self) -> DeviceGroup:
        if self.profiles is None:
            return self
        name, memory = self.device_type.name, catalog.find(self.type).memory
        if catalog.cut_by(name).value != self.profiles:
            types = [entry.name for entry in catalog.CATALOG if catalog.cut_by(entry.name).value == self.profiles]
            raise ValueError(f"profiles: {self.profiles} cuts no {self.type!r}; the catalog has parts for {types}")
        if self.device_type.memory != memory:
            raise ValueError(f"profiles: the catalog's parts are of {memory} MiB of {self.type!r}; leave memory: out")
        return self

    @property
    def device_type(self) -> DeviceType:
        """The type of these devices, with what the catalog knows filled in."""
        known = catalog.find(self.type)
        name = known.name if catalog.is_known(self.type) else self.type
        memory = known.memory if self.memory is None else self.memory
        return DeviceType(name, memory, known.speed if self.speed is None else self.speed)  # type: ignore[arg-type]


class Node(Part):
    """One node and what it offers."""

    name: Name
    devices: Annotated[list[DeviceGroup], BeforeValidator(_devices)] = Field(default_factory=list)
    cpus: float = Field(default=0, ge=0, le=1e6, allow_inf_nan=False)
    """Host cores; requests with ``cpus`` fit only where enough are left."""
    host_memory: Memory | None = None


class QueueEntry(Part):
    """A line of requests with a guarantee, a cap and a weight; in devices, or ``{type: n}``, or ``{compute: n}``."""

    name: Name
    quota: Quota | None = None
    limit: Quota | None = None
    weight: float = Field(default=1, ge=0, allow_inf_nan=False)
    priority: int = 0
    """Among its siblings, for what is left once quotas are served."""
    parent: Name = "root"
    priorities: list[int | None] | None = None
    """Lowest and highest priority of its requests."""
    types: Annotated[list[Name], BeforeValidator(_listed)] = Field(default_factory=list)
    """Device types its requests may use, patterns such as nvidia/*."""
    half_life: Positive | None = None
    """Seconds after which use counts half against it."""


class Gang(Part):
    """Several members that start together or not at all, called ``id/0.0``, ``id/0.1`` and so on."""

    size: int = Field(ge=1, le=10_000)
    """How many there are at most; ``duration`` is with all of them."""
    min: int | None = Field(default=None, ge=1)
    """With so many it runs, and takes size / members as long; all of them by default."""
    layout: Literal["pack", "spread"] = "pack"
    """On as few nodes as possible, or on as many."""


class RequestEntry(Part):
    """One request, or ``count`` independent equal ones, called ``id/0``, ``id/1`` and so on."""

    id: Name
    at: Seconds = 0
    count: int | None = Field(default=None, ge=1, le=1_000_000)
    queue: Name = "default"
    gpu: float | list[float] | None = None
    """Share of a device (0.25), several whole ones (2), or a pair [guaranteed, burst]; or one of the next two."""
    npu: float | list[float] | None = None
    accelerator: float | list[float] | None = None
    memory: Memory | None = None
    """Device memory; share x the device's by default."""
    cpus: float = Field(default=0, ge=0, allow_inf_nan=False)
    host_memory: Memory | None = None
    """Host memory booked on the node."""
    priority: int = 0
    types: Annotated[list[Name], BeforeValidator(_listed)] = Field(default_factory=list)
    """Allowed device types, patterns such as nvidia/*."""
    duration: Annotated[dict[Name, Positive], BeforeValidator(_durations)] = Field(min_length=1)
    """The truth: seconds of work, or ``{type pattern: seconds}``."""
    runtime: Positive | None = None
    """What the user declared, in seconds."""
    known: Literal["none", "declared", "true"] = "declared"
    """What the scheduler is told of the duration."""
    class_: Name | None = Field(default=None, alias="class")
    """Slices are reused within a class; the id by default."""
    preemptible: bool = False
    checkpoint_every: Positive | None = None
    """Seconds of work after which its state is safe."""
    gang: Gang | None = None


class Happening(Part):
    """Something that happens at a time: exactly one of the other keys."""

    at: Seconds
    node_down: Name | None = None
    node_up: Name | None = None
    cordon: Name | None = None
    """A node (or a device, n1/gpu0) takes nothing new; what runs there goes on."""
    drain: Name | None = None
    """The same, and what runs there moves off."""
    uncordon: Name | None = None
    """A node (or a device) that was cordoned or drained takes work again."""
    device_suspect: Name | None = None
    """A fault that may pass: the device takes nothing new."""
    device_sick: Name | None = None
    """A fault that condemns it: what runs there moves off."""
    device_lost: Name | None = None
    """It is gone: what runs there ends."""
    device_well: Name | None = None
    queue: QueueEntry | None = None
    """A queue that is new, or other than before."""
    cancel: Name | None = None
    """A request, or the id of an entry with ``count``: all of them."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Happening:
        if len(self.what) != 1:
            known = ", ".join(name for name in type(self).model_fields if name != "at")
            raise ValueError(f"an event is exactly one of {known}; this one has {len(self.what)} of them")
        return self

    @property
    def what(self) -> list[tuple[str, Any]]:
        """The keys that are there, but for the time."""
        pairs = ((name, getattr(self, name)) for name in type(self).model_fields if name != "at")
        return [(name, value) for name, value in pairs if value is not None]


class CostsEntry(Part):
    """What things cost beside the work, in seconds."""

    start: Seconds = 0.6
    warm_start: Seconds = 0.0
    checkpoint: Seconds = 1.0
    restore: Seconds = 1.0


class Scenario(Part):
    """A whole scenario file."""

    version: Literal[1]
    nodes: list[Node] = Field(default_factory=list)
    queues: list[QueueEntry] = Field(default_factory=list)
    requests: list[RequestEntry] = Field(default_factory=list)
    events: list[Happening] = Field(default_factory=list)
    policy: Name | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    """Any field of PoolConfig."""
    costs: CostsEntry = Field(default_factory=CostsEntry)
    slowdown: dict[str, Positive] = Field(default_factory=dict)
    """``[class, class beside it, device type]``, as a list or text -> how many times longer the first takes."""
    until: Positive | None = None
    """When to stop; by default when nothing is left to happen."""
