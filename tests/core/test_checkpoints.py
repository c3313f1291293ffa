"""What the core remembers of checkpoints: since when the work on a lease would be lost."""

from __future__ import annotations

from harness import World, node

from flexray.model import events


def test_work_is_lost_since_the_grant_or_the_last_checkpoint() -> None:
    there = World(node("a", "1xA100"))
    there.submit("r", gpu=1)
    there.settle()
    lease = there.leases["r"]
    record = there.scheduler.state.slices.by_id[lease.slice]
    granted = there.now
    assert record.safe_at == granted
    there.now += 40
    there.apply(events.LeaseCheckpointed(lease.lease))
    assert record.safe_at == granted + 40
    there.release("r")
    there.settle()
    there.now += 5
    there.apply(events.LeaseCheckpointed(lease.lease))  # late: the lease is over
    assert record.safe_at == granted + 40
    there.submit("again", gpu=1)
    there.settle()
    assert there.leases["again"].slice == lease.slice and record.safe_at == there.now
