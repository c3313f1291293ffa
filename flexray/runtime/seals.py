"""Proof that a lease is held, for slices and the scheduler: ids and grants are everybody's to see, and to guess.

Each slice has a key, which the scheduler and the slice's own process know. The holder of a lease is told its seal,
which only that key makes of the lease and its grant; whoever gets an actor's handle gets the seal with it. A session
inside a slice proves in the same way that it is there.

This keeps sessions from each other's leases by mistake, and through flexray's messages. It is no wall against code that
means harm: whoever may use the Ray cluster may run anything in any of its processes (docs/operations.md).
"""

from __future__ import annotations

import hashlib
import hmac

from flexray.model.lease import LeaseId, SessionId, SliceId
from flexray.runtime.protocol import Inside, Token

_BYTES = 16


class Seals:
    """Those of a pool. ``secret``: as long as its slices live, the same for each incarnation of the scheduler."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def key_of(self, slice_id: SliceId) -> bytes:
        """What a slice is told when it starts."""
        return _digest(self._secret, slice_id)

    def of(self, slice_id: SliceId, epoch: int, grant: int, lease: LeaseId) -> bytes:
        """What the holder of a lease is told."""
        return _seal(self.key_of(slice_id), epoch, grant, lease)

    def fits(self, slice_id: SliceId, token: Token) -> bool:
        """Whether a token is that of a lease of this slice."""
        return is_sealed(self.key_of(slice_id), token)

    def is_inside(self, session: SessionId, inside: Inside) -> bool:
        """Whether a session runs in the slice that it says."""
        return hmac.compare_digest(_digest(self.key_of(inside.slice), session), inside.proof)


def is_sealed(key: bytes, token: Token) -> bool:
    """Whether a token is that of a lease of the slice with this key."""
    return hmac.compare_digest(_seal(key, token.epoch, token.grant, token.lease), token.seal)


def prove_inside(slice_id: SliceId, key: bytes, session: SessionId) -> Inside:
    """What a session in the process of a slice tells the scheduler when it joins."""
    return Inside(slice_id, _digest(key, session))


def _seal(key: bytes, epoch: int, grant: int, lease: LeaseId) -> bytes:
    return _digest(key, f"{epoch}/{grant}/{lease.attempt}/{lease.request}")


def _digest(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), hashlib.sha256)[:_BYTES]
