"""The version of this package, said once, and those of what it depends on."""

from __future__ import annotations

import sys

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that results depend on, without importing them."""
    from importlib.metadata import version

    names = ("tensorflow", "keras", "numpy", "pillow", "pyarrow")
    return {"python": sys.version.split()[0], **{name: version(name) for name in names}}
