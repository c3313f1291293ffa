"""A random walk through the core that meets every kind of event; the same seed gives the same journal.

python tests/core/walk.py SEED STEPS          prints the journal, one JSON object per line
python tests/core/walk.py SEED STEPS cut      the same with devices that are cut into fixed parts
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable

from harness import World, node

from flexray.model import events
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.devices import Cordon, Inventory
from flexray.model.gang import Gang
from flexray.model.isolation import Isolation
from flexray.model.lease import Lease, LeaseId, Placement, SliceId
from flexray.model.lifecycle import SliceState
from flexray.model.queue import Queue, QueueAmount
from flexray.model.request import Request

CONFIG = {
    "policy": "balanced",
    "warm_seconds": 20,
    "lease_term_seconds": 5,
    "rematch_seconds": 2,
    "patience_seconds": 8,
    "drain_seconds": 4,
}
_SHARES = (0.1, 0.18, 0.25, 0.333, 0.5, 0.6, 1, 1, 2, 3)


def walk(seed: int, steps: int, *, cut: bool = False) -> World:
    """A world after so many steps; its ``journal`` has every event and cycle. ``cut``: with MIG devices and vNPUs."""
    walker = _Walker(random.Random(seed), cut=cut)
    for _ in range(steps):
        walker.step()
    return walker.world


class _Walker:
    def __init__(self, rng: random.Random, *, cut: bool = False) -> None:
        self.rng, self.requests, self.queues, self.cut = rng, 0, list[str](), cut
        self.world = World(starts=False, stops=False, **CONFIG)
        for number in range(3):
            self.world.apply(events.NodeReported(self.inventory(number)))
        self.world.apply(events.SpeedsRestored((("task", "nvidia/T4", 3.0, 0.5),)))
        for number in range(4):
            self.world.open(f"S{number}", f"E{number % 3}")
        self.steps: list[tuple[int, Callable[[], None]]] = [
            (40, self.submit), (20, self.start), (15, self.end_stopped), (18, self.release), (2, self.lose_slice),
            (2, self.cancel), (8, self.block), (8, self.unblock), (1, self.report_node), (1, self.lose_node),
            (1, self.close_session), (5, self.run), (25, self.give_way),
            (2, self.configure), (15, self.ask_resize), (15, self.resize), (3, self.cordon), (3, self.uncordon),
            (2, self.recover),
        ]  # fmt: skip

    def step(self) -> None:
        self.world.now = round(self.world.now + self.rng.random(), 3)
        weights, acts = zip(*self.steps, strict=True)
        self.rng.choices(acts, weights)[0]()
        if self.rng.random() < 0.7:  # several events may come before a cycle
            self.world.decide()

    def inventory(self, number: int) -> Inventory:
        kind = ("A100", "T4", "A10")[number]
        state = self.rng.choice(["", "", "", " sick", " unclaimed", " suspect", " lost"])
        if not self.cut:
            return node(f"n{number}", f"{self.rng.randrange(1, 5)}x{kind}{state} {number}x910B", cpus=16)
        kind = ("MIG", "T4", "MIG")[number]
        whole = {"profiles": ()} if self.rng.random() < 0.2 else {}  # somebody has switched it off
        return node(f"n{number}", f"{self.rng.randrange(1, 5)}x{kind}{state} {number}xvNPU", cpus=16, **whole)

    def submit(self) -> None:
        options: dict[str, object] = {self.rng.choice(["gpu"] * 9 + ["npu", "accelerator"]): self.rng.choice(_SHARES)}
        if self.rng.random() < 0.3:
            options["memory"] = f"{self.rng.choice([1, 8, 17])}GiB"
        if self.rng.random() < 0.2:
            options["types"] = "nvidia/A*"
        if self.rng.random() < 0.2:
            options["cpus"] = 2
        if self.rng.random() < 0.1:
            options["priority"] = 1
        if self.rng.random() < 0.6:
            options["request"] = Request(preemptible=True, checkpoint_every=self.rng.choice([None, 1.0]))
        if self.rng.random() < 0.15:
            options["gang"] = self.rng.choice([1, 2, 3, (1, 3), (2, 4), Gang(3, layout="spread")])
        self.requests += 1
        options["queue"] = self.rng.choice(["default", *self.queues])
        session = self.rng.choice(sorted(self.world.scheduler.state.sessions))
        flags = {"reusable": self.rng.random() < 0.8, "restartable": self.rng.random() < 0.9}
        self.world.submit(f"r{self.requests}", session=session, **flags, **options)

    def start(self) -> None:
        if self.world.starting:
            slice_id = self.rng.choice(self.world.starting)
            (self.world.started if self.rng.random() < 0.9 else self.world.failed_to_start)(slice_id)

    def end_stopped(self) -> None:
        if self.world.stopping:
            self.world.ended(self.rng.choice(self.world.stopping))

    def release(self) -> None:
        if self.world.leases:
            self.world.release(self.rng.choice(list(self.world.leases)))

    def configure(self) -> None:
        """Other queues; requests of one that is gone fail."""
        a = Queue("a", quota=QueueAmount(self.rng.choice([1000, 2000])), weight=3000)
        b = Queue("b", limit=QueueAmount(self.rng.choice([1500, 3000])), half_life=self.rng.choice([None, 30.0]))
        group = Queue("g", quota=QueueAmount(compute=2000))
        c = Queue("c", parent="g", types=("nvidia/*",))
        chosen = self.rng.choice([(), (a, b), (a, b, group, c)])
        self.queues = [queue.name for queue in chosen if queue.name != "g"]
        self.world.apply(events.QueuesConfigured(chosen))

    def give_way(self) -> None:
        """Work that was asked to stop does so, and wants to go on."""
        for slice_id in list(self.world.scheduler.state.evictions):
            lease = next((lease for lease in self.world.leases.values() if lease.slice == slice_id), None)
            if lease is not None:
                self.world.apply(events.LeaseYielded(lease.lease))

    def run(self) -> None:
        if self.world.leases:
            lease = self.world.leases[self.rng.choice(list(self.world.leases))].lease
            self.world.apply(events.TasksRan(lease, self.rng.randrange(1, 9), self.rng.random() + 0.1))
            self.world.apply(events.StepsRan(lease, 8.0, 0.5))
            self.world.apply(events.LeaseCheckpointed(lease))

    def ask_resize(self) -> None:
        """Also of several whole devices, and into room that may not be free."""
        if self.world.leases:
            lease = self.world.leases[self.rng.choice(list(self.world.leases))].lease
            share, memory = self.rng.choice([None, 50, 100, 300]), self.rng.choice([None, None, 512, 20480])
            self.world.apply(events.ResizeAsked(lease, share, memory, self.requests))

    def resize(self) -> None:
        if self.world.resizing:
            slice_id = self.rng.choice(self.world.resizing)
            done = events.SliceResized(slice_id)
            self.world.apply(done if self.rng.random() < 0.5 else events.ResizeRefused(slice_id, "it is stuck"))

    def lose_slice(self) -> None:
        if self.world.leases:
            self.world.ended(self.world.leases[self.rng.choice(list(self.world.leases))].slice)

    def cancel(self) -> None:
        self.world.apply(events.RequestCancelled(f"r{self.rng.randrange(self.requests + 1)}"))

    def block(self) -> None:
        waiting = self.world.snapshot().waiting
        if self.world.leases and waiting:
            child = self.rng.choice(waiting)
            self.world.block(self.rng.choice(list(self.world.leases)), child.task_class, session=child.session)

    def unblock(self) -> None:
        for lease in list(self.world.scheduler.state.blocked)[:1]:
            self.world.apply(events.LeaseUnblocked(lease))

    def report_node(self) -> None:
        self.world.apply(events.NodeReported(self.inventory(self.rng.randrange(3))))

    def cordon(self) -> None:
        device = f"n{self.rng.randrange(3)}/gpu{self.rng.randrange(4)}"
        self.world.apply(events.DeviceCordoned(Cordon(device, drain=self.rng.random() < 0.5)))

    def uncordon(self) -> None:
        for device in list(self.world.scheduler.state.cordons.by_device)[:2]:
            self.world.apply(events.DeviceUncordoned(device))

    def recover(self) -> None:
        """What an earlier incarnation has left: a slice for which there may be no room, and perhaps a lease on it."""
        self.requests += 1
        name, session = f"r{self.requests}", self.rng.choice(sorted(self.world.scheduler.state.sessions))
        environment, slice_id = self.world.scheduler.state.sessions[session], SliceId(f"s0.{self.requests}")
        number = self.rng.randrange(3)
        place = Placement(f"n{number}", (f"n{number}/gpu{self.rng.randrange(4)}",), Share(200), MemoryMiB(1000))
        request = Request(share=Share(200), memory=MemoryMiB(1000), preemptible=True)
        submitted = events.RequestSubmitted(name, session, environment, "old", request, waited=9.0)
        lease = Lease(LeaseId(name, 1), slice_id, place, "nvidia/T4", Isolation.NONE, 3)
        state = self.rng.choice([SliceState.STARTING, SliceState.IDLE, SliceState.IDLE, SliceState.STOPPING])
        found = events.SliceFound(slice_id, place, environment, "old", True, (0, 0), state)
        held = events.LeaseFound(submitted, lease, 2.0, recalled=self.rng.random() < 0.3, stop=self.rng.random() < 0.3)
        self.world.apply(events.RecoveryBegan())
        self.world.apply(events.HistoryRestored((("b", 0.5, self.world.now - 1),)))
        self.world.leases[name] = lease
        for event in self.rng.sample([found, held], 2 if self.rng.random() < 0.8 else 1):
            self.world.apply(event)
        if state is SliceState.STOPPING:
            self.world.stopping.append(slice_id)
        self.world.decide()
        self.world.apply(events.RecoveryEnded())
        self.world.decide()
        if self.world.scheduler.state.holder(lease.lease) is None and self.world.leases.get(name) is lease:
            del self.world.leases[name]  # nobody has said that it is held

    def lose_node(self) -> None:
        number = self.rng.randrange(3)
        self.world.apply(events.NodeLost(f"n{number}"))
        self.world.node_is_gone(f"n{number}")
        self.world.apply(events.NodeReported(self.inventory(number)))

    def close_session(self) -> None:
        session = f"S{self.rng.randrange(4)}"
        self.world.apply(events.SessionClosed(session))
        self.world.session_is_gone(session)
        self.world.open(session, f"E{int(session[1:]) % 3}")


if __name__ == "__main__":
    for entry in walk(int(sys.argv[1]), int(sys.argv[2]), cut=sys.argv[3:] == ["cut"]).journal:
        print(json.dumps(entry))
