"""The manifests: KubeRay's resources by a schema, pods and the rest by Kubernetes' own, and what they say to Ray."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from flexray.config import PoolConfig
from flexray.devices.fake import FAKE_LABEL, parse_fake

from .reading import DOCKER, ROOT, ray_start, schema

kubernetes_validate = pytest.importorskip("kubernetes_validate")
KUBERNETES = "1.33"
FILES = sorted((DOCKER / "kubernetes").glob("*.yaml"))
Manifest = dict[str, Any]


def manifests(file: Path) -> list[Manifest]:
    return [one for one in yaml.safe_load_all(file.read_text()) if one is not None]


def everything() -> list[Manifest]:
    return [one for file in FILES for one in manifests(file)]


def check(manifest: Manifest) -> None:
    if manifest["apiVersion"] != "ray.io/v1":
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        return
    jsonschema.Draft202012Validator(schema("kuberay")).validate(manifest)
    for group in groups(manifest):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "a"}, "template": group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def cluster_of(manifest: Manifest) -> Manifest:
    spec = manifest["spec"]
    return {"RayCluster": spec, "RayJob": spec.get("rayClusterSpec"), "RayService": spec.get("rayClusterConfig")}[
        manifest["kind"]
    ]


def groups(manifest: Manifest) -> list[Manifest]:
    cluster = cluster_of(manifest)
    return [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]


def of_kuberay() -> list[Manifest]:
    return [one for one in everything() if one["apiVersion"] == "ray.io/v1"]


def test_there_is_one_of_each() -> None:
    assert sorted(one["kind"] for one in of_kuberay()) == ["RayCluster", "RayJob", "RayService"]


@pytest.mark.parametrize("manifest", everything(), ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_a_manifest_is_valid(manifest: Manifest) -> None:
    check(manifest)


def slips() -> Iterator[tuple[str, Any]]:
    """One change each to the RayCluster, none of which may pass."""
    yield "a word misspelt", lambda spec: spec.update(authOption={})
    yield "a group without a name", lambda spec: spec["workerGroupSpecs"][0].pop("groupName")
    yield "a number for a string", lambda spec: spec["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0})
    yield "a field of pods misspelt", lambda spec: spec["headGroupSpec"]["template"]["spec"].update(container=[])
    yield "redis and rocksdb", lambda spec: spec["gcsFaultToleranceOptions"].update(backend="rocksdb")
    yield "a label that is none", lambda spec: spec["workerGroupSpecs"][0]["labels"].update({FAKE_LABEL: "2xA100,T4"})


@pytest.mark.parametrize(("what", "change"), list(slips()), ids=lambda value: value if isinstance(value, str) else "")
def test_a_slip_is_found(what: str, change: Any) -> None:
    manifest = copy.deepcopy(next(one for one in of_kuberay() if one["kind"] == "RayCluster"))
    change(manifest["spec"])
    with pytest.raises(jsonschema.ValidationError):
        check(manifest)


@pytest.mark.parametrize("manifest", of_kuberay(), ids=lambda one: one["kind"])
def test_what_a_cluster_says_to_ray(manifest: Manifest) -> None:
    cluster = cluster_of(manifest)
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().split()
    assert cluster["authOptions"] == {"mode": "token"}
    head, *workers = groups(manifest)
    for group in (head, *workers):
        parameters = dict(group["rayStartParams"])
        assert not (group.get("resources") and {"num-cpus", "num-gpus", "resources", "memory"} & set(parameters))
        ray_start([f"--{name}={value}" for name, value in parameters.items()])
        devices = group.get("labels", {}).get(FAKE_LABEL)
        assert devices is None or parse_fake(devices)
    container = head["template"]["spec"]["containers"][0]
    assert container["args"][0] == "start-pool"
    # KubeRay takes a command with these words in it for the whole one, and starts no Ray.
    assert "ray start" not in " ".join([*container.get("command", []), *container["args"]])


@pytest.mark.parametrize("manifest", of_kuberay(), ids=lambda one: one["kind"])
def test_pods_have_no_rights_that_they_do_not_need(manifest: Manifest) -> None:
    targets = re.findall(r"^FROM \S+ AS (\S+)", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    for group in groups(manifest):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 1000
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["image"].removeprefix("flexray:") in targets
            limits, requests = container["resources"]["limits"], container["resources"]["requests"]
            assert limits["memory"] == requests["memory"]
            devices = {name: amount for name, amount in limits.items() if "/" in name}
            assert devices == {name: amount for name, amount in requests.items() if "/" in name}


def test_what_the_page_says_to_put_in_their_place_is_valid() -> None:
    page = (ROOT / "docs/kubernetes.md").read_text()
    found = re.findall(r"^  ```yaml\n(.*?)^  ```", page, re.DOTALL | re.MULTILINE)
    state, selector, scaling = map(yaml.safe_load, found)
    by_kind = {one["kind"]: copy.deepcopy(one) for one in of_kuberay()}
    by_kind["RayCluster"]["spec"].update({**state, **scaling})
    job = by_kind["RayJob"]["spec"]
    for name in ("rayClusterSpec", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit"):
        assert f"`{name}`" in page
        job.pop(name)
    job.update(selector)
    assert selector["clusterSelector"]["ray.io/cluster"] == by_kind["RayCluster"]["metadata"]["name"]
    check(by_kind["RayCluster"])
    jsonschema.Draft202012Validator(schema("kuberay")).validate(by_kind["RayJob"])


def test_state_outlives_the_head_by_the_redis_there() -> None:
    [service] = [one for one in everything() if one["kind"] == "Service"]
    [redis] = [one for one in everything() if one["kind"] == "StatefulSet"]
    assert service["spec"]["selector"].items() <= redis["spec"]["template"]["metadata"]["labels"].items()
    address = f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    kept = [cluster_of(one).get("gcsFaultToleranceOptions") for one in of_kuberay() if one["kind"] != "RayJob"]
    assert [options["redisAddress"] for options in kept] == [address, address]
    assert redis["spec"]["volumeClaimTemplates"]


def test_what_the_service_says_to_serve() -> None:
    schemas = pytest.importorskip("ray.serve.schema", reason="Ray has no Serve here")
    [service] = [one for one in of_kuberay() if one["kind"] == "RayService"]
    config = schemas.ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    assert [deployment.name for app in config.applications for deployment in app.deployments] == ["Front"]


def test_the_settings_of_the_pool() -> None:
    [settings] = [json.loads(one["data"]["pool.json"]) for one in everything() if "pool.json" in one.get("data", {})]
    assert PoolConfig.model_validate(settings).queues


def test_code_in_config_maps_compiles_and_is_where_it_is_asked_for() -> None:
    maps = {one["metadata"]["name"]: one["data"] for one in everything() if one["kind"] == "ConfigMap"}
    compile(maps["flexray-job"]["job.py"], "job.py", "exec")
    compile(maps["flexray-service"]["service.py"], "service.py", "exec")
    by_kind = {one["kind"]: one for one in of_kuberay()}
    for kind in ("RayJob", "RayService"):
        mounts = {
            (mount["mountPath"], volume["configMap"]["name"])
            for group in groups(by_kind[kind])
            for volume in group["template"]["spec"]["volumes"]
            for mount in group["template"]["spec"]["containers"][0]["volumeMounts"]
        }
        [(path, name)] = mounts
        if kind == "RayJob":
            assert by_kind[kind]["spec"]["entrypoint"] == f"python {path}/{next(iter(maps[name]))}"
        else:
            serve = yaml.safe_load(by_kind[kind]["spec"]["serveConfigV2"])
            assert serve["applications"][0]["import_path"].split(":")[0] + ".py" in maps[name]
            paths = [g["template"]["spec"]["containers"][0]["env"] for g in groups(by_kind[kind])]
            assert all(env == [{"name": "PYTHONPATH", "value": path}] for env in paths)
