"""The world of the core tests."""

from __future__ import annotations

import pytest
from harness import World, node


@pytest.fixture
def core() -> World:
    """One node, two A100, a session ``S`` of environment ``E``; slices start and stop at once."""
    return World(node("n1", "2xA100", cpus=8), warm_seconds=60, lease_term_seconds=5)
