"""What is asked of the pool: a Request, and the table that turns user options into one."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from flexray.errors import InvalidRequest
from flexray.model.amounts import (
    WHOLE,
    MemoryMiB,
    MilliCpus,
    Share,
    parse_cpus,
    parse_memory,
    parse_share,
    share_as_float,
    share_of,
)
from flexray.model.devices import Device, Family
from flexray.model.gang import Gang, parse_gang
from flexray.model.isolation import Guarantee, Isolation, Strength, least_guarantee

DEFAULT_QUEUE = "default"
_FAMILY_OPTIONS = {"gpu": Family.GPU, "npu": Family.NPU, "accelerator": Family.ANY}
_REQUEST_OPTIONS = (*_FAMILY_OPTIONS, "memory", "types", "queue", "priority", "runtime", "cpus", "gang", "request")


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: part of one device, several whole devices of one node, or only a part of a node.

    Users meet it as ``flex.Request(...)`` for what the short options do not cover
    (``isolation=``), passed as ``request=`` beside them. Immutable.

    Attributes:
        share: thousandths of each device.
        devices: number of devices; above 1 they are whole and on one node, 0 asks for host cores and memory only.
        memory: MiB of each device, or text such as ``"4GiB"``; None means share x the device's memory.
        family: which kind of accelerator.
        burst: how far the slice may use idle share of its device; None means its own share.
        types: allowed device types, patterns such as ``nvidia/A100*``; () means any.
        cpus: thousandths of host cores booked beside the device.
        host_memory: MiB of host memory booked beside the device, or text such as ``"16GiB"``; more than that its slice
            may not use. 0: none is booked, and it is not limited.
        queue: name of the queue.
        priority: higher goes first within the queue.
        isolation: at least this strength of both compute and memory, such as ``"hard"``, or what a mechanism gives,
            such as ``"mps"``.
        runtime: declared run time of one task in seconds, or None.
        throughput: relative speeds by type, such as ``{"nvidia/A100*": 1.0, "nvidia/T4": 0.2}``, or () to learn them.
        preemptible: whether the pool may stop a running task and start it again elsewhere, when it has had its grace
            period to notice ``should_yield()``.
        checkpoint_every: seconds of work after which the task saves its state: what stopping it costs at most. None:
            all of it is done again.
        checkpoint_place: where ``flex.current().checkpoint()`` stores: a directory that all nodes share, or a URL
            for fsspec such as ``"s3://bucket/path"``. None: in Ray's object store, held by the client.
        gang: how many members start together, each with all of the above; None: it is one by itself.
    """

    share: Share = WHOLE
    devices: int = 1
    memory: MemoryMiB | None = None
    family: Family = Family.ANY
    burst: Share | None = None
    types: tuple[str, ...] = ()
    cpus: MilliCpus = MilliCpus(0)
    host_memory: MemoryMiB = MemoryMiB(0)
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    isolation: Isolation | Strength = Isolation.NONE
    runtime: float | None = None
    throughput: tuple[tuple[str, float], ...] = ()
    preemptible: bool = False
    checkpoint_every: float | None = None
    checkpoint_place: str | None = None
    gang: Gang | None = None

    def __post_init__(self) -> None:
        if isinstance(self.memory, str):
            object.__setattr__(self, "memory", parse_memory(self.memory))
        if isinstance(self.host_memory, str):
            object.__setattr__(self, "host_memory", parse_memory(self.host_memory, "host_memory"))
        object.__setattr__(self, "family", Family(self.family))
        object.__setattr__(self, "types", _parse_types(self.types))
        object.__setattr__(self, "isolation", _parse_isolation(self.isolation))
        object.__setattr__(self, "throughput", _parse_throughput(self.throughput))
        object.__setattr__(self, "gang", parse_gang(self.gang))
        host = (self.cpus, self.host_memory)
        amounts = (self.share, self.devices, *host, *(a for a in (self.memory, self.burst) if a is not None))
        if any(type(amount) is not int for amount in amounts):
            raise InvalidRequest(
                f"share, devices, memory (MiB), burst, cpus and host_memory must be whole numbers, got {amounts}"
            )
        if min(host) < 0 or (self.memory is not None and self.memory < 1):
            raise InvalidRequest(
                f"memory={self.memory} MiB, cpus={self.cpus} thousandths and host_memory={self.host_memory} MiB "
                f"cannot be asked for"
            )
        if not 1 <= self.share <= WHOLE or self.devices < 0 or (self.devices != 1 and self.share != WHOLE):
            raise InvalidRequest(f"share={self.share} thousandths of {self.devices} devices cannot be asked for")
        if not self.devices and (not any(host) or self.memory is not None or self.types):
            raise InvalidRequest("a request without devices asks for cpus or host_memory, and for nothing of a device")
        if isinstance(self.priority, bool) or not isinstance(self.priority, int):
            raise InvalidRequest(f"priority={self.priority!r} must be a whole number")
        for name in ("runtime", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and (type(value) not in (int, float) or not 0 < value < float("inf")):
                raise InvalidRequest(f"{name}={value!r} must be a number of seconds above 0")
        if type(self.preemptible) is not bool:
            raise InvalidRequest(f"preemptible={self.preemptible!r} must be True or False")
        if self.checkpoint_every is not None and not self.preemptible:
            raise InvalidRequest("checkpoint_every= says what stopping a task costs; it needs preemptible=True")
        _check_place(self.checkpoint_place)

    @property
    def shape(self) -> tuple[object, ...]:
        """Everything that decides where the request fits; equal shapes fit the same places."""
        return (
            self.share,
            self.devices,
            self.memory,
            self.family,
            self.types,
            self.cpus,
            self.host_memory,
            self.isolation,
            self.gang,
        )

    @property
    def least(self) -> Guarantee:
        """How strongly its slice has to be held, at least."""
        return least_guarantee(self.isolation)

    @property
    def host(self) -> tuple[int, int]:
        """What is booked on the node: thousandths of cores, MiB of memory."""
        return (self.cpus, self.host_memory)

    def memory_on(self, device: Device) -> MemoryMiB:
        """Memory the request needs on each device of this kind, in MiB."""
        return memory_needed(self, device.type.memory)

    def allows_type(self, name: str) -> bool:
        """Whether a device type of that name is among the allowed ones."""
        return not self.types or any(fnmatchcase(name, pattern) for pattern in self.types)

    def describe(self) -> str:
        """For messages: ``gpu=0.25, memory=4.0 GiB``."""
        word = "accelerator" if self.family is Family.ANY else self.family.value
        amount = self.devices if self.devices > 1 else share_as_float(self.share)
        parts = [f"{word}={amount:g}"] if self.devices else []
        if self.memory is not None:
            parts.append(f'memory="{self.memory}MiB"')
        if self.types:
            parts.append(f"types={list(self.types)}")
        if self.cpus:
            parts.append(f"cpus={share_as_float(self.cpus):g}")
        if self.host_memory:
            parts.append(f'host_memory="{self.host_memory}MiB"')
        if self.gang is not None:
            parts.append(f"gang={self.gang.describe()}")
        if self.isolation is not Isolation.NONE:
            parts.append(f'isolation="{self.isolation.value}"')
        return ", ".join(parts)


def memory_needed(request: Request, device_memory: int) -> MemoryMiB:
    """MiB the request takes of a device with that much memory: what it asked, else its share of the whole."""
    if request.memory is not None:
        return request.memory
    return MemoryMiB(share_of(device_memory, request.share))


def _parse_types(types: object) -> tuple[str, ...]:
    if isinstance(types, str):
        types = (types,)
    if not isinstance(types, (tuple, list)) or not all(isinstance(t, str) and t for t in types):
        raise InvalidRequest(f'types={types!r} must be device types such as "nvidia/A100*", or a list of them')
    return tuple(types)


def _check_place(place: object) -> None:
    absolute = isinstance(place, str) and (place.startswith("/") or "://" in place)
    if place is not None and not absolute:
        raise InvalidRequest(
            f'checkpoint_place={place!r} must be an absolute directory that all nodes share, or a URL such as "s3://..."'
        )


def _parse_throughput(value: object) -> tuple[tuple[str, float], ...]:
    pairs = tuple(value.items()) if isinstance(value, Mapping) else value
    if not isinstance(pairs, (tuple, list)) or not all(
        isinstance(pair, (tuple, list))
        and len(pair) == 2
        and isinstance(pair[0], str)
        and type(pair[1]) in (int, float)
        and 0 < pair[1] < float("inf")
        for pair in pairs
    ):
        raise InvalidRequest(
            f'throughput={value!r} must map device types (or patterns) to speeds above 0: {{"nvidia/A100*": 1.0}}'
        )
    return tuple((name, float(speed)) for name, speed in pairs)


def _parse_isolation(value: object) -> Isolation | Strength:
    for kind in (Isolation, Strength):
        if value in [one.value for one in kind]:
            return kind(value)
    strengths, mechanisms = (", ".join(one.value for one in kind) for kind in (Strength, Isolation))
    raise InvalidRequest(
        f"isolation={value!r} is unknown; use a strength ({strengths}) or a mechanism that gives it ({mechanisms})"
    )


def _parse_amount(option: str, value: object) -> dict[str, object]:
    """One of gpu=, npu=, accelerator=: a number, or a pair (guaranteed, burst)."""
    burst: object = None
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise InvalidRequest(f"{option}={value!r} must be a number or a pair (guaranteed, burst)")
        value, burst = value
    share, devices = parse_share(value, option)
    family = _FAMILY_OPTIONS[option]
    fields: dict[str, object] = {"share": share, "devices": devices, "family": family, "burst": None}
    if burst is not None:
        most, burst_devices = parse_share(burst, f"burst of {option}")
        if devices > 1 or burst_devices > 1 or most < share:
            raise InvalidRequest(f"{option}=({value}, {burst}): the burst must be between the share and 1 device")
        fields["burst"] = most
    return fields


def parse_size(gpu: object, npu: object, accelerator: object, memory: object) -> tuple[Share | None, MemoryMiB | None]:
    """Another size for a running slice: (share, memory), None for what stays. Raises InvalidRequest."""
    given = {"gpu": gpu, "npu": npu, "accelerator": accelerator}
    amounts = [(name, value) for name, value in given.items() if value is not None]
    if len(amounts) > 1 or (not amounts and memory is None):
        raise InvalidRequest("say what the slice is to have: one of gpu=, npu=, accelerator=, and memory=, or either")
    share: Share | None = None
    for name, value in amounts:
        share, devices = parse_share(value, name)
        if devices > 1:
            raise InvalidRequest(f"{name}={value}: a running slice stays on its device; it can have up to all of it, 1")
    return share, None if memory is None else parse_memory(memory)


def unknown_option(name: str, known: tuple[str, ...]) -> InvalidRequest:
    """The error for an option nobody has, with the nearest one that exists."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InvalidRequest(f"unknown option {name!r}.{hint} Known options: {', '.join(known)}")


def request_from_options(options: Mapping[str, object]) -> Request:
    """Build a Request from user options (gpu=, memory=, types=, queue=, priority=, runtime=, cpus=, gang=, request=).

    Raises InvalidRequest, naming the option, for anything that makes no sense.
    """
    for name in options:
        if name not in _REQUEST_OPTIONS:
            raise unknown_option(name, _REQUEST_OPTIONS)
    base = options.get("request")
    if base is not None and not isinstance(base, Request):
        raise InvalidRequest(f"request={base!r} must be a flex.Request")
    amounts = [name for name in _FAMILY_OPTIONS if options.get(name) is not None]
    if len(amounts) > 1:
        raise InvalidRequest(f"give one of gpu=, npu=, accelerator=, not {' and '.join(amounts)}")
    if not amounts and base is None:
        raise InvalidRequest("say how much of a device is needed: gpu=0.25, npu=1 or accelerator=0.5")
    fields: dict[str, object] = _parse_amount(amounts[0], options[amounts[0]]) if amounts else {}
    parse = {"memory": parse_memory, "cpus": parse_cpus}
    for name in ("memory", "types", "queue", "priority", "runtime", "cpus", "gang"):
        value = options.get(name)
        if value is not None:
            fields[name] = parse[name](value) if name in parse else value
    if "queue" in fields and not isinstance(fields["queue"], str):
        raise InvalidRequest(f"queue={fields['queue']!r} must be the name of a queue")
    return dataclasses.replace(base or Request(), **fields)  # type: ignore[arg-type]
