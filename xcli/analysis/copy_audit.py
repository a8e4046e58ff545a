"""Copies within a data set: few and true ones, with a look at the pixels where the features are not sure.

Images of one kind have features that are as similar as those of an image and its cropped copy. So only what is very
similar is taken for a copy, or for the same thing photographed again, by its features alone; of what is less similar,
the pixels have to agree. Of 3,409 photographs of clothes this finds one that lies under two labels, one that is there
twice, and a thing that was photographed twice; by features alone the second of these is one of nine pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xcli.analysis.duplicates import find_pairs, group_rows, linked_rows
from xcli.analysis.pixel_check import MIN_AGREEMENT
from xcli.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from xcli.analysis.duplicates import WhitenedRows

    Look = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]

SURE = 0.65
"""Whitened cosine from which images are copies, or show the same thing, whatever their pixels."""

SURE_OF_FEW, FEW = 0.95, 1_000
"""The same where there are fewer images than that: of few, it is not known well in what images usually differ."""

CANDIDATE = 0.4
"""Whitened cosine from which the pixels are looked at."""

MAX_LOOKS = 100_000
"""Pairs whose pixels are looked at; a hundred take a few seconds."""


@dataclass(frozen=True, eq=False)
class Copies:
    """Which of n rows are copies.

    Attributes:
        kept: int64[n], the row of which each is a copy; the row itself if of none.
        similarity: float32[n], with that row.
        agreement: float32[n], of the pixels with those of that row; NaN where they were not looked at.
        looked: whether all candidates were looked at.
    """

    kept: NDArray[np.int64]
    similarity: NDArray[np.float32]
    agreement: NDArray[np.float32]
    looked: bool

    def severity(self, row: int) -> float:
        """Returns how sure it is that a row is a copy, from 0 to 1."""
        agreement, similarity = float(self.agreement[row]), float(self.similarity[row])
        share = (
            (similarity - SURE) / (1 - SURE)
            if agreement != agreement
            else (agreement - MIN_AGREEMENT) / (1 - MIN_AGREEMENT)
        )
        return min(1.0, max(0.0, share))

    def detail(self, row: int) -> str:
        """Returns how similar a row is to that of which it is a copy."""
        agreement, similarity = float(self.agreement[row]), float(self.similarity[row])
        return f"similarity {similarity:.2f}" + ("" if agreement != agreement else f", pixels agree by {agreement:.2f}")


def find_copies(
    whitened: WhitenedRows, usable: NDArray[np.bool_], order: NDArray[np.int64], look: Look | None
) -> Copies:
    """Finds copies.

    Args:
        whitened: the rows.
        usable: bool[n], which of them count.
        order: int64[n], the rows from that which is kept first to the last.
        look: returns how far the pixels of pairs of rows agree, NaN where that is unknown; None is not to look.
    """
    import numpy as np

    # What does not count comes last, so that it is kept for nothing that counts.
    order = np.concatenate([order[usable[order]], order[~usable[order]]])
    sure = SURE if int(usable.sum()) >= FEW else SURE_OF_FEW
    groups = group_rows(whitened, linked_rows(whitened, sure), sure, order)
    kept, similarity = groups.kept.copy(), groups.similarity.copy()
    kept[~usable] = np.flatnonzero(~usable)
    agreement = np.full(len(kept), np.nan, np.float32)
    is_first = usable & (kept == np.arange(len(kept)))
    compared = np.zeros(len(kept), bool)
    compared[whitened.same[is_first]] = True  # a row that repeats an earlier one has its vector there
    whitened.values[~compared] = 0
    if look is None:
        return Copies(kept, similarity, agreement, looked=False)
    try:
        pairs = find_pairs(whitened, CANDIDATE, most=MAX_LOOKS)
    except UsageError:  # there are more
        return Copies(kept, similarity, agreement, looked=False)
    both = is_first[pairs.first] & is_first[pairs.second]
    first, second, alike = pairs.first[both], pairs.second[both], pairs.similarity[both]
    agree = look(first, second) if len(first) else np.zeros(0, np.float32)
    rank = np.empty(len(kept), np.int64)
    rank[order] = np.arange(len(kept))
    found = np.flatnonzero(agree >= MIN_AGREEMENT)
    swap = rank[first] > rank[second]
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    # In the order of what is kept, so that each row is a copy of one that is kept.
    for pair in found[np.lexsort((rank[second[found]], rank[first[found]]))].tolist():
        one, other = first[pair], second[pair]
        if kept[one] == one and kept[other] == other:
            kept[other], similarity[other], agreement[other] = one, alike[pair], agree[pair]
    return Copies(kept, similarity, agreement, looked=True)
