"""What the parts of a page have in common. The files of a part are `NAME.html`, `NAME.js` and perhaps `NAME.css` in
`page_files`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Sequence

    from xcli.reports.evaluation_files import EvaluationFiles
    from xcli.reports.thumbnails import Thumbnails
    from xcli.tables.base import TableReader


class Part(Protocol):
    """A part of a page; one or more make a page.

    Attributes:
        name: of its files, and of its data in the script (`page.data.NAME`).
        data: what its script shows; texts in it may be anything.
    """

    name: str
    data: dict[str, Any]

    def paths(self) -> Sequence[str]:
        """Returns the paths of the images that it shows, those first that deserve a thumbnail most."""

    def attach(self, thumbnails: Thumbnails) -> None:
        """Puts into the data which thumbnail (`Thumbnails.of`) each image has."""

    def facts(self) -> dict[str, Any]:
        """Returns what its template shows, which has it as `part`."""


class Names:
    """Labels, each once, by number.

    Attributes:
        all: the labels, in the order of their numbers; the empty one stands for no class.
    """

    def __init__(self) -> None:
        self.all: list[str] = []
        self._numbers: dict[str, int] = {}

    def of(self, label: str | None) -> int:
        """Returns the number of a label, which is a new one if the label is."""
        number = self._numbers.setdefault(label or "", len(self.all))
        if number == len(self.all):
            self.all.append(label or "")
        return number


class ErrorsPart:
    """The error rows of a table.

    Args:
        reasons: number of error rows, by reason.
        rows: path and error of some of them.
    """

    name = "errors"

    def __init__(self, reasons: Counter[str], rows: Iterable[Sequence[str]]) -> None:
        self._reasons = reasons.most_common()
        self.data: dict[str, Any] = {"rows": list(rows), "total": reasons.total()}

    def paths(self) -> Sequence[str]:
        return ()

    def attach(self, thumbnails: Thumbnails) -> None:
        """An image that could not be read has no thumbnail."""

    def facts(self) -> dict[str, Any]:
        return {"reasons": self._reasons}


def source_facts(source: TableReader | EvaluationFiles) -> dict[str, Any]:
    """Returns what the head and the foot of a page tell of a table: its name, and how it was made or None."""
    made = {**(source.provenance or {}), **(source.meta or {})}
    model, tool = (made.get(name) or {} for name in ("model", "tool"))
    return {
        "title": os.path.basename(source.name.rstrip("/")) or source.name,
        "model": model.get("name"),
        "precision": made.get("precision"),
        "device": made.get("device"),
        "finished": str(made.get("finished") or "").replace("T", " ").replace("+00:00", " UTC"),
        "tool": tool.get("version"),
    }


def seconds_and_rate(reader: TableReader, rows: int) -> tuple[float | None, float | None]:
    """Returns how long a table of so many rows took, and the images a second; None where the table does not tell."""
    made = {**(reader.provenance or {}), **(reader.meta or {})}
    seconds = made.get("seconds")
    # Rows of an earlier run took none of the time.
    computed = rows - int((made.get("images") or {}).get("resumed") or 0)
    if isinstance(seconds, int | float) and seconds > 0 and computed > 0:
        return seconds, computed / seconds
    return None, None
