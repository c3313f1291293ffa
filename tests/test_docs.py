"""What the documents say: links lead somewhere, names exist, every snippet runs (in one process, on one pool)."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import flexray
from flexray import errors

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "examples/README.md",
    ROOT / "benchmarks/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


def snippets(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert missing == []


def test_the_front_door_has_what_it_says() -> None:
    assert sorted(flexray.__all__) == flexray.__all__
    assert all(getattr(flexray, name) is not None for name in flexray.__all__)


def test_importing_flexray_does_not_import_ray_or_torch() -> None:
    code = "import sys, flexray; print(sorted({'ray', 'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_error_has_its_remedy() -> None:
    kinds = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and kind.__module__ == errors.__name__
    }
    rows = set(re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", (ROOT / "docs/errors.md").read_text(), re.MULTILINE))
    assert kinds - rows == {"FlexrayError"} | {name for name in kinds if name.startswith("_")} and rows <= kinds


def test_pictures_are_drawn_from_the_tables() -> None:
    drawn = runpy.run_path(str(ROOT / "docs/draw.py"))["pictures"]()
    there = {path.name: path.read_text() for path in (ROOT / "docs/pictures").glob("*.svg")}
    assert there == drawn, "run `python docs/draw.py`"


def test_the_site_builds_and_has_every_page(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    in_nav = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert in_nav == {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    reference = (tmp_path / "reference/index.html").read_text()
    public = set(flexray.__all__) - {"errors", "serving"}
    assert [name for name in sorted(public) if f'id="flexray.{name}"' not in reference] == []


@pytest.mark.ray
def test_every_snippet_runs(tmp_path: Path) -> None:
    code = ["import flexray as flex", "flex.init('local', config={'cpu_devices': 2})"]
    pages = [page for page in PAGES if snippets(page)]
    for page in pages:
        code += [f"print('--- {page.name}')", *snippets(page)]
    script = tmp_path / "snippets.py"
    script.write_text("\n".join([*code, "flex.shutdown()", "print('all ran')"]))
    with tempfile.TemporaryDirectory(prefix="fxd", dir="/tmp") as short:
        env = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": short}
        done = subprocess.run(
            [sys.executable, script], capture_output=True, text=True, timeout=150, env=env, check=False
        )
    assert "all ran" in done.stdout, done.stdout + done.stderr
    assert len(pages) >= 2
