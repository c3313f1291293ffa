"""What the kernel's driver for AMD compute says in its files: which GPUs there are, how they are built, who uses them.

The files are those of ``/sys/class/kfd/kfd``: ``topology/nodes/<n>/properties`` and ``proc/<pid>/vram_<gpu>``. ROCm
numbers GPUs in the order of these nodes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

KFD = Path("sys/class/kfd/kfd")
_RDNA = 100000
"""gfx10.0.0 as the kernel writes it: from there on compute units come in pairs (work group processors)."""


@dataclass(frozen=True, slots=True)
class ComputeNode:
    """One GPU.

    Attributes:
        index: its number among the node's GPUs, which is HIP's and ROCr's.
        gpu: the driver's id of it.
        bus: its place on the PCI bus, ``0000:05:00.0``.
        units: compute units.
        atom: compute units that a mask must take or leave together.
        name: what ``ROCR_VISIBLE_DEVICES`` calls it: ``GPU-<unique id>``, or its index where it has none.
    """

    index: int
    gpu: str
    bus: str
    units: int
    atom: int
    name: str


def compute_nodes(root: Path) -> list[ComputeNode]:
    """The GPUs of the machine, in the order of their numbers; [] where the driver is not loaded."""
    folders = [path for path in (root / KFD / "topology/nodes").glob("*") if path.name.isdigit()]
    nodes: list[ComputeNode] = []
    for folder in sorted(folders, key=lambda path: int(path.name)):
        try:
            properties = _properties((folder / "properties").read_text())
            gpu = (folder / "gpu_id").read_text().strip()
        except OSError:  # the cgroup of devices hides it from this process
            continue
        if properties.get("simd_count") and properties.get("simd_per_cu"):  # the others are processors
            nodes.append(_node(len(nodes), gpu, properties))
    return nodes


def memory_of(root: Path, node: ComputeNode, pids: Collection[int]) -> int | None:
    """MiB of the GPU that these processes hold; None when the driver tells of none of them."""
    told = []
    for pid in pids:
        try:
            told.append(int((root / KFD / "proc" / str(pid) / f"vram_{node.gpu}").read_text()))
        except (OSError, ValueError):  # it has not opened the GPU
            continue
    return sum(told) // 2**20 if told else None


def _properties(text: str) -> dict[str, int]:
    pairs = [line.split() for line in text.splitlines()]
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _node(index: int, gpu: str, properties: dict[str, int]) -> ComputeNode:
    place = properties.get("location_id", 0)
    function = place >> 28 or place & 7  # a partition of a GPU has its number in the uppermost bits
    bus = f"{properties.get('domain', 0):04x}:{place >> 8 & 0xFF:02x}:{place >> 3 & 0x1F:02x}.{function}"
    paired = properties.get("gfx_target_version", 0) >= _RDNA
    unique = properties.get("unique_id", 0)
    return ComputeNode(
        index=index,
        gpu=gpu,
        bus=bus,
        units=properties["simd_count"] // properties["simd_per_cu"],
        atom=2 if paired else max(1, properties.get("num_xcc", 1)),
        name=f"GPU-{unique:016x}" if unique else str(index),
    )
