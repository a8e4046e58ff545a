"""The version of this package, said once, and those of what it depends on."""

from __future__ import annotations

import os
import sys

__version__ = "0.1.0"


_VARIABLES = """
    TF_ENABLE_ONEDNN_OPTS TF_XLA_FLAGS XLA_FLAGS ONEDNN_MAX_CPU_ISA DNNL_MAX_CPU_ISA ONEDNN_DEFAULT_FPMATH_MODE
    TF_SET_ONEDNN_FPMATH_MODE TF_DETERMINISTIC_OPS TF_CUDNN_DETERMINISTIC TF_CUDNN_USE_AUTOTUNE NVIDIA_TF32_OVERRIDE
""".split()
"""Environment variables by which TensorFlow and its libraries compute otherwise.

Those for the number of threads (OMP_NUM_THREADS, TF_NUM_INTRAOP_THREADS) do not change a bit of a table.
"""


def environment() -> dict[str, dict[str, str]]:
    """Returns the variables that change results and are set, as the provenance's member `environment`; or nothing."""
    found = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    return {"environment": found} if found else {}


def versions(*more: str) -> dict[str, str]:
    """Returns the versions of Python and of the packages that results depend on, and `more`, without importing them."""
    from importlib.metadata import version

    names = ("tensorflow", "keras", "numpy", "pillow", "pyarrow", *more)
    return {"python": sys.version.split()[0], **{name: version(name) for name in names}}
