"""The one import of OpenVINO, and what its errors say."""

from __future__ import annotations

import re
import sys
from functools import cache
from importlib.util import find_spec
from typing import Any

from xcli.core.errors import UsageError
from xcli.core.process import silent_libraries
from xcli.core.shortage import raise_shortage
from xcli.core.text import short_text

PACKAGE = "openvino"

_REPORTING = "openvino.tools.ovc"
_FAULT = re.compile(r"(?:No conversion rule found for operations|Conversion is failed for): *(.+)")


def require_openvino(needed_by: str = "--engine openvino") -> None:
    """Raises UsageError, which says what needs it, if OpenVINO is not installed; does not import it."""
    if find_spec(PACKAGE) is None:
        raise UsageError(f"{needed_by} needs OpenVINO; install it with: pip install 'xception-cli[openvino]'")


@cache
def load_openvino() -> Any:
    """Imports OpenVINO, but not its converter, which reports its use to the maker when it is imported.

    Raises:
        UsageError: it is not installed, or its libraries cannot be loaded.
    """
    require_openvino()
    hidden = _REPORTING not in sys.modules
    if hidden:
        sys.modules[_REPORTING] = None  # type: ignore[assignment]
    try:
        with silent_libraries():
            import openvino
    except ImportError as error:
        raise_shortage(error)
        raise UsageError(
            f"OpenVINO cannot be loaded ({short_text(error)}); install it again, or use --engine tensorflow"
        ) from error
    finally:
        if hidden:
            del sys.modules[_REPORTING]
    return openvino


def openvino_reason(error: Exception) -> str:
    """Returns what OpenVINO says in many lines: which operations it does not know, else its last line."""
    text = str(error)
    if found := _FAULT.findall(text):
        return short_text(f"it does not know {found[-1].strip()}")
    lines = [line for line in text.splitlines() if line.strip()]
    return short_text(lines[-1] if lines else type(error).__name__)
