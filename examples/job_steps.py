"""The steps of ``job_batch.py``: a module beside the script, which the slices import like the script does."""

from __future__ import annotations

import hashlib
import time


def digest(number: int, rounds: int) -> str:
    """Some honest work: a hash of a hash, ``rounds`` times."""
    value = str(number).encode()
    for _ in range(rounds):
        value = hashlib.sha256(value).digest()
    return value.hex()


def timed_digest(number: int, rounds: int) -> tuple[str, float]:
    """The digest, and the seconds it took."""
    began = time.perf_counter()
    return digest(number, rounds), time.perf_counter() - began
