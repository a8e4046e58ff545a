"""Copies that two collections share, such as images for training and images for tests: each with the most similar one.

Memory is bounded by the numbers of rows, whatever the number of pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xcli.analysis.nearest import SLACK, bands, pairs_of_band

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from xcli.analysis.duplicates import WhitenedRows
    from xcli.analysis.nearest import Pairs


class SharedCopies:
    """For each row of two collections that were whitened alike, the most similar row of the other one.

    Of rows that are equally similar it is the first.

    Attributes:
        row: two int64[n], numbers of rows of the other collection; -1 for rows that have no copy there.
        similarity: two float64[n], 0 for such rows.
    """

    def __init__(self, one: WhitenedRows, other: WhitenedRows) -> None:
        import numpy as np

        self._sides = one, other
        self.row = [np.full(len(side), -1) for side in self._sides]
        self.similarity = [np.zeros(len(side)) for side in self._sides]
        for side, there, row, similarity in zip(self._sides, (other, one), self.row, self.similarity, strict=True):
            equal = _first_equal(side.digests, there.digests)
            row[equal >= 0], similarity[equal >= 0] = equal[equal >= 0], 1

    @property
    def state(self) -> NDArray[np.int64]:
        """All that is known, in one array."""
        import numpy as np

        return np.concatenate([*self.row, *(one.view(np.int64) for one in self.similarity)])

    @state.setter
    def state(self, state: NDArray[np.int64]) -> None:
        import numpy as np

        sizes = [len(side) for side in self._sides]
        parts = np.split(state.copy(), np.cumsum([*sizes, *sizes])[:-1])
        self.row, self.similarity = parts[:2], [one.view(np.float64) for one in parts[2:]]

    def snapshot(self) -> Callable[[], NDArray[np.int64]]:
        """Returns what returns the state as it is now."""
        state = self.state
        return lambda: state

    def bands(self) -> int:
        """Returns how many bands there are."""
        return bands(len(self._sides[0]))

    def compare(self, threshold: float, band: int = 0) -> Iterator[int]:
        """Compares all rows with all of the other collection, band by band from one on, and yields each's number."""
        one, other = self._sides
        for number in range(band, self.bands()):
            for pairs in pairs_of_band(one.values, number, threshold, other.values, wanted=self._wanted):
                self.add(pairs)
            yield number

    def spread(self) -> None:
        """Lets rows that repeat an earlier one have what that one has; when all rows were compared."""
        for side, row, similarity in zip(self._sides, self.row, self.similarity, strict=True):
            row[:], similarity[:] = row[side.same], similarity[side.same]

    def _wanted(
        self, first: NDArray[np.int64], second: NDArray[np.int64], about: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        mine, theirs = self.similarity[0][first], self.similarity[1][second]
        # What is as similar as a row that is known comes later, and so is not better.
        found: NDArray[np.bool_] = (about > mine - SLACK) & (mine < 1) | (about > theirs - SLACK) & (theirs < 1)
        return found

    def add(self, pairs: Pairs) -> None:
        """Takes pairs that were compared."""
        import numpy as np

        for rows, there, row, similarity in (
            (pairs.first, pairs.second, self.row[0], self.similarity[0]),
            (pairs.second, pairs.first, self.row[1], self.similarity[1]),
        ):
            order = np.lexsort((there, -pairs.similarity, rows))
            own, at = np.unique(rows[order], return_index=True)
            best = order[at]
            better = pairs.similarity[best] > similarity[own]
            row[own[better]], similarity[own[better]] = there[best[better]], pairs.similarity[best[better]]


def _first_equal(digests: NDArray[np.void], there: NDArray[np.void]) -> NDArray[np.int64]:
    """Returns for each digest the first place of an equal one there, or -1."""
    import numpy as np

    if not len(there):
        return np.full(len(digests), -1)
    known, first = np.unique(there, return_index=True)
    place = np.minimum(np.searchsorted(known, digests), len(known) - 1)
    empty = digests == np.void(bytes(digests.itemsize))
    return np.where((known[place] == digests) & ~empty, first[place], -1)
