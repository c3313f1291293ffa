"""flexray on a Ray that wants a token, and one that speaks TLS only: clusters of their own, from start to stop."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(330)
DRIVER = Path(__file__).with_name("secured.py")


def run_driver(security: dict[str, str]) -> dict[str, str]:
    """What the driver printed, by its first words."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_AUTH", "RAY_USE_TLS"))}
    done = subprocess.run(
        [sys.executable, str(DRIVER)], env={**env, **security}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def check(said: dict[str, str]) -> None:
    assert (said["task"], said["actor"]) == ("8", "3 7")
    assert said["status"].startswith("0 True")
    assert said["stop"] == "True False"
    assert said["stranger"].startswith("1 flexray: "), "one line, and no traceback"


def test_with_a_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef" * 4)
    token.chmod(0o600)
    said = run_driver({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)})
    check(said)
    assert "wants another token" in said["stranger"] and "RAY_AUTH_TOKEN_PATH" in said["stranger"]


def test_with_the_token_that_ray_made_for_this_user(tmp_path: Path) -> None:
    """Any local Ray leaves a token in the home directory, and the next ``ray start`` wants it with nothing set."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("0123456789abcdef" * 4)
    with tempfile.TemporaryDirectory(prefix="fxa", dir="/tmp", ignore_cleanup_errors=True) as folder:
        env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        env |= {"HOME": str(tmp_path), "RAY_TMPDIR": folder}
        head = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--port=0", "--num-cpus=2", "--block"]
        ray = subprocess.Popen([*head, "--include-dashboard=false"], env=env, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 60
            while not Path(folder, "ray/ray_current_cluster").exists():
                assert time.monotonic() < deadline and ray.poll() is None
                time.sleep(0.2)
            for word in ("start", "status", "stop"):
                line = [sys.executable, "-c", "from flexray.cli import main; main()", word]
                done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=120, check=False)
                assert done.returncode == 0, done.stderr
        finally:
            ray.terminate()
            ray.wait(60)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
def test_with_tls(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    said = run_driver(
        {
            "RAY_AUTH_MODE": "disabled",
            "RAY_USE_TLS": "1",
            "RAY_TLS_SERVER_CERT": str(tmp_path / "node.crt"),
            "RAY_TLS_SERVER_KEY": str(tmp_path / "node.key"),
            "RAY_TLS_CA_CERT": str(tmp_path / "ca.crt"),
        }
    )
    check(said)
    assert "no Ray cluster answers" in said["stranger"]


def make_certificates(folder: Path) -> None:
    """An authority of its own, and a certificate of it for this node's addresses."""
    import ray

    names = f"subjectAltName=IP:127.0.0.1,IP:{ray.util.get_node_ip_address()},DNS:localhost\n"
    (folder / "names").write_text(names)
    for line in (
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=authority",
        "req -newkey rsa:2048 -nodes -keyout node.key -out node.csr -subj /CN=node",
        "x509 -req -in node.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out node.crt -days 2 -extfile names",
    ):
        subprocess.run(["openssl", *line.split()], cwd=folder, capture_output=True, timeout=60, check=True)
