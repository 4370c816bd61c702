"""What of a machine can change the digits of a result: instruction sets, caches, threads, and settings of libraries."""

import os
import platform
import re
from pathlib import Path

CPUINFO, CACHES = Path("/proc/cpuinfo"), Path("/sys/devices/system/cpu/cpu0/cache")
# Processor flags that numerical libraries choose their routines by (x86, then ARM).
FLAGS = ["sse4_2", "avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16"]
FLAGS += ["avx512_fp16", "amx_bf16", "amx_int8", "asimd", "asimdhp", "bf16", "i8mm", "sve", "sve2"]
# oneDNN's names of what it can use, from the least, with the flags that each needs.
ONEDNN = {
    "SSE41": {"sse4_2"},
    "AVX": {"avx"},
    "AVX2": {"avx2", "fma"},
    "AVX512_CORE": {"avx512bw", "avx512vl"},
    "AVX512_CORE_VNNI": {"avx512_vnni"},
    "AVX512_CORE_BF16": {"avx512_bf16"},
    "AVX512_CORE_FP16": {"avx512_fp16"},
    "AVX512_CORE_AMX": {"amx_bf16", "amx_int8"},
}
# Variables that change how the libraries compute.
SETTINGS: tuple[str, ...] = (
    "ONEDNN_MAX_CPU_ISA",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
SETTINGS += ("OMP_NUM_THREADS", "KERAS_BACKEND", "XLA_FLAGS", "TF_XLA_FLAGS", "TF_DETERMINISTIC_OPS")
SETTINGS += ("CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE", "NPY_DISABLE_CPU_FEATURES")


def facts() -> dict:
    """
    Say what of this machine, as it is set for this process, can change the digits of a result.

    Returns
    -------
    dict
        ``processor``; ``cores`` that this process may use; ``memory`` [bytes]; ``flags`` of the processor that
        libraries choose their routines by; ``instructions``: the most that oneDNN may use; ``caches`` of a core by
        level; ``threads`` of one operation; ``settings`` of libraries in the environment.
    """
    flags, cores = _flags(), _cores()
    settings = {name: os.environ[name] for name in SETTINGS if name in os.environ}
    threads = settings.get("TF_NUM_INTRAOP_THREADS", "")
    return {
        "processor": _processor(),
        "cores": cores,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "flags": flags,
        "instructions": instructions(flags, settings.get("ONEDNN_MAX_CPU_ISA", "")),
        "caches": _caches(),
        "threads": int(threads) if threads.isdigit() and int(threads) else cores,
        "settings": settings,
    }


def instructions(flags: list[str], limit: str) -> str:
    """
    Name the most that oneDNN may use.

    Parameters
    ----------
    flags : list of str
        Of the processor.
    limit : str
        ``$ONEDNN_MAX_CPU_ISA``.

    Returns
    -------
    str
        ``""`` for a processor that is not x86.

    Examples
    --------
    >>> instructions(["sse4_2", "avx", "avx2", "fma", "avx512bw", "avx512vl"], "AVX2")
    'AVX2'
    """
    names = list(ONEDNN)
    if limit.upper() in names:
        names = names[: names.index(limit.upper()) + 1]
    found = [name for name in names if ONEDNN[name] <= set(flags)]
    return found[-1] if found else ""


def tensorflow_devices() -> list[str]:
    """Name the devices that TensorFlow itself sees, with the model of a GPU; loads TensorFlow."""
    from tensorflow import config

    found = []
    for device in config.list_physical_devices():
        model = config.experimental.get_device_details(device).get("device_name", "")
        found.append(f"{device.name.removeprefix('/physical_device:')} {model}".strip())
    return found


def _flags() -> list[str]:
    found = re.search(r"(?m)^(?:flags|Features)\s*: (.*)$", _cpuinfo())
    own = set(found[1].split()) if found else set()
    return [name for name in FLAGS if name in own]


def _processor() -> str:
    found = re.search(r"(?m)^model name\s*: (.*)$", _cpuinfo())
    return found[1] if found else platform.processor() or platform.machine()


def _cpuinfo() -> str:
    try:
        return CPUINFO.read_text("utf-8")
    except OSError:
        return ""


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _caches() -> dict[str, str]:
    """Size of each level, of a core; no instruction cache, and nothing where the system does not say."""
    found = {}
    for folder in sorted(CACHES.glob("index*")):
        try:
            level, kind, size = ((folder / name).read_text("utf-8").strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction":
            found[f"L{level}"] = size
    return found
