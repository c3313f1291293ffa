"""What an inference engine may use, worked out from the slice that it runs on.

Engines such as vLLM take what they find: 92 % of a GPU's memory, or as many threads as there are cores. On a part of a
device they have to be told. No Ray, no clock: amounts in, flags and variables out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flexray.errors import InvalidRequest
from flexray.model.devices import Device, Family

#: Part of a slice's device memory that an engine leaves alone: CUDA contexts and fragments are in no engine's books.
_HEADROOM = 0.05
#: Bytes that each process of vLLM needs on a CPU beside weights and cache (0.32.0: 0.62 to 0.67 GiB).
_PROCESS = 700 << 20
#: Processes beside the workers, of which there is one a device: the API server and the engine's core.
_BESIDE_WORKERS = 2
#: A smaller cache holds no conversation of use.
_LEAST_CACHE = 64 << 20
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")


@dataclass(frozen=True)
class EngineBudget:
    """What one engine may use.

    Attributes:
        parallel: devices that the model is spread over, all of them on one node (tensor parallel).
        utilization: fraction of each device's memory, as the engine sees the device; None on CPU stand-ins.
        cache: bytes of key-value cache on each device; None where the engine finds out itself, within ``utilization``.
        cores: host cores of each worker, on CPU stand-ins of which it has several whole ones; () leaves them to the
            slice, which is bound to its device's already.
    """

    parallel: int
    utilization: float | None
    cache: int | None
    cores: tuple[tuple[int, ...], ...] = ()


def engine_budget(devices: Sequence[Device], memory: int, seen: int | None, weights: int) -> EngineBudget:
    """Work out what an engine may use.

    Args:
        devices: of the slice.
        memory: bytes of each of them that the slice has.
        seen: bytes of one of them as a process of the slice sees it, which under MIG or HAMi are fewer than it has;
            None where nobody knows.
        weights: bytes of the model's weights, or 0.

    Raises:
        InvalidRequest: the slice is too small for any engine; says what it would need.
    """
    count = len(devices)
    if devices[0].family is not Family.CPU:
        whole = seen or devices[0].type.memory << 20
        part = min(1.0, memory / whole) * (1 - _HEADROOM)
        return EngineBudget(count, int(part * 1000) / 1000, None)
    needs = (_BESIDE_WORKERS + count) * _PROCESS + weights
    cache = (count * memory - needs) // count
    if cache < _LEAST_CACHE:
        least = (needs + count * _LEAST_CACHE) // count
        raise InvalidRequest(
            f"an engine on {count} CPU stand-in(s) needs {needs >> 20} MiB for its {_BESIDE_WORKERS + count} processes "
            f"and the weights, and at least {_LEAST_CACHE >> 20} MiB of cache each; the slice has "
            f'{memory >> 20} MiB of each: ask for memory="{-(-least >> 20)}MiB" or more'
        )
    return EngineBudget(count, None, cache, tuple(device.cores for device in devices) if count > 1 else ())


def weights_of(model: str) -> int:
    """Bytes of a model's weights in a folder of this machine; 0 for a name of Hugging Face's, fetched later."""
    folder = Path(model)
    return sum(file.stat().st_size for pattern in _WEIGHTS for file in folder.glob(pattern)) if folder.is_dir() else 0


def vllm_flags(budget: EngineBudget) -> list[str]:
    """What vLLM is told on its command line. Flags that come after these win."""
    flags = ["--tensor-parallel-size", str(budget.parallel)]
    if budget.utilization is not None:
        flags += ["--gpu-memory-utilization", f"{budget.utilization:.3f}"]
    if budget.cache is not None:
        flags += ["--kv-cache-memory-bytes", str(budget.cache)]
    return flags


def vllm_variables(budget: EngineBudget) -> dict[str, str]:
    """What vLLM is told in its environment, beside what the slice has told all libraries (``OMP_NUM_THREADS``)."""
    if budget.utilization is not None:
        return {}
    # vLLM would take every core of the machine's first NUMA node for itself, whatever its slice holds.
    lists = "|".join(",".join(map(str, cores)) for cores in budget.cores)
    return {"VLLM_CPU_OMP_THREADS_BIND": lists or "nobind"}
