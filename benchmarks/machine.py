"""What the figures were measured on: the machine, and the versions of everything that took part."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from xcli.core.errors import UsageError
from xcli.core.process import cpu_flags, processor_count
from xcli.core.tensorflow import choose_precision

INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
PACKAGES = (
    "xception-cli",
    "tensorflow",
    "keras",
    "numpy",
    "pillow",
    "pyarrow",
    "openvino",
    "torch",
    "torchvision",
    "timm",
    "pyvips",
    "pyvips-binary",
)


def machine() -> dict[str, Any]:
    """The machine, as far as the figures depend on it; memory in GiB, `load` is the load average before the start."""
    return {
        "processor": processor(),
        "cores": processor_count(),
        "instruction_sets": {name: name in cpu_flags() for name in INSTRUCTION_SETS},
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load": round(os.getloadavg()[0], 2),
    }


def processor() -> str:
    """Name of the processor, as Linux or else Python knows it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            for line in info:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def versions() -> dict[str, str | None]:
    """Versions of the packages involved; None for those that are not installed."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def installed(*modules: str) -> bool:
    """Whether all of these modules are there, without importing them."""
    return all(find_spec(module) is not None for module in modules)


def precisions() -> tuple[str, ...]:
    """The precisions that this processor computes in at full speed, float32 first."""
    try:
        return ("float32", choose_precision("bfloat16", "/CPU:0"))
    except UsageError:  # it has no instructions for it
        return ("float32",)
