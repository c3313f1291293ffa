from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from flexray.catalog import (
    CATALOG,
    NEUTRAL_MEMORY,
    cut_by,
    family_of,
    find,
    lookup,
    profiles_of,
    type_from_nvml,
    type_from_product,
)
from flexray.catalog.parts import _VNPU_PARTS, SOURCES
from flexray.catalog.types import ALIASES
from flexray.model.devices import Family
from flexray.model.partition import Profile


def test_every_row_is_complete_and_unique() -> None:
    assert len({entry.name for entry in CATALOG}) == len(CATALOG)
    for entry in CATALOG:
        assert entry.name.split("/")[0] in {"nvidia", "amd", "intel", "ascend"}
        assert entry.source and entry.gigabytes > 0
        assert entry.tflops is None or entry.tflops > 0


def test_short_names_are_unambiguous() -> None:
    shorts = [entry.name.split("/", 1)[1].lower() for entry in CATALOG]
    assert len(set(shorts)) == len(shorts)
    assert not set(shorts) & set(ALIASES), "an alias would be hidden by a row"


def test_speed_is_relative_to_the_a100() -> None:
    assert find("A100-80GB").speed == 1.0
    assert find("T4").speed == pytest.approx(65 / 312, abs=1e-3)
    assert find("H100-80GB").speed == pytest.approx(3.17, abs=0.01)
    assert find("910B3").speed == 1.0, "without a public figure the speed is neutral"


def test_lookup_wants_the_exact_name() -> None:
    found = lookup("nvidia/T4")
    assert found is not None and found.memory == 16 * 1024
    assert lookup("T4") is None
    assert lookup("NVIDIA/T4") is None


@pytest.mark.parametrize(
    ("short", "name"),
    [
        ("A100-80GB", "nvidia/A100-80GB"),
        ("t4", "nvidia/T4"),
        ("NVIDIA/t4", "nvidia/T4"),
        ("A100", "nvidia/A100-40GB"),
        ("A100-80G", "nvidia/A100-80GB"),
        ("Ascend910B4", "ascend/910B4"),
        ("AMD-Instinct-MI300X-OAM", "amd/MI300X"),
        ("Intel-GPU-Max-1550", "intel/Max-1550"),
    ],
)
def test_find_knows_short_names_in_any_case(short: str, name: str) -> None:
    assert find(short).name == name
    assert find(short) == lookup(name)


@pytest.mark.parametrize(("short", "name"), [("X9", "unknown/X9"), ("acme/X1", "acme/X1"), (" ", "unknown/unknown")])
def test_an_unknown_type_is_neutral(short: str, name: str) -> None:
    kind = find(short)
    assert (kind.name, kind.memory, kind.speed) == (name, NEUTRAL_MEMORY, 1.0)


def test_family_follows_the_maker() -> None:
    assert [family_of(name) for name in ("ascend/910B", "cpu/x86_64", "amd/MI210", "acme/X1")] == [
        Family.NPU,
        Family.CPU,
        Family.GPU,
        Family.GPU,
    ]


@pytest.mark.parametrize(
    ("product", "memory", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", 81920, "nvidia/A100-80GB"),
        ("NVIDIA A100 80GB PCIe", 81920, "nvidia/A100-80GB"),
        ("A100-SXM4-40GB", 40536, "nvidia/A100-40GB"),
        ("NVIDIA A100-PCIE-40GB", 40960, "nvidia/A100-40GB"),
        ("NVIDIA H100 80GB HBM3", 81559, "nvidia/H100-80GB"),
        ("NVIDIA H100 PCIe", 81559, "nvidia/H100-PCIe-80GB"),
        ("NVIDIA H100 NVL", 95830, "nvidia/H100-NVL-94GB"),
        ("NVIDIA H200", 143771, "nvidia/H200-141GB"),
        ("NVIDIA B200", 183359, "nvidia/B200"),
        ("Tesla T4", 15109, "nvidia/T4"),
        ("Tesla V100-SXM2-32GB", 32510, "nvidia/V100-32GB"),
        ("Tesla P100-PCIE-16GB", 16280, "nvidia/P100"),
        ("Tesla K80", 11441, "nvidia/K80"),
        ("NVIDIA A10", 23028, "nvidia/A10"),
        ("NVIDIA A10G", 23028, "nvidia/A10G"),
        ("NVIDIA L40S", 46068, "nvidia/L40S"),
        ("NVIDIA GeForce RTX 4090", 24564, "nvidia/RTX-4090"),
        ("NVIDIA RTX 6000 Ada Generation", 49140, "nvidia/RTX-6000-Ada"),
        ("NVIDIA RTX A6000", 49140, "nvidia/RTX-A6000"),
        ("Fake A100-SXM4-40GB", 40960, "nvidia/A100-40GB"),
        ("Fake H100 80GB", 81559, "nvidia/H100-80GB"),
    ],
)
def test_nvml_names_of_known_products(product: str, memory: int, name: str) -> None:
    kind = type_from_nvml(product, memory)
    known = lookup(name)
    assert known is not None
    assert (kind.name, kind.memory, kind.speed) == (name, memory, known.speed)


@pytest.mark.parametrize(
    ("product", "memory", "name"),
    [
        ("NVIDIA GeForce RTX 3090 Ti", 24564, "nvidia/RTX-3090-Ti"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 16376, "nvidia/RTX-4090-Laptop-GPU"),
        ("Tesla P100-PCIE-12GB", 12198, "nvidia/P100-PCIE-12GB"),
        ("GRID A100-10C", 10240, "nvidia/GRID-A100-10C"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4864, "nvidia/A100-SXM4-40GB-MIG-1g.5gb"),
        ("", 100, "nvidia/unknown"),
    ],
)
def test_nvml_names_of_other_products_stay_themselves(product: str, memory: int, name: str) -> None:
    kind = type_from_nvml(product, memory)
    assert (kind.name, kind.memory, kind.speed) == (name, memory, 1.0)


CUT = [entry.name for entry in CATALOG if profiles_of(entry.name)]


@pytest.mark.parametrize("name", CUT)
def test_no_combination_of_fixed_parts_exceeds_the_device(name: str) -> None:
    assert SOURCES[cut_by(name)]
    for parts in _combinations(profiles_of(name)):
        assert sum(part.share for part in parts) <= 1000
        assert sum(part.memory for part in parts) <= find(name).memory, parts


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("A100-40GB", {"1g.5gb": 7, "1g.10gb": 4, "2g.10gb": 3, "3g.20gb": 2, "4g.20gb": 1, "7g.40gb": 1}),
        ("H200-141GB", {"1g.18gb": 7, "1g.35gb": 4, "2g.35gb": 3, "3g.71gb": 2, "4g.71gb": 1, "7g.141gb": 1}),
        ("A30", {"1g.6gb": 4, "2g.12gb": 2, "4g.24gb": 1}),
        ("910B3", {"vir05_1c_16g": 4, "vir10_3c_32g": 2}),
        ("310P3", {"vir01": 7, "vir02": 3, "vir04": 1}),
    ],
)
def test_as_many_of_a_part_fit_as_its_maker_says(name: str, most: dict[str, int]) -> None:
    profiles = profiles_of(find(name).name)
    counts = [Counter(part.name for part in parts) for parts in _combinations(profiles)]
    assert {part.name: max(count[part.name] for count in counts) for part in profiles} == most


def _combinations(
    profiles: tuple[Profile, ...], taken: frozenset[int] = frozenset(), at: int = 0, parts: tuple[Profile, ...] = ()
) -> Iterator[tuple[Profile, ...]]:
    """Every set of parts that can be on a device together: by its places, or where it has none by its amounts."""
    yield parts
    ways = [(p, start) for p in profiles for start in p.starts or (0,)]
    for index, (part, start) in enumerate(ways[at:], at):
        places = frozenset(range(start, start + part.width))
        room = not places & taken if part.width else sum(p.share for p in (*parts, part)) <= 1000
        if room:
            yield from _combinations(profiles, taken | places, index + (part.width > 0), (*parts, part))


@pytest.mark.parametrize(
    ("name", "chip", "memory"),
    [("910B2", 24, 65536), ("910B3", 20, 65536), ("910B4", 20, 32768), ("310P3", 8, 21527)],
)
def test_what_fits_by_share_fits_by_cores_processors_and_memory(name: str, chip: int, memory: int) -> None:
    """By the maker's table; 310P3 has 21527 of its 24576 MiB to give."""
    table = {one[0]: one[1:] for one in _VNPU_PARTS[f"ascend/{name}"].templates}
    cpus = _VNPU_PARTS[f"ascend/{name}"].cpus
    for parts in _combinations(profiles_of(f"ascend/{name}")):
        sums = [sum(table[p.name][n] for p in parts) for n in range(3)]
        assert sums[0] <= chip and sums[1] <= cpus and sums[2] <= memory, [p.name for p in parts]


@pytest.mark.parametrize(
    ("maker", "product", "memory", "name", "known"),
    [
        ("ascend", "Ascend 910B3", 65536, "ascend/910B3", False),
        ("ascend", "910B4", 32768, "ascend/910B4", False),
        ("ascend", "Ascend310P3", 21527, "ascend/310P3", True),
        ("ascend", "Ascend910", 65536, "ascend/910", False),
        ("amd", "AMD Instinct MI300X OAM", 196592, "amd/MI300X", True),
        ("amd", "Instinct MI210", 65520, "amd/MI210", True),
        ("amd", "AMD Instinct MI300X", 24574, "amd/MI300X-24GB", False),
        ("amd", "AMD Radeon RX 9070 XT", 16304, "amd/Radeon-RX-9070-XT", False),
        ("amd", "", 1024, "amd/unknown", False),
        ("intel", "Intel(R) Data Center GPU Max 1550", 131072, "intel/Max-1550", False),
        ("intel", "Intel(R) Arc(TM) Pro B70 Graphics", 32656, "intel/Arc-Pro-B70", False),
    ],
)
def test_products_as_makers_commands_name_them(maker: str, product: str, memory: int, name: str, known: bool) -> None:
    kind = type_from_product(maker, product, memory)
    assert (kind.name, kind.memory) == (name, memory)
    assert (kind.speed != 1.0) is known, "a figure for speed, and of a card of that size"
