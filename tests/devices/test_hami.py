"""HAMi-core: only a library that really stands in the way is used, and each slice has a file of its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from nvidia_doubles import DOUBLES, Machine, gpu, vgpu_library

from flexray.devices.enforcers.elf import exported
from flexray.devices.enforcers.enforcer import Cell, NotResizable
from flexray.devices.enforcers.fraction import Fraction
from flexray.devices.enforcers.hami import VARIABLE, Hami
from flexray.errors import IsolationFailed
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.isolation import Isolation, Strength

GPU = gpu()


def hami(folder: Path, library: object, **more: str) -> Hami:
    return Hami(folder / "state", env={VARIABLE: str(library), **more}, root=folder)


def cell(name: str, share: int = 250, memory: int = 4096) -> Cell:
    return Cell(name, (GPU,), Share(share), Share(share), MemoryMiB(memory))


def test_exported_names_are_read(tmp_path: Path) -> None:
    assert {"cuMemAlloc_v2", "cuLaunchKernel", "dlsym"} <= exported(vgpu_library(tmp_path))
    assert "cuMemAlloc_v2" not in exported(vgpu_library(tmp_path, visible=False))


def test_a_debug_build_works_and_a_release_build_is_refused(tmp_path: Path) -> None:
    support = hami(tmp_path, vgpu_library(tmp_path)).probe([GPU])[GPU.id]
    assert (support.usable, support.memory) == (True, Strength.HARD)
    support = hami(tmp_path, vgpu_library(tmp_path, visible=False)).probe([GPU])[GPU.id]
    assert not support.usable
    assert "does not export cuMemAlloc_v2" in support.reason and "Debug" in support.reason
    assert "dlsym" not in support.reason.split(" and would")[0]


def test_what_is_no_library_is_refused(tmp_path: Path) -> None:
    text, cut = tmp_path / "text.so", tmp_path / "cut.so"
    text.write_text("no library")
    cut.write_bytes(vgpu_library(tmp_path).read_bytes()[:3000])
    reasons = {
        "": f"set {VARIABLE}",
        tmp_path / "none.so": "No such file",
        text: "no 64-bit ELF",
        cut: "damaged",
        "/bin/true": "does not export",
    }
    for library, expected in reasons.items():
        support = hami(tmp_path, library).probe([GPU])[GPU.id]
        assert not support.usable and expected in support.reason


def test_a_library_that_the_linker_does_not_take_is_refused(tmp_path: Path) -> None:
    def refuses(*command: str, **_: object) -> str:
        return f"ERROR: ld.so: object '{command[3]}' from LD_PRELOAD cannot be preloaded: ignored."

    enforcer = Hami(tmp_path, refuses, {VARIABLE: str(vgpu_library(tmp_path))}, tmp_path)  # type: ignore[arg-type]
    assert "cannot be preloaded" in enforcer.probe([GPU])[GPU.id].reason


def test_a_library_with_which_python_does_not_run_is_refused(tmp_path: Path) -> None:
    library, source = tmp_path / "libvgpu.so", tmp_path / "broken.c"
    source.write_text((DOUBLES / "vgpu.c").read_text().replace("return real(from, name)", "return 0"))
    subprocess.run([shutil.which("cc") or "cc", "-shared", "-fPIC", "-w", "-o", library, source], check=True)
    assert "Python does not run" in hami(tmp_path, library).probe([GPU])[GPU.id].reason


def test_a_slice_has_the_library_its_limits_and_a_file_of_its_own(tmp_path: Path) -> None:
    library = vgpu_library(tmp_path)
    enforcer = hami(tmp_path, library, LD_PRELOAD="libjemalloc.so")
    enforcer.probe([GPU])
    setup = enforcer.prepare(cell("a", share=142))
    cache = setup.launch.pop("CUDA_DEVICE_MEMORY_SHARED_CACHE")
    assert setup.isolation is Isolation.HAMI
    assert setup.launch == {
        "LD_PRELOAD": f"{library} libjemalloc.so",
        "CUDA_REDIRECT": str(library),
        "CUDA_DEVICE_MEMORY_LIMIT": "4096m",
        "CUDA_DEVICE_SM_LIMIT": "15",
    }
    assert (tmp_path / "tmp/vgpulock").is_dir(), "the library expects it"
    other = enforcer.prepare(cell("b")).launch["CUDA_DEVICE_MEMORY_SHARED_CACHE"]
    assert other != cache and Path(other).parent.is_dir()
    assert enforcer.prepare(cell("c", share=1000)).launch == {}
    with pytest.raises(NotResizable):
        enforcer.resize(cell("a"))


def test_an_old_file_never_gives_a_new_slice_its_limits(tmp_path: Path) -> None:
    enforcer = hami(tmp_path, vgpu_library(tmp_path))
    enforcer.probe([GPU])
    files = [Path(enforcer.prepare(cell(n)).launch["CUDA_DEVICE_MEMORY_SHARED_CACHE"]) for n in "abc"]
    for file in files:
        file.write_text("limits")  # as the library does
    enforcer.prepare(cell("a"))
    enforcer.release(cell("b"))
    assert [file.exists() for file in files] == [False, False, True]
    enforcer.sweep(["a"])
    assert not files[2].exists()


def test_torch_is_told_its_part_and_nothing_else_is_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(tmp_path, monkeypatch, "")
    enforcer = Fraction()
    with pytest.raises(IsolationFailed, match="not found on this node"):
        enforcer.prepare(cell("a"))
    assert enforcer.probe([GPU])[GPU.id].memory is Strength.COOPERATIVE
    setup = enforcer.prepare(cell("a", memory=10240))
    assert (setup.isolation, setup.memory_fraction, setup.launch, setup.env) == (Isolation.NONE, 0.25, {}, {})
    assert enforcer.prepare(cell("a", share=1000)).memory_fraction == 0.0
    assert enforcer.prepare(cell("a", memory=99999)).memory_fraction == 1.0
