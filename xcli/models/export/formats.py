"""The formats that a model can be exported in; adding one is adding its file here."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from xcli.core.errors import UsageError
from xcli.models.export.litert import LITERT
from xcli.models.export.onnx import ONNX
from xcli.models.export.openvino import OPENVINO
from xcli.models.export.savedmodel import SAVEDMODEL

if TYPE_CHECKING:
    from xcli.models.export.format import ExportFormat

FORMATS = {one.name: one for one in (SAVEDMODEL, ONNX, OPENVINO, LITERT)}

PRECISIONS = tuple(dict.fromkeys(precision for one in FORMATS.values() for precision in one.tolerances))


def choose_format(name: str, precision: str) -> ExportFormat:
    """Returns a format that can be written here in a precision; imports none of its packages.

    Raises:
        UsageError: there is no such format, it has no such precision, or a package that it needs is missing.
    """
    if name not in FORMATS:
        raise UsageError(f"--format takes one of {', '.join(FORMATS)}; received {name!r}")
    chosen = FORMATS[name]
    if precision not in chosen.tolerances:
        raise UsageError(
            f"--precision takes one of {', '.join(chosen.tolerances)} for --format {name}; received {precision}"
        )
    missing = [package for package in chosen.packages if find_spec(package) is None]
    if missing:
        raise UsageError(
            f"--format {name} needs {', '.join(missing)}; install it with: pip install 'xception-cli[{chosen.extra}]'"
        )
    return chosen
