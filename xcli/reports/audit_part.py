"""The part of a page for an audit, and the page: each finding with its image, and the image it is compared with."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from xcli.core.finding_kinds import KINDS
from xcli.core.text import one_line
from xcli.reports.page import embedded_json, page, thumbnail_room
from xcli.reports.parts import Names, source_facts
from xcli.reports.thumbnails import Thumbnails, make_thumbnails
from xcli.storage.atomic import published

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xcli.analysis.audit import Audit
    from xcli.reports.options import ReportOptions
    from xcli.tables.base import TableReader

MOST_SHOWN = 200
"""Findings of a kind that are on the page: the worst."""

_MARKUP_BYTES = 60_000  # room for the templates, the scripts and the style
_ROWS_SHARE = 0.3  # of the page, that texts may take

ABOUT = {
    "unreadable": "Training leaves these out.",
    "wrong-label": "Beside it the image of the suggested class that is most like it.",
    "copy-across-classes": "One image, or one thing, under two labels: at least one of them is wrong.",
    "copy-across-splits": "What was learned by heart passes for knowledge: figures on the other split are too good.",
    "copy-in-class": "Counts twice in training.",
    "outlier": "Unlike all others: perhaps it does not belong here. Beside it the image that is nearest.",
    "blank": "Nearly one colour.",
    "blurred": "Nothing in it is sharp, even at the size that the network sees.",
    "dark": "Underexposed.",
    "bright": "Overexposed.",
    "tiny": "Smaller than what the network sees.",
    "odd-shape": "So long that the usual crop loses most of it.",
    "small-class": "Few images to learn from.",
}
"""What a page says of each kind of finding."""


class AuditPart:
    """What a page shows of an audit.

    Args:
        audit: with all its findings, in their order.
        room: bytes that the data may take, nearly.
    """

    name = "audit"

    def __init__(self, audit: Audit, room: int) -> None:
        self._audit = audit
        images = audit.images
        self._places = {} if images.refs is None else {path: images.place(at) for at, path in enumerate(images.paths)}
        names, counts, rows = Names(), Counter[str](), list[list[Any]]()
        for one in audit.findings:
            counts[one.issue] += 1
            if counts[one.issue] > MOST_SHOWN:
                continue
            texts = [one.path or "", names.of(one.label), round(one.severity, 3), one.detail, one.suggested or ""]
            row = [KINDS.index(one.issue), *texts, one.related or ""]
            room -= len(embedded_json(row)) + 12
            if room < 0:
                break
            rows.append(row)
        self._counts = audit.counts()
        kinds = [[kind, self._counts.get(kind, 0), ABOUT[kind]] for kind in KINDS]
        self.data: dict[str, Any] = {"kinds": kinds, "rows": rows, "names": names.all}

    def paths(self) -> Sequence[str]:
        found = (self._place(path) for row in self.data["rows"] for path in (row[1], row[6]) if path)
        return [*dict.fromkeys(found)]

    def attach(self, thumbnails: Thumbnails) -> None:
        for row in self.data["rows"]:
            row += [thumbnails.of(self._place(path)) if path else None for path in (row[1], row[6])]

    def facts(self) -> dict[str, Any]:
        audit = self._audit
        return {
            "skip": "findings",
            "images": len(audit.images),
            "classes": len(audit.images.names),
            "findings": len(audit.findings),
            "shown": len(self.data["rows"]),
            "kinds": self._counts,
            "most": MOST_SHOWN,
            "unchecked": [(one_line(reason), ", ".join(kinds)) for reason, kinds in audit.unchecked],
            "remarks": [one_line(text) for text in audit.remarks],
        }

    def _place(self, path: str) -> str:
        return self._places.get(path, path)


def write_audit_page(
    audit: Audit,
    title: str,
    reader: TableReader,
    target: str,
    options: ReportOptions,
    *,
    overwrite: bool,
    progress: Callable[[int, int], object] = lambda images, failed: None,
) -> Thumbnails:
    """Writes the page of an audit, whole or not at all, and returns the thumbnails in it.

    Args:
        audit: what the page shows.
        title: names the data.
        reader: of the table of features, for its provenance.
        progress: see `make_thumbnails`.

    Raises:
        OutputError: the page cannot be written.
    """
    with published(target, overwrite) as file:
        part = AuditPart(audit, int(options.max_size * 1_000_000 * _ROWS_SHARE))
        paths = part.paths()
        room = thumbnail_room(options.max_size, _MARKUP_BYTES, [part], len(paths))
        thumbnails = make_thumbnails(paths, room, options.images, options.workers, progress)
        part.attach(thumbnails)
        name = os.path.basename(title.rstrip("/")) or title
        facts = {"max_size": options.max_size, **source_facts(reader), "title": one_line(name)}
        file.stream.write(page([part], thumbnails, facts))
    return thumbnails
