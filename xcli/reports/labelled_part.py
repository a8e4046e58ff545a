"""The part of a page for labelled images: confusion matrix, figures by class, reliability, mistakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xcli.analysis.pairing import NO_LABEL
from xcli.reports.outcomes import Outcomes, chosen_rows
from xcli.reports.page import embedded_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xcli.reports.thumbnails import Thumbnails

MAX_CELLS = 100_000
"""Cells of the confusion matrix in a page, the largest ones; all are counted."""


class LabelledPart:
    """What a page shows of labelled images and their predictions.

    Args:
        outcomes: what the model made of them.
        top_images: rows of each cell of the confusion matrix that are shown for being the surest, and as many for being
            the least sure.
        room: bytes that the data may take, nearly.
        is_first: whether no other part is before it.
        about: `split`, the part of the data that the images are, or ""; `test`, figures of the test part, or None.

    Attributes:
        shown: paths of the rows that the page shows.
    """

    name = "labelled"

    def __init__(
        self, outcomes: Outcomes, top_images: int, room: int, *, is_first: bool, about: Mapping[str, Any] | None = None
    ) -> None:
        self._outcomes, self._top_images, self._is_first = outcomes, top_images, is_first
        self._about = {"split": "", "test": None, **(about or {})}
        self.shown: list[str] = []
        self.data = self._data(room)

    def _data(self, room: int) -> dict[str, Any]:
        import numpy as np

        outcomes, cells = self._outcomes, self._outcomes.cells
        figures, guessed = outcomes.figures, cells.sums(len(outcomes.names))[2]
        occurring = np.flatnonzero(figures.support + guessed)
        number = np.full(len(outcomes.names) + 1, NO_LABEL)  # of a class on the page; the last one is that of none
        number[occurring] = np.arange(len(occurring))
        largest = np.argsort(-cells.counts, kind="stable")[:MAX_CELLS]
        columns = (number[cells.true[largest]], number[cells.predicted[largest]], cells.counts[largest])
        by_class = (figures.support, guessed, figures.precision, figures.recall, figures.f1)
        data: dict[str, Any] = {
            "isFirst": self._is_first,
            "names": [outcomes.names[index] for index in occurring.tolist()],
            "classes": np.stack([np.round(column[occurring], 4) for column in by_class], axis=1).tolist(),
            "cells": np.stack(columns, axis=1).tolist(),
            "allCells": len(cells.counts),
            "bins": self._bins(),
            "rows": [],
        }
        self._add_rows(data, number, room - len(embedded_json(data)))
        return data

    def _bins(self) -> list[list[float]] | None:
        """Returns for each interval of the score the number of images, their mean score, and their accuracy."""
        import numpy as np

        bins = self._outcomes.calibration
        if bins is None:
            return None
        most = np.maximum(bins.counts, 1)
        columns = (bins.counts, np.round(bins.confidence / most, 4), np.round(bins.right / most, 4))
        return [list(one) for one in zip(*(column.tolist() for column in columns), strict=True)]

    def _add_rows(self, data: dict[str, Any], number: Any, left: int) -> None:
        import numpy as np

        outcomes = self._outcomes
        chosen = chosen_rows(outcomes, self._top_images)
        order = np.sort(outcomes.rows[chosen])
        paths = dict(zip(order.tolist(), outcomes.paths(order), strict=True))
        for place in chosen.tolist():
            score = float(outcomes.scores[place])
            path = paths[int(outcomes.rows[place])]
            true, predicted = (int(number[one[place]]) for one in (outcomes.true, outcomes.predicted))
            value = [path, true, predicted, None if score != score else round(score, 5)]
            left -= len(embedded_json(value)) + 1
            if left < 0:
                break
            data["rows"].append(value)
            self.shown.append(path)

    def paths(self) -> Sequence[str]:
        return self.shown

    def attach(self, thumbnails: Thumbnails) -> None:
        for value, path in zip(self.data["rows"], self.shown, strict=True):
            value.append(thumbnails.of(path))

    def facts(self) -> dict[str, Any]:
        outcomes, figures = self._outcomes, self._outcomes.figures
        n = len(outcomes.true)
        return {
            **self._about,
            "is_first": self._is_first,
            "n": n,
            "mistakes": int(outcomes.cells.counts[outcomes.cells.true != outcomes.cells.predicted].sum()),
            "classes": len(self.data["names"]),
            "absent": len(outcomes.names) - len(self.data["names"]),
            "top1": outcomes.top1,
            "top5": outcomes.top5 if len(outcomes.names) > 5 else None,
            "ece": outcomes.ece,
            "bins": len(self.data["bins"] or ()),
            "macro": figures.macro,
            "weighted": figures.weighted,
            "errors": outcomes.errors.total(),
            "without_label": outcomes.without_label,
            "without_row": outcomes.without_row,
            "notes": outcomes.notes,
            "shown": len(self.shown),
            "top_images": self._top_images,
        }
