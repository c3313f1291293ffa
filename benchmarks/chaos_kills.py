"""What ``chaos.py`` kills: slices, node agents, the scheduler, whole nodes; each by SIGKILL."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass
from typing import Any

import ray
from chaos_work import Line, Log
from ray.cluster_utils import Cluster

from flexray.runtime.protocol import NAMESPACE, SCHEDULER_NAME, agent_name

KINDS = {"slice": 0.6, "agent": 0.15, "scheduler": 0.15, "node": 0.1}
"""What is killed, with how often."""
_SECONDS = 30.0
DEVICES_OF_A_NODE = "2xA100-80GB"

HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 3,
}


@dataclass(frozen=True)
class Kill:
    """One kill: what, when, and the calls that ran there."""

    kind: str
    at: float
    interrupted: dict[str, Line]
    node: str = ""


class Killer:
    """Kills parts of a cluster of three nodes; a node that was killed is followed by a new one."""

    def __init__(self, log: Log, seed: int) -> None:
        self._log, self._draw = log, random.Random(seed)
        labels = {"flexray.fake": DEVICES_OF_A_NODE}
        head = {"num_cpus": 4, "include_dashboard": False, "labels": labels, "_system_config": HEALTH}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self._labels = labels
        self._nodes = [self._add(), self._add()]
        ray.init(address=self.cluster.address, log_to_driver=False, logging_level="error")

    def _add(self) -> Any:
        return self.cluster.add_node(num_cpus=4, labels=self._labels)

    def close(self) -> None:
        """End the cluster."""
        ray.shutdown()
        self.cluster.shutdown()

    def sequence(self, count: int) -> list[str]:
        """Kinds to kill, one after the other; each kind often enough."""
        kinds, weights = zip(*KINDS.items(), strict=True)
        chosen = list(kinds) + self._draw.choices(kinds, weights, k=max(0, count - len(kinds)))
        self._draw.shuffle(chosen)
        return chosen

    def pause(self, least: float, most: float) -> float:
        """Seconds to wait before the next kill."""
        return self._draw.uniform(least, most)

    def kill(self, kind: str) -> Kill:
        """Kill one of a kind, now."""
        return {"slice": self._slice, "agent": self._agent, "scheduler": self._scheduler, "node": self._node}[kind]()

    def _slice(self) -> Kill:
        running = self._wait_running(lambda line: True)
        victim = running[self._draw.choice(sorted(running))]
        there = {call: line for call, line in running.items() if line.pid == victim.pid}
        return _shoot("slice", [victim.pid], there)

    def _agent(self) -> Kill:
        running = self._wait_running(lambda line: True)
        node = running[self._draw.choice(sorted(running))].node
        pid = _pid_of(agent_name(node))
        there = {call: line for call, line in self._log.running().items() if line.node == node}
        return _shoot("agent", [pid], there, node)

    def _scheduler(self) -> Kill:
        return _shoot("scheduler", [_pid_of(SCHEDULER_NAME)], {})

    def _node(self) -> Kill:
        index = self._draw.randrange(len(self._nodes))
        node = self._nodes[index]
        there = {call: line for call, line in self._log.running().items() if line.node == node.node_id}
        kill = Kill("node", time.time(), there, node.node_id)
        self.cluster.remove_node(node, allow_graceful=False)
        self._nodes[index] = self._add()
        return kill

    def _wait_running(self, wanted: Any) -> dict[str, Line]:
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            running = {call: line for call, line in self._log.running().items() if wanted(line)}
            if running:
                return running
            time.sleep(0.02)
        raise TimeoutError(f"nothing has run for {_SECONDS:g} s")


def _pid_of(name: str) -> int:
    """The process of a named actor; waits for one that is being started again."""
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            actor = ray.get_actor(name, namespace=NAMESPACE)
            return int(ray.get(actor.__ray_call__.remote(lambda self: os.getpid()), timeout=5))
        except (ValueError, ray.exceptions.RayError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _shoot(kind: str, pids: list[int], interrupted: dict[str, Line], node: str = "") -> Kill:
    at = time.time()
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it died of something else in this instant
            pass
    return Kill(kind, at, interrupted, node)
