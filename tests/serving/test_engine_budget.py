"""What an engine may use follows from its slice."""

from __future__ import annotations

from pathlib import Path

import pytest

from flexray.errors import InvalidRequest
from flexray.model.devices import Device, DeviceType, Family
from flexray.serving.engine_budget import engine_budget, vllm_flags, vllm_variables, weights_of

GIB = 1 << 30


def devices(family: Family, count: int = 1, memory: int = 80 * 1024) -> list[Device]:
    kind = DeviceType("nvidia/H100" if family is Family.GPU else "cpu/x86_64", memory)
    cores = lambda index: (2 * index, 2 * index + 1) if family is Family.CPU else ()  # noqa: E731
    return [Device(f"n/{family.value}{i}", "n", i, kind, family, "test", cores=cores(i)) for i in range(count)]


def test_on_a_gpu_it_is_a_fraction_of_the_whole_device() -> None:
    budget = engine_budget(devices(Family.GPU), 20 * GIB, None, 0)
    assert (budget.parallel, budget.utilization, budget.cache) == (1, 0.237, None)  # 0.95 of a quarter, rounded down
    assert vllm_flags(budget) == ["--tensor-parallel-size", "1", "--gpu-memory-utilization", "0.237"]
    assert vllm_variables(budget) == {}


def test_where_a_process_sees_its_part_only_it_is_a_fraction_of_that() -> None:
    assert engine_budget(devices(Family.GPU), 20 * GIB, 20 * GIB, 0).utilization == 0.95
    assert engine_budget(devices(Family.GPU), 20 * GIB, 19 * GIB, 0).utilization == 0.95  # never more than is there


def test_fractions_of_all_engines_on_a_device_are_at_most_the_device() -> None:
    parts = [engine_budget(devices(Family.GPU), 80 * GIB * part // 1000, None, 0) for part in (333, 333, 334)]
    assert sum(part.utilization for part in parts) <= 0.95


def test_several_devices_are_tensor_parallel() -> None:
    budget = engine_budget(devices(Family.GPU, 4), 80 * GIB, None, 0)
    assert (budget.parallel, budget.utilization) == (4, 0.95)


def test_on_cpus_the_cache_is_what_processes_and_weights_leave() -> None:
    budget = engine_budget(devices(Family.CPU), 4 * GIB, None, 1 * GIB)
    assert budget.utilization is None
    assert budget.cache == 3 * GIB - 3 * (700 << 20)
    assert vllm_flags(budget)[2:] == ["--kv-cache-memory-bytes", str(budget.cache)]
    assert vllm_variables(budget) == {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}  # the slice is bound already


def test_on_several_cpu_devices_each_worker_has_the_cores_of_one() -> None:
    budget = engine_budget(devices(Family.CPU, 2), 4 * GIB, None, 2 * GIB)
    assert budget.cache == (8 * GIB - 4 * (700 << 20) - 2 * GIB) // 2
    assert vllm_variables(budget) == {"VLLM_CPU_OMP_THREADS_BIND": "0,1|2,3"}


@pytest.mark.parametrize("count", [1, 2])
def test_a_slice_that_is_too_small_says_what_would_do(count: int) -> None:
    with pytest.raises(InvalidRequest, match=r'needs \d+ MiB.*ask for memory="(\d+)MiB"') as failure:
        engine_budget(devices(Family.CPU, count), GIB, None, GIB // 2)
    enough = int(str(failure.value).rpartition('memory="')[2].partition("MiB")[0]) << 20
    assert engine_budget(devices(Family.CPU, count), enough, None, GIB // 2).cache >= 64 << 20
    with pytest.raises(InvalidRequest):
        engine_budget(devices(Family.CPU, count), enough - (1 << 20), None, GIB // 2)


def test_weights_are_counted_where_they_can_be_seen(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"x" * 10)
    (tmp_path / "b.safetensors").write_bytes(b"x" * 5)
    (tmp_path / "tokenizer.json").write_bytes(b"x" * 100)
    assert weights_of(str(tmp_path)) == 15
    assert weights_of("meta-llama/Llama-3.1-8B") == 0
