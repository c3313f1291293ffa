"""Fixtures of the device tests: node facts, and a libnvidia-ml.so.1 made for the session."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flexray.devices.backend import NodeFacts
from flexray.devices.child import ProbeChild

DOUBLES = Path(__file__).parents[1] / "doubles"

Configure = Callable[[str], None]
"""Replaces what the NVML double reports."""


@pytest.fixture
def facts() -> NodeFacts:
    """A node with something for every backend that needs no hardware."""
    return NodeFacts(
        node="ab12",
        resources={"GPU": 2.0, "NPU": 1.0, "CPU": 4.0},
        cores=(0, 1, 2, 3),
        host_memory=8192,
        cpu_devices=2,
        fake="2xA100-80GB.2xT4",
    )


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the NVML double, compiled."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    directory = tmp_path_factory.mktemp("nvml")
    library = directory / "libnvidia-ml.so.1"
    flags = ["-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-Wl,-soname,libnvidia-ml.so.1", "-lpthread"]
    subprocess.run([compiler, *flags, "-o", str(library), str(DOUBLES / "fake_nvml.c")], check=True)
    return directory


@pytest.fixture
def nvml(nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Children started from now on load the NVML double; call the fixture to replace its configuration."""
    config = tmp_path / "gpus.conf"
    monkeypatch.setenv("LD_LIBRARY_PATH", str(nvml_library))
    monkeypatch.setenv("FAKE_NVML_CONFIG", str(config))

    def configure(text: str) -> None:
        fresh = tmp_path / "gpus.conf.new"
        fresh.write_text(text)
        os.replace(fresh, config)

    configure((DOUBLES / "gpus.conf").read_text())
    return configure


@pytest.fixture
def gpus_conf() -> str:
    """Three GPUs: an A100 in use, an A100 in MIG mode, an H100."""
    return (DOUBLES / "gpus.conf").read_text()


@pytest.fixture
def child() -> Iterator[ProbeChild]:
    """A real probe process, ended after the test."""
    probe = ProbeChild()
    yield probe
    probe.close()
