"""The one configuration of a pool, read once at the edge."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, field_validator

from flexray.errors import UsageError
from flexray.model.isolation import Isolation
from flexray.queue_file import parse_queues, plain_queue


class NewNodes(BaseModel):
    """A kind of node that Ray's autoscaler can add to the cluster.

    Attributes:
        type: device type, such as ``nvidia/A100-80GB``, as the pool calls it once it is there.
        devices: how many of them such a node has.
        labels: how Ray finds the kind, as a label selector such as ``{"ray.io/accelerator-type": "A100"}``; {} where
            any node with such devices will do.
        cpus, host_memory: what such a node has beside its devices, for requests with ``cpus=`` or ``host_memory=``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str = Field(min_length=1)
    devices: int = Field(default=1, ge=1)
    labels: dict[str, str] = Field(default_factory=dict)
    cpus: float = Field(default=0.0, ge=0)
    host_memory: str = ""


class Scaling(BaseModel):
    """How the pool gets on with Ray's autoscaler; see docs/operations.md.

    Attributes:
        nodes: what the autoscaler can add, those to be preferred first.
        wait_seconds: a request that has waited this long asks for a node.
        idle_seconds: a node on which nothing was for this long is given back to Ray, whose autoscaler may remove it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    nodes: list[NewNodes] = Field(min_length=1)
    wait_seconds: float = Field(default=5.0, ge=0)
    idle_seconds: float = Field(default=120.0, ge=0)


class PoolConfig(BaseModel):
    """Settings of a pool, fixed when it starts. An unknown key is an error.

    Pass to ``flex.init(config=...)`` as a PoolConfig or a dict, or to ``flexray start
    --config FILE`` as JSON.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: str = "balanced"
    """How places are scored: ``balanced``, ``fast``, ``fgd``, ``pack``, ``spread``, or a Policy of your own as
    ``module:NAME``, importable on the scheduler's node."""

    policy_weights: dict[str, float] = Field(default_factory=dict)
    """Other weights for some of the policy's terms; ``explain`` shows the terms."""

    cpu_devices: int | None = Field(default=None, ge=0, le=256)
    """CPU stand-ins on each node without accelerators; None makes one where the whole cluster has no accelerator."""

    fake_devices: str = ""
    """Fake inventory for every node that has no ``flexray.fake`` label, such as ``2xA100-80GB.2xT4``, or
    ``4xA100-80GB_nv2`` where NVLink joins them in pairs. For tests."""

    leave_to_ray: dict[str, NonNegativeInt] = Field(default_factory=dict)
    """Devices per node that the pool does not claim, by Ray resource: ``{"GPU": 1}``."""

    isolation: dict[str, str] = Field(default_factory=dict)
    """Device type (or pattern) -> mechanism that holds slices there, such as ``{"nvidia/A100*": "mps"}``; where none is
    given, the best that works. See docs/isolation.md."""

    warm_seconds: float = Field(default=300.0, ge=0)
    """An idle slice is stopped after this many seconds, or earlier when its room is needed."""

    linger_seconds: float = Field(default=0.5, ge=0)
    """A client keeps a lease this long after its last task, in case another comes."""

    lease_term_seconds: float = Field(default=5.0, gt=0)
    """A lease older than this is recalled for a request that has waited this long."""

    batch_seconds: float = Field(default=0.005, gt=0, le=1)
    """A finished result waits this long for company on its way to the client, and at most as long again where the
    rest of its batch is nearly done. Small tasks travel in batches that run for about twice as long. Where the tasks
    that wait take more than 0.2 s, both grow with it, to 50 and 100 milliseconds."""

    max_backlog: int = Field(default=1_000_000, ge=1)
    """Tasks that may wait in one client."""

    backlog_full: Literal["raise", "block"] = "raise"
    """What ``.remote()`` does when the backlog is full."""

    grace_seconds: float = Field(default=2.0, ge=0)
    """How long a task that ran into its timeout, or is preempted, may take to notice ``should_yield()`` before its
    slice is stopped."""

    rematch_seconds: float = Field(default=30.0, ge=0)
    """How often preemptible work is matched to device types again; 0: never."""

    patience_seconds: float = Field(default=3600.0, gt=0)
    """A request that has waited this long takes the place of preemptible work."""

    poll_seconds: float = Field(default=1.0, gt=0, le=60)
    """How often nodes, claims and device health are looked at."""

    recovery_seconds: float = Field(default=60.0, gt=0)
    """How long a device has to be well after a fault before it takes work again; longer where it falls again soon."""

    drain_seconds: float = Field(default=300.0, ge=0)
    """How long what cannot be preempted may go on on a device that is sick or drained, before it is moved by force."""

    start_timeout_seconds: float = Field(default=120.0, gt=0)
    """How long the start of a slice may take, including its runtime environment."""

    rejoin_seconds: float = Field(default=10.0, ge=0)
    """How long a scheduler that was started again waits for nodes and clients to say what they have, before it goes on
    without those that have not."""

    client_timeout_seconds: float = Field(default=60.0, ge=1)
    """A client that has not been heard of for this long is taken for dead: its leases end. The end of its process is
    noticed within seconds; this is for machines that stop or are cut off."""

    share_environments: bool = False
    """Give warm slices to other jobs too, where all their code is content-addressed (working_dir, packages by URI)."""

    scaling: Scaling | None = None
    """For a cluster with an autoscaler: what it can add. None: no node is asked for, none is given back."""

    queues: list[dict[str, Any]] = Field(default_factory=list)
    """Queues of the pool, as in a file of queues (``flexray start --queues FILE`` reads one); see docs/queues.md.
    ``flexray queue set`` changes them while the pool runs."""

    usage_kept: Annotated[float, Field(gt=0, le=366)] | Annotated[str, Field(min_length=1)] = 7.0
    """For how many days usage is kept by the hour, in Ray's own store; or a directory on the scheduler's node in which
    it is kept for good. See docs/accounting.md."""

    journal: str = ""
    """Path of a file, on the scheduler's node, that events and commands are appended to."""

    @field_validator("isolation")
    @classmethod
    def _mechanisms_exist(cls, value: dict[str, str]) -> dict[str, str]:
        known = [one.value for one in Isolation]
        for pattern, mechanism in value.items():
            if mechanism not in known:
                raise ValueError(f"{pattern}: no mechanism {mechanism!r}; use one of {', '.join(known)}")
        return value

    @field_validator("queues")
    @classmethod
    def _queues_make_sense(cls, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        try:
            return [plain_queue(queue) for queue in parse_queues({"queues": value})]
        except UsageError as error:
            raise ValueError(str(error)) from None


def load_config(config: PoolConfig | Mapping[str, Any] | str | os.PathLike[str] | None) -> PoolConfig:
    """A PoolConfig from what a user gave: one, a dict, the path of a JSON file, or None for the defaults.

    Raises UsageError with one line per wrong field.
    """
    if isinstance(config, PoolConfig):
        return config
    try:
        if isinstance(config, (str, os.PathLike)):
            return PoolConfig.model_validate_json(Path(config).read_text())
        return PoolConfig.model_validate(dict(config or {}))
    except OSError as error:
        raise UsageError(f"cannot read the configuration: {error}") from None
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'config'}: {e['msg']}" for e in error.errors()]
        known = ", ".join(PoolConfig.model_fields)
        raise UsageError(f"the configuration is wrong: {'; '.join(lines)}. Known fields: {known}") from None


def config_difference(running: PoolConfig, wanted: PoolConfig) -> list[str]:
    """One line per field in which two configurations differ."""
    return [
        f"{name}: the pool has {getattr(running, name)!r}, asked for {getattr(wanted, name)!r}"
        for name in PoolConfig.model_fields
        if getattr(running, name) != getattr(wanted, name)
    ]
