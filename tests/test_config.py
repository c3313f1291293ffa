"""The configuration: read once, refused with the name of what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flexray.build import build_scheduler
from flexray.config import PoolConfig, config_difference, load_config
from flexray.errors import UnknownPolicy, UsageError
from flexray.policies import POLICIES


def test_what_can_be_given(tmp_path: Path) -> None:
    wanted = PoolConfig(policy="spread", warm_seconds=7)
    fields = {"policy": "spread", "warm_seconds": 7}
    file = tmp_path / "pool.json"
    file.write_text(json.dumps(fields))
    assert load_config(wanted) is wanted
    assert load_config(fields) == load_config(str(file)) == wanted
    assert load_config(None) == load_config({}) == PoolConfig()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"wram_seconds": 1}, ["wram_seconds: ", "Known fields: policy, ", "warm_seconds"]),
        ({"warm_seconds": -1}, ["warm_seconds: ", "greater than or equal to 0"]),
        ({"warm_seconds": "soon"}, ["warm_seconds: "]),
        ({"warm_seconds": float("nan")}, ["warm_seconds: "]),
        ({"lease_term_seconds": 0}, ["lease_term_seconds: ", "greater than 0"]),
        ({"batch_seconds": 2}, ["batch_seconds: ", "less than or equal to 1"]),
        ({"backlog_full": "drop"}, ["backlog_full: ", "'raise' or 'block'"]),
        ({"leave_to_ray": {"GPU": "many"}}, ["leave_to_ray.GPU: "]),
        ({"cpu_devices": 257, "max_backlog": 0}, ["cpu_devices: ", "max_backlog: "]),
    ],
)
def test_what_is_refused(fields: dict[str, object], words: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(fields)
    assert [word for word in words if word not in str(caught.value)] == []
    file = tmp_path / "pool.json"
    file.write_text(json.dumps(fields))
    with pytest.raises(UsageError):
        load_config(str(file))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the configuration: .*nowhere\.json"):
        load_config(str(tmp_path / "nowhere.json"))
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(UsageError, match=r"the configuration is wrong: config: Invalid JSON"):
        load_config(str(broken))


def test_difference_names_the_fields() -> None:
    running, wanted = PoolConfig(), PoolConfig(policy="spread", leave_to_ray={"GPU": 1})
    assert config_difference(running, running) == []
    assert config_difference(running, wanted) == [
        "policy: the pool has 'balanced', asked for 'spread'",
        "leave_to_ray: the pool has {}, asked for {'GPU': 1}",
    ]


def test_every_field_is_documented_and_there_are_few() -> None:
    source = Path(load_config.__code__.co_filename).read_text()
    fields = source.split("class PoolConfig")[1].split("model_config =")[1].split("\ndef ")[0]
    assert fields.count('"""') == 2 * len(PoolConfig.model_fields)
    assert len(PoolConfig.model_fields) <= 26


def test_policies_by_name() -> None:
    assert all(name == policy.name and set(policy.weights) for name, policy in POLICIES.items())
    assert build_scheduler(PoolConfig(policy="spread")).state.options.policy is POLICIES["spread"]
    with pytest.raises(
        UnknownPolicy, match=r"unknown policy 'pak'\. Did you mean 'pack'\? Known: balanced, fast, fgd, pack, spread"
    ):
        build_scheduler(PoolConfig(policy="pak"))
    with pytest.raises(UnknownPolicy, match=r"'zzz'\. Known"):
        build_scheduler(PoolConfig(policy="zzz"))
