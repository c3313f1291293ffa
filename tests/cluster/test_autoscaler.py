"""Ray's autoscaler (v2) with its fake provider of nodes: up when a request waits for a device, down when it is idle."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flexray as flex
from cluster.conftest import until

HEAD = "f" * 51 + "00000"
"""What the fake provider takes the head's id for."""
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
ENVIRONMENT = {"RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
LISTS = ("setup_commands", "head_setup_commands", "worker_setup_commands", "initialization_commands")
LISTS += ("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude")
TYPE = "ray.io/accelerator-type"
SCALING = {
    "nodes": [
        {"type": "nvidia/A100-40GB", "labels": {TYPE: "A100"}},
        {"type": "nvidia/T4", "labels": {TYPE: "T4"}},
    ],
    "wait_seconds": 0.2,
    "idle_seconds": 1,
}


def write_settings(path: Path, gcs: str) -> None:
    """The autoscaler's own file. Ray's wheel lacks the defaults of its fake provider, so it is written in full."""
    gpu = {"resources": {"CPU": 2, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2}
    settings = {
        "cluster_name": "fake",
        "max_workers": 4,
        "idle_timeout_minutes": 0.03,
        "upscaling_speed": 10.0,
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "head_node_id": HEAD,
            "launch_multiple": True,
            "gcs_address": gcs,
        },
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in LISTS},
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 4}, "node_config": {}, "max_workers": 0},
            "a100": {**gpu, "labels": {TYPE: "A100"}},
            "t4": {**gpu, "labels": {TYPE: "T4"}},
        },
    }
    path.write_text(json.dumps(settings))


@pytest.fixture
def growing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A head without devices whose autoscaler can add nodes of two types."""
    import ray
    from ray._private.services import get_node_ip_address
    from ray.cluster_utils import Cluster

    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    write_settings(tmp_path / "autoscaler.json", f"{get_node_ip_address()}:{port}")
    head = {
        "num_cpus": 4,
        "include_dashboard": False,
        "gcs_server_port": port,
        "autoscaling_config": os.fspath(tmp_path / "autoscaler.json"),
        "env_vars": {"RAY_CLOUD_INSTANCE_ID": HEAD, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD},
    }
    made = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=made.address, log_to_driver=False, logging_level="error")
    yield
    flex.shutdown()
    ray.shutdown()
    made.shutdown()


def alive() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != HEAD]


def test_a_node_comes_for_a_request_and_goes_when_it_is_idle(growing: None) -> None:
    @flex.task(gpu=0.5, types="nvidia/T4")
    def kind() -> str:
        return flex.current().device.type.name

    flex.init(config={"poll_seconds": 0.5, "warm_seconds": 0.2, "linger_seconds": 0, "scaling": SCALING})
    future = kind.remote()
    until(lambda: [request.wait_reason for request in flex.pool().waiting] == ["scaling"])
    assert future.result(120) == "nvidia/T4"
    assert [node["Labels"][TYPE] for node in alive()] == ["T4"]  # one of the kind that was asked for, and no other
    until(lambda: not alive(), 120)
    until(lambda: not flex.pool().devices)
