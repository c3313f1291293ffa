"""The rules and the board name what is there, and Prometheus understands them."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from flexray.telemetry.metrics import METRICS, Kind, prometheus_name
from flexray.telemetry.settings import Settings

MONITORING = Path(__file__).parents[2] / "monitoring"
RULES = MONITORING / "flexray.rules.yaml"


def known() -> set[str]:
    """Every name that Prometheus may be asked for."""
    names = set()
    for one in METRICS.values():
        parts = ("_bucket", "_sum", "_count") if one.kind is Kind.HISTOGRAM else ("",)
        names |= {prometheus_name(one) + part for part in parts}
    # A collector's own translation to Prometheus adds this to fractions.
    ratios = {f"{prometheus_name(one)}_ratio" for one in METRICS.values() if one.unit == "1"}
    return names | {f"ray_{name}" for name in names} | ratios


def rules() -> list[dict[str, Any]]:
    """All rules of the file."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def board() -> list[str]:
    """Every expression of the board."""
    panels = json.loads((MONITORING / "grafana.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_every_metric_that_a_rule_names_is_in_the_table() -> None:
    named = {name for rule in rules() for name in re.findall(r"\b(?:ray_)?flexray_\w+", rule["expr"])}
    assert named
    assert named <= known()


def test_alerts_and_board_read_what_is_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = [rule["expr"] for rule in rules() if "alert" in rule] + board()
    assert asked
    for expression in asked:
        names = re.findall(r"\b(?:ray_)?flexray[:_][\w:]+", expression)
        assert names and set(names) <= recorded, expression


def test_labels_that_rules_group_by_are_the_metrics() -> None:
    names = {prometheus_name(one): one for one in METRICS.values()}
    for rule in rules():
        found = re.search(r"by \(([^)]*)\) \(?(?:rate\()?ray_(\w+?)(?:_bucket)?[ \[]", rule["expr"])
        if found is not None:
            labels = [label for label in re.split(r", *", found[1]) if label not in ("", "le")]
            assert set(labels) <= set(names[found[2]].labels), rule


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (Debian: apt-get install prometheus)")
def test_prometheus_understands_the_rules_and_alerts_fire() -> None:
    for command in (["check", "rules", RULES.name], ["test", "rules", "flexray.rules.test.yaml"]):
        done = subprocess.run(
            ["promtool", *command], cwd=MONITORING, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus (Debian: apt-get install prometheus)")
def test_prometheus_scrapes_what_the_table_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flexray.telemetry.otel_metrics import OtelMetrics
    from flexray.telemetry.tally import Report

    ours, theirs = free_port(), free_port()
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", str(ours))
    metrics = OtelMetrics(Settings(metrics=("prometheus",)))
    keys = {kind: [(m.name, m.labels) for m in METRICS.values() if m.kind is kind] for kind in Kind}
    totals = dict.fromkeys(keys[Kind.COUNTER], 3.0)
    metrics.take(
        Report(totals, tuple((key, 0.5) for key in keys[Kind.HISTOGRAM]), dict.fromkeys(keys[Kind.GAUGE], 2.0))
    )
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "flexray", "static_configs": [{"targets": [f"localhost:{ours}"]}]}],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    arguments = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    process = subprocess.Popen(
        ["prometheus", *arguments, f"--web.listen-address=127.0.0.1:{theirs}", "--log.level=error"]
    )
    try:
        wanted = {name for name in known() if not name.startswith("ray_") and not name.endswith("_ratio")}
        deadline, missing = time.monotonic() + 60, wanted
        while missing and time.monotonic() < deadline:
            time.sleep(0.2)
            missing = wanted - names_at(theirs)
        assert missing == set()
    finally:
        process.terminate()
        process.wait(30)
        metrics.close()


def names_at(port: int) -> set[str]:
    """Names of our series that a Prometheus has."""
    query = urllib.parse.urlencode({"match[]": '{__name__=~"flexray_.+"}'})
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}/api/v1/label/__name__/values?{query}", timeout=5
        ) as answer:
            return set(json.load(answer)["data"])
    except OSError:
        return set()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
