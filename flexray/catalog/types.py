"""The table of known device types, each row with the public document its figures come from.

``tflops`` is the peak dense fp16/bf16 matrix throughput with fp32 accumulation where
the maker states it (half of a figure given "with sparsity"); for cards without matrix
units the peak fp16, or failing that fp32, rate, and the row says so. None means that
we know no public figure we trust: the type then gets the neutral speed 1.0.

Peak figures are a prior for placement until a task has been measured, not a promise.
"""

from __future__ import annotations

from dataclasses import dataclass

from flexray.model.amounts import MemoryMiB
from flexray.model.devices import DeviceType

REFERENCE_TFLOPS = 312.0
"""Dense fp16/bf16 tensor throughput of nvidia/A100-80GB, the unit of speed."""

NEUTRAL_SPEED = 1.0
"""Speed of a type nobody has figures for."""


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One known device type.

    Attributes:
        name: ``<maker>/<model>``.
        gigabytes: memory as the maker states it; counted as GiB, measured memory replaces it.
        tflops: peak dense fp16/bf16 matrix TFLOPS, or None when no public figure is known.
        source: the public document of the figures.
    """

    name: str
    gigabytes: int
    tflops: float | None
    source: str

    @property
    def type(self) -> DeviceType:
        """The device type of this row; speed is relative to nvidia/A100-80GB."""
        speed = NEUTRAL_SPEED if self.tflops is None else round(self.tflops / REFERENCE_TFLOPS, 3)
        return DeviceType(self.name, MemoryMiB(self.gigabytes * 1024), speed)


_A100 = "NVIDIA A100 Tensor Core GPU datasheet"
_H100 = "NVIDIA H100 Tensor Core GPU datasheet (half of the figure with sparsity)"
_H200 = "NVIDIA H200 Tensor Core GPU datasheet (half of the figure with sparsity)"
_V100 = "NVIDIA V100 Tensor Core GPU datasheet (SXM2)"
_ADA = "NVIDIA Ada GPU architecture whitepaper"
_GA102 = "NVIDIA Ampere GA102 GPU architecture whitepaper"
_MI200 = "AMD Instinct MI200 series datasheet"
_ASCEND_MEMORY = "Huawei MindCluster documentation, vNPU templates (memory); no public throughput figure we trust"
_MAX = "Intel Data Center GPU Max series product page (memory); no public throughput figure we trust"

CATALOG: tuple[CatalogEntry, ...] = (
    CatalogEntry("nvidia/K80", 12, 4.37, "NVIDIA Tesla K80 datasheet, one of its two GPUs; fp32, it has no fp16 units"),
    CatalogEntry("nvidia/P100", 16, 18.7, "NVIDIA Tesla P100 datasheet (PCIe); fp16 without matrix units"),
    CatalogEntry("nvidia/V100-16GB", 16, 125.0, _V100),
    CatalogEntry("nvidia/V100-32GB", 32, 125.0, _V100),
    CatalogEntry("nvidia/T4", 16, 65.0, "NVIDIA T4 datasheet"),
    CatalogEntry("nvidia/A10", 24, 125.0, "NVIDIA A10 datasheet"),
    CatalogEntry("nvidia/A10G", 24, 70.0, "NVIDIA A10G datasheet, published by AWS for EC2 G5"),
    CatalogEntry("nvidia/A30", 24, 165.0, "NVIDIA A30 datasheet"),
    CatalogEntry("nvidia/A40", 48, 149.7, "NVIDIA A40 datasheet"),
    CatalogEntry("nvidia/A100-40GB", 40, 312.0, _A100),
    CatalogEntry("nvidia/A100-80GB", 80, 312.0, _A100),
    CatalogEntry("nvidia/L4", 24, 121.0, "NVIDIA L4 datasheet (half of the figure with sparsity)"),
    CatalogEntry("nvidia/L40", 48, 181.05, "NVIDIA L40 datasheet"),
    CatalogEntry("nvidia/L40S", 48, 362.05, "NVIDIA L40S datasheet"),
    CatalogEntry("nvidia/H100-80GB", 80, 989.5, _H100 + ", SXM"),
    CatalogEntry("nvidia/H100-PCIe-80GB", 80, 756.0, "NVIDIA H100 Tensor Core GPU architecture whitepaper, PCIe"),
    CatalogEntry("nvidia/H100-NVL-94GB", 94, 835.5, _H100 + ", NVL"),
    CatalogEntry("nvidia/GH200-96GB", 96, 989.5, "NVIDIA GH200 Grace Hopper Superchip datasheet (half, as above)"),
    CatalogEntry("nvidia/H20-96GB", 96, None, "NVIDIA MIG user guide, supported GPUs (memory)"),
    CatalogEntry("nvidia/H200-141GB", 141, 989.5, _H200 + ", SXM"),
    CatalogEntry("nvidia/H200-NVL-141GB", 141, 835.5, _H200 + ", NVL"),
    CatalogEntry("nvidia/B200", 180, 2250.0, "NVIDIA DGX B200 datasheet (an eighth of it; half of that with sparsity)"),
    CatalogEntry("nvidia/RTX-PRO-6000", 96, None, "NVIDIA MIG user guide, supported GPUs (memory)"),
    CatalogEntry("nvidia/RTX-3090", 24, 71.0, _GA102),
    CatalogEntry("nvidia/RTX-4090", 24, 165.2, _ADA),
    CatalogEntry("nvidia/RTX-A6000", 48, 154.8, _GA102),
    CatalogEntry("nvidia/RTX-6000-Ada", 48, 364.2, "NVIDIA RTX 6000 Ada datasheet (a quarter of fp8 with sparsity)"),
    CatalogEntry("ascend/910A", 32, 256.0, "Huawei, launch of Ascend 910, 23 August 2019"),
    CatalogEntry("ascend/910B", 32, None, "of unknown variant: the least memory of any; " + _ASCEND_MEMORY),
    CatalogEntry("ascend/910B2", 64, None, _ASCEND_MEMORY),
    CatalogEntry("ascend/910B3", 64, None, _ASCEND_MEMORY),
    CatalogEntry("ascend/910B4", 32, None, _ASCEND_MEMORY),
    CatalogEntry("ascend/310P3", 24, 70.0, "Huawei Atlas 300I Pro inference card specifications"),
    CatalogEntry("amd/MI100", 32, 184.6, "AMD Instinct MI100 datasheet"),
    CatalogEntry("amd/MI210", 64, 181.0, _MI200),
    CatalogEntry("amd/MI250X", 64, 191.5, _MI200 + ", one of the card's two dies: each is a device to its driver"),
    CatalogEntry("amd/MI300X", 192, 1307.4, "AMD Instinct MI300X datasheet"),
    CatalogEntry("amd/MI325X", 256, 1307.4, "AMD Instinct MI325X datasheet"),
    CatalogEntry("intel/Max-1100", 48, None, _MAX),
    CatalogEntry("intel/Max-1550", 128, None, _MAX),
)
"""Every known type. To add one, add its row with the document it comes from."""

ALIASES: dict[str, str] = {
    # A name that stands for several sizes means the smallest: no memory is promised that may not be there.
    "a100": "nvidia/A100-40GB",
    "a100-40g": "nvidia/A100-40GB",
    "a100-80g": "nvidia/A100-80GB",
    "v100": "nvidia/V100-16GB",
    "h100": "nvidia/H100-80GB",
    "h200": "nvidia/H200-141GB",
    # The remaining names are those Ray gives accelerators in labels and resources.
    "geforce-rtx-3090": "nvidia/RTX-3090",
    "geforce-rtx-4090": "nvidia/RTX-4090",
    "ascend910b": "ascend/910B",
    "ascend910b4": "ascend/910B4",
    "ascend310p3": "ascend/310P3",
    "amd-instinct-mi100": "amd/MI100",
    "amd-instinct-mi210": "amd/MI210",
    "amd-instinct-mi250x": "amd/MI250X",
    "amd-instinct-mi300x-oam": "amd/MI300X",
    "amd-instinct-mi325x-oam": "amd/MI325X",
    "intel-gpu-max-1100": "intel/Max-1100",
    "intel-gpu-max-1550": "intel/Max-1550",
}
"""Other names, in lower case -> name in the catalog."""
