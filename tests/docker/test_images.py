"""The Dockerfile by a linter and by what it promises, the compose file by its schema; nothing is built here."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import yaml

from flexray.devices.fake import parse_fake

from .reading import DOCKER, ROOT, ray_start, ray_start_in, schema

DOCKERFILE = DOCKER / "Dockerfile"
TARGETS = ("cpu", "cuda", "ascend")


def stages() -> dict[str, list[tuple[str, str]]]:
    """Instructions by stage; a stage that is built on another has those of that one first."""
    text = re.sub(r"\\\n", " ", "\n".join(line for line in DOCKERFILE.read_text().splitlines() if line[:1] != "#"))
    result: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for line in filter(None, text.splitlines()):
        word, rest = line.split(None, 1)
        if word == "FROM":
            base, _, name = rest.split()
            result[name] = list(result.get(base, []))
        elif name:
            result[name].append((word, " ".join(rest.split())))
    return result


def hadolint(file: Path) -> subprocess.CompletedProcess[str]:
    command = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if command is None:
        pytest.skip("hadolint is not here: it is one of the packages for development on x86-64")
    return subprocess.run([command, "--no-color", str(file)], capture_output=True, text=True, timeout=60, check=False)


def test_the_linter_finds_nothing() -> None:
    done = hadolint(DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_linter_finds_something(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN cd /tmp && pip install ray\n")
    assert "DL3006" in hadolint(tmp_path / "Dockerfile").stdout


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_is_not_root_s_and_says_whether_it_is_healthy(target: str) -> None:
    instructions = stages()[target]
    last = dict(instructions)  # of each kind the last one counts
    assert last["USER"] == "1000:1000"
    assert "api/healthz" in last["HEALTHCHECK"]
    assert last["CMD"].startswith('["ray", "start"')


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_installed_is_pinned(target: str) -> None:
    installs = [rest for word, rest in stages()[target] if word == "RUN" and "pip install" in rest]
    assert installs
    assert all("--constraint /constraints.txt" in rest and "source=constraints.txt" in rest for rest in installs)


def test_what_the_images_take_from_here_is_here_and_not_ignored() -> None:
    ignored = [line for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] != "#"]
    kept = [line[1:] for line in ignored if line.startswith("!")]
    assert ignored[0] == "*" and all((ROOT / name).exists() for name in kept)
    taken: set[str] = set()
    for instructions in stages().values():
        for word, rest in instructions:
            if word == "COPY" and "--from" not in rest:
                taken.update(name for name in rest.split()[:-1] if not name.startswith("--"))
            elif word == "RUN":
                taken.update(match[1] for match in re.finditer(r"--mount=type=bind,source=([^,]+),target", rest))
    assert sorted(taken) == sorted(kept)
    assert not any(fnmatch.fnmatch(name, "**/__pycache__") for name in taken)


def test_all_images_have_the_same_python() -> None:
    bases = dict(re.findall(r"^ARG (PYTHON|CANN)=(\S+)", DOCKERFILE.read_text(), re.MULTILINE))
    assert re.search(r":([\d.]+)-", bases["PYTHON"])[1] == re.search(r"py([\d.]+)$", bases["CANN"])[1]


def test_the_pool_starts_beside_what_comes_next(tmp_path: Path) -> None:
    """The command returns at once, and tries until Ray is there."""
    fake = tmp_path / "flexray"
    fake.write_text('#!/bin/sh\necho "$@" >> said\nif [ -f ray ]; then touch started; else exit 1; fi\n')
    fake.chmod(0o755)
    env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    begin = subprocess.Popen([DOCKER / "start-pool", "--config", "a b"], cwd=tmp_path, env=env, start_new_session=True)
    assert begin.wait(timeout=30) == 0
    assert not (tmp_path / "started").exists()
    (tmp_path / "ray").touch()
    deadline = time.monotonic() + 30
    while not (tmp_path / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert set((tmp_path / "said").read_text().splitlines()) == {"start --config a b"}


def test_the_compose_file() -> None:
    config = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    jsonschema.Draft202012Validator(schema("compose")).validate(config)
    services = config["services"]
    head = ray_start_in(services.pop("head")["command"][-1])
    assert head["head"] and head["block"] and head["port"] == 6379
    assert len(services) == 2
    for service in services.values():
        assert service["command"][:2] == ["ray", "start"]
        worker = ray_start(service["command"][2:])
        assert worker["address"] == f"head:{head['port']}" and worker["block"]
        name, devices = worker["labels"].split("=")
        assert name == "flexray.fake" and sum(part.count for part in parse_fake(devices)) >= 2
        assert service["depends_on"] == {"head": {"condition": "service_healthy"}}
        assert service["environment"]["RAY_AUTH_MODE"] == "token"


def test_the_schema_of_the_compose_file_refuses_a_slip() -> None:
    config = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    config["services"]["head"]["comand"] = ["true"]
    with pytest.raises(jsonschema.ValidationError, match="comand"):
        jsonschema.Draft202012Validator(schema("compose")).validate(config)


def test_what_compose_says_by_docker_itself() -> None:
    """Where docker has its compose plugin."""
    docker = shutil.which("docker")
    known = docker and subprocess.run([docker, "compose", "version"], capture_output=True, timeout=30, check=False)
    if not known or known.returncode:
        pytest.skip("docker compose is not here")
    line = shlex.split(f"{docker} compose -f {DOCKER / 'compose.yaml'} config --quiet")
    env = {**os.environ, "RAY_AUTH_TOKEN": "a"}
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
