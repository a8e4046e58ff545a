"""What a format is: how it is written, how its own runtime loads it, and how near to this program it has to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xcli.models.export.traced import TracedModel

Run = Callable[[Any], Any]
"""From uint8[b, size, size, 3], for any b, to float32[b, ...]."""


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """A format.

    Attributes:
        name: for `--format`.
        file: what the runtime loads, in the directory of the export.
        runtime: name of the package that runs it.
        packages: those that writing and running it need, beside those that every installation has.
        extra: the extra that brings these.
        tolerances: the precisions that it has, and the greatest difference of scores, or of features relative to the
            greatest of them, that is accepted from this program in float32.
        write: writes a traced model below a directory, in a precision.
        load: loads `file`, given its path and the name of its output, in the runtime.
        usage: code that computes `{output}`, float32[b, ...], of `pixels`.
        computes: whether the precision is that of the arithmetic; else it is that of the weights in the file.
    """

    name: str
    file: str
    runtime: str
    packages: tuple[str, ...]
    extra: str | None
    tolerances: Mapping[str, float]
    write: Callable[[TracedModel, str, str], None]
    load: Callable[[str, str], Run]
    usage: str
    computes: bool = False
