"""Labelled images and what a model made of them: counts of all, and the choice of the rows that a page shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xcli.analysis.pairing import NO_LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from xcli.evaluation.metrics import Calibration, ClassFigures

MAX_ROWS = 20_000
"""Rows of which a page shows as many as have room."""

MOST_CERTAIN = 240
"""Mistakes that come first among these rows, those with the highest scores."""


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of a confusion matrix that are not empty, m of them.

    Attributes:
        true, predicted: int64[m], numbers of classes; `predicted` may be `NO_LABEL`.
        counts: int64[m], images.
    """

    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, true: NDArray[np.int32], predicted: NDArray[np.int32], classes: int) -> Cells:
        """Counts the images of each cell."""
        import numpy as np

        codes, counts = np.unique(_codes(true, predicted, classes), return_counts=True)
        return cls(codes // (classes + 1), codes % (classes + 1) - 1, counts)

    def sums(self, classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Returns the images of each class that are rightly predicted, true, and predicted, each int64[classes]."""
        import numpy as np

        def total(numbers: NDArray[np.int64], which: NDArray[np.bool_]) -> NDArray[np.int64]:
            # Weights are floats, in which counts below 2^53 are exact.
            return np.bincount(numbers[which], self.counts[which], minlength=classes).astype(np.int64)

        all_cells = np.ones(len(self.counts), bool)
        right = total(self.true, self.true == self.predicted)
        return right, total(self.true, all_cells), total(self.predicted, self.predicted != NO_LABEL)


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The outcomes for n labelled images that could be read, among C classes.

    Attributes:
        names: of the classes; several may have the same.
        true, predicted: int32[n], numbers of the true and the predicted class; `NO_LABEL` where none was predicted.
        scores: float32[n], of the predicted classes; NaN where there is none.
        rows: int64[n], rising, the numbers of the rows in their table.
        paths: gives the paths of rows, by their rising numbers.
        cells: of the confusion matrix.
        figures: of the classes.
        top1, top5: share of the images; None where it is not known.
        ece: expected calibration error; None where there are no images, or the scores are no probabilities.
        calibration: its intervals; None where there is no error.
        errors: images that could not be read.
        without_label: rows that have no label.
        without_row: labels that have no row.
        notes: sentences about what the figures leave out.
    """

    names: tuple[str, ...]
    true: NDArray[np.int32]
    predicted: NDArray[np.int32]
    scores: NDArray[np.float32]
    rows: NDArray[np.int64]
    paths: Callable[[NDArray[np.int64]], Iterator[str]]
    cells: Cells
    figures: ClassFigures
    top1: float | None
    top5: float | None
    ece: float | None
    calibration: Calibration | None
    errors: Counter[str] = field(default_factory=Counter)
    without_label: int = 0
    without_row: int = 0
    notes: tuple[str, ...] = ()

    @property
    def right(self) -> NDArray[np.bool_]:
        right: NDArray[np.bool_] = self.true == self.predicted
        return right


def chosen_rows(outcomes: Outcomes, most: int) -> NDArray[np.int64]:
    """Returns the places of the rows to show, those first that deserve a thumbnail most.

    First come the surest mistakes; then of each cell of the confusion matrix the surest image, the least sure, the
    second surest, and so on, up to `most` of each; of one rank mistakes before what is right, and large cells first.
    """
    import numpy as np

    n = len(outcomes.true)
    scores = np.nan_to_num(outcomes.scores, nan=-np.inf)
    codes = _codes(outcomes.true, outcomes.predicted, len(outcomes.names))
    # Of rows with the same score, the first ones of the table come first.
    order = np.lexsort((np.arange(n), -scores, codes))
    _, first, counts = np.unique(codes[order], return_index=True, return_counts=True)
    size = np.repeat(counts, counts)
    place = np.arange(n) - np.repeat(first, counts)
    rank = np.minimum(2 * place, 2 * (size - 1 - place) + 1)
    near = np.flatnonzero(rank < 2 * most)
    near = near[np.lexsort((order[near], -size[near], outcomes.right[order[near]], rank[near]))][:MAX_ROWS]
    wrong = np.flatnonzero(~outcomes.right & (outcomes.predicted != NO_LABEL))
    surest = wrong[np.argsort(-scores[wrong], kind="stable")[:MOST_CERTAIN]]
    chosen = np.concatenate([surest, order[near]])
    _, earliest = np.unique(chosen, return_index=True)
    found: NDArray[np.int64] = chosen[np.sort(earliest)][:MAX_ROWS]
    return found


def _codes(true: NDArray[np.int32], predicted: NDArray[np.int32], classes: int) -> NDArray[np.int64]:
    """Returns a number for each pair of classes; `NO_LABEL` counts as one."""
    import numpy as np

    return true.astype(np.int64) * (classes + 1) + predicted + 1
