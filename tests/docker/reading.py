"""Reading what is in ``docker/``, and what the commands there say to Ray."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"


def schema(name: str) -> Any:
    return yaml.safe_load(Path(__file__).with_name(f"{name}.schema.yaml").read_text())


def ray_start(words: list[str]) -> dict[str, Any]:
    """The options of a ``ray start`` as Ray's command line reads them; an unknown one fails."""
    from ray.scripts.scripts import start

    return dict(start.make_context("ray start", words).params)


def ray_start_in(line: str) -> dict[str, Any]:
    """The same for the last command of a line for the shell."""
    words = shlex.split(line)
    begin = next(i for i in range(len(words)) if words[i : i + 2] == ["ray", "start"])
    return ray_start(words[begin + 2 :])
