"""What queues are promised by their quotas, over time."""

from __future__ import annotations

from collections.abc import Iterable

from flexray.accounting.ledger import Ledger
from flexray.model.queue import Queue, QueueAmount


class Promises:
    """The quotas of now, and until when they are booked, in microseconds."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._quotas: dict[str, QueueAmount] = {}
        self._booked = 0

    def set(self, queues: Iterable[Queue], at: int) -> None:
        """Other quotas from then on."""
        self.until(at)
        self._quotas = {queue.name: queue.quota for queue in queues if queue.quota is not None}
        self._booked = at

    def until(self, at: int) -> None:
        """Book what was promised since the last time."""
        for name, quota in self._quotas.items():
            self._ledger.promise(name, self._booked, at, self._amounts(quota))
        self._booked = max(self._booked, at)

    def _amounts(self, quota: QueueAmount) -> tuple[int, int]:
        """Thousandths of devices, and of compute.

        A number of devices of any type is no amount of compute, nor the other way round; types that are named by a
        pattern, or that nobody has seen, are none either.
        """
        devices = quota.devices if quota.devices is not None else sum(number for _, number in quota.types)
        compute = sum(round(number * self._ledger.speeds.get(kind, 0.0)) for kind, number in quota.types)
        return devices, quota.compute if quota.compute is not None else compute
