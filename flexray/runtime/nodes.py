"""The scheduler's view of nodes: one agent each, made when a node joins, forgotten when it leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flexray.config import PoolConfig
from flexray.model.commands import ResizeSlice, StopSlice
from flexray.model.events import Event, NodeReported, ResizeRefused, SliceEnded, SliceFailed
from flexray.runtime.agent_link import AgentLink, Outdated
from flexray.runtime.claims import claims_of_cluster, remove_claim
from flexray.runtime.node_agent import AgentOptions, NodeAgent
from flexray.runtime.protocol import NAMESPACE, SliceSpec, agent_name
from flexray.runtime.usage import UsageReport

_ACCELERATORS = ("GPU", "NPU", "TPU", "HPU", "neuron_cores", "RBLN")
_FAKE_LABEL = "flexray.fake"
_HEAD = "node:__internal_head__"
"""Ray's resource of the head's node alone."""


class Nodes:
    """Agents by node id.

    Args:
        epoch: of this scheduler; agents refuse those before the one they listen to.
        on_event: gets what agents report; ``on_gone`` the nodes that died or lost their agent.
        on_outdated: called when an agent listens to a later scheduler.
        on_usage: told what the slices of a node use, whenever it has looked.
    """

    def __init__(
        self,
        config: PoolConfig,
        epoch: int,
        on_event: Callable[[Event], None],
        on_gone: Callable[[str], None],
        on_outdated: Callable[[Outdated], None],
        on_usage: Callable[[str, UsageReport], None],
    ) -> None:
        self._config, self._epoch, self._on_outdated = config, epoch, on_outdated
        self._on_event, self._on_usage = on_event, on_usage
        self._on_gone = on_gone
        #: what the slices of each node use, as of its latest report.
        self.usage: dict[str, UsageReport] = {}
        self._agents: dict[str, AgentLink] = {}
        #: nodes that were given back to Ray: they have no agent, since one would keep its node from being removed.
        self._released: set[str] = set()
        #: nodes whose agent is being closed.
        self._leaving: set[str] = set()
        #: what the last agent of a node failed of.
        self._troubles: dict[str, str] = {}
        self._alive: set[str] = set()
        self._reported: set[str] = set()
        self._head = ""
        #: what is to be started on nodes whose agent is being made again.
        self._later: dict[str, list[SliceSpec]] = {}
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    async def watch(self) -> None:
        """Look for nodes that came or went, until closed."""
        while not self._closing:
            try:
                self._take_in(await asyncio.get_running_loop().run_in_executor(None, ray.nodes))
            except ray.exceptions.RayError:  # the GCS is away; Ray reconnects
                pass
            await asyncio.sleep(min(1.0, self._config.poll_seconds))

    @property
    def all_reported(self) -> bool:
        """Whether every node that is alive, as far as is known, has said what it has."""
        return bool(self._alive) and self._alive <= self._reported

    async def wait_reported(self, timeout: float) -> str:
        """Wait until every node alive now has reported: "", or after ``timeout`` seconds which have not, and why."""
        deadline = asyncio.get_running_loop().time() + timeout
        while not self.all_reported:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return self._unreported()
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except asyncio.TimeoutError:
                return self._unreported()
        return ""

    def _unreported(self) -> str:
        silent = [f"node {n}: {self._troubles.get(n, 'no answer')}" for n in sorted(self._alive - self._reported)]
        return "; ".join(silent) or "no node is alive"

    @property
    def head(self) -> str:
        """The node that Ray's head is on; "" before any was seen."""
        return self._head

    @property
    def reported(self) -> frozenset[str]:
        """Nodes that have said what they have, those that were given back since included."""
        return frozenset(self._reported)

    @property
    def given_back(self) -> frozenset[str]:
        """Nodes that Ray has again."""
        return frozenset(self._released | self._leaving)

    def release(self, node: str) -> None:
        """Give a node on which nothing is back to Ray: its agent ends, with its claims."""
        agent = self._agents.pop(node, None)
        if agent is not None:
            self._released.add(node)
            self._leaving.add(node)
            self.usage.pop(node, None)
            self._spawn(self._close_agent(node, agent))

    def claim(self, node: str) -> None:
        """Have a node that was given back again: an agent is made there, which reports what it has."""
        self._released.discard(node)

    async def _close_agent(self, node: str, agent: AgentLink) -> None:
        await agent.close()
        self._leaving.discard(node)

    def start_slice(self, node: str, spec: SliceSpec) -> None:
        """Have a node's agent start a slice. Without an agent the slice has failed to start."""
        agent = self._agents.get(node)
        if agent is not None:
            agent.send(spec)
        elif node in self._reported:  # it was given back; what needs no device may be placed there all the same
            self._later.setdefault(node, []).append(spec)
            self.claim(node)
        else:
            self._on_event(SliceFailed(spec.slice, f"node {node} has no agent"))

    def stop_slice(self, command: StopSlice) -> None:
        """Have a node's agent stop a slice. Without an agent the slice is gone: agents own slices."""
        agent = self._agents.get(command.node)
        if agent is None:
            self._later[command.node] = [one for one in self._later.get(command.node, ()) if one.slice != command.slice]
            self._on_event(SliceEnded(command.slice, "its agent is gone"))
        else:
            agent.send(command)

    def resize_slice(self, command: ResizeSlice) -> None:
        """Have a node's agent give a running slice another size."""
        agent = self._agents.get(command.placement.node)
        if agent is None:
            self._on_event(ResizeRefused(command.slice, "its agent is gone"))
        else:
            agent.send(command)

    async def close(self) -> None:
        """Close every agent, then remove what claims are left."""
        self._closing = True
        agents, self._agents = self._agents, {}
        for agent in agents.values():
            await agent.close()
        for name, _ in claims_of_cluster():
            remove_claim(name)

    def _take_in(self, nodes: list[dict[str, Any]]) -> None:
        alive = {node["NodeID"]: node for node in nodes if node["Alive"]}
        self._head = next((name for name, node in alive.items() if _HEAD in node["Resources"]), "")
        for node in sorted(self._alive - set(alive)):
            self._drop(node)
            self._forget_claims(node)
        self._alive = set(alive)
        cpu = self._cpu_devices(list(alive.values()))
        for node, facts in sorted(alive.items()):
            if node not in (self._agents.keys() | self._released | self._leaving) and not self._closing:
                self._agents[node] = AgentLink(self._make_agent(facts), self._epoch)
                for spec in self._later.pop(node, ()):
                    self._agents[node].send(spec)
                self._spawn(self._listen(node, self._agents[node], cpu))
        self._changed.set()

    def _cpu_devices(self, nodes: list[dict[str, Any]]) -> int:
        """CPU stand-ins per node: as configured, else one where the whole cluster has no accelerator."""
        if self._config.cpu_devices is not None:
            return self._config.cpu_devices
        accelerators = (
            self._config.fake_devices
            or self._config.scaling
            or any(node["Resources"].get(name, 0) > 0 for node in nodes for name in _ACCELERATORS)
        )
        return 0 if accelerators or any(_FAKE_LABEL in node.get("Labels", {}) for node in nodes) else 1

    def _make_agent(self, node: dict[str, Any]) -> Any:
        actor = ray.remote(num_cpus=0, max_restarts=0, max_concurrency=1000)(NodeAgent)
        name = node["NodeID"]
        options = AgentOptions(**{field.name: getattr(self._config, field.name) for field in fields(AgentOptions)})
        return actor.options(
            name=agent_name(name),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False),
        ).remote(name, node["NodeName"], dict(node["Resources"]), dict(node.get("Labels", {})), options)

    async def _listen(self, node: str, agent: AgentLink, cpu: int) -> None:
        """Take reports of an agent until it dies; then its slices are gone too, and a new agent is made."""
        try:
            async for news in agent.listen(cpu):
                if self._agents.get(node) is not agent:
                    return  # its node was given back
                if isinstance(news, UsageReport):
                    self.usage[node] = news
                    self._on_usage(node, news)
                    continue
                for event in news:
                    self._on_event(event)
                if any(isinstance(event, NodeReported) for event in news):
                    self._troubles.pop(node, None)
                    self._reported.add(node)
                    self._changed.set()
        except Outdated as reason:
            self._on_outdated(reason)
        except Exception as error:  # ActorDied and its kin: whatever it is, this agent can no longer be trusted
            self._troubles[node] = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
            if not self._closing and self._agents.get(node) is agent:
                agent.kill()
                self._drop(node)

    def _drop(self, node: str) -> None:
        self._agents.pop(node, None)
        self._released.discard(node)
        self._later.pop(node, None)
        self._reported.discard(node)
        self.usage.pop(node, None)
        self._on_gone(node)

    def _forget_claims(self, node: str) -> None:
        for name, owner in claims_of_cluster():
            if owner == node:
                remove_claim(name)

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
