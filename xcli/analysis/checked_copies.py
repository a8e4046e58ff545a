"""Copies by a second look: pairs that may be copies by their features, of which the pixels decide.

The similarity from which pairs are looked at is lower than that of copies, so that more are found, and of those found
more are right. Of a row no more than its `MOST` most similar ones below that of copies are looked at, so that their
number grows with the rows and not with the square of these. Where an image cannot be read, or there is too little to
see on it, the features decide.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from xcli.analysis.approximate import pairs_of_lists
from xcli.analysis.compared_bands import SECONDS
from xcli.analysis.duplicates import MAX_PAIRS
from xcli.analysis.nearest import Pairs, bands, joined, pairs_of_band
from xcli.analysis.pixel_check import MIN_AGREEMENT, NOT_YET, check_pixels
from xcli.analysis.shared_copies import SharedCopies
from xcli.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from xcli.analysis.approximate import RowLists
    from xcli.analysis.duplicates import WhitenedRows
    from xcli.core.errors import ImageError

LOWER = 0.3
"""By how much the similarity of pairs that are looked at is lower than that of copies."""

MOST = 8
"""Rows for each row that are looked at although they are less similar than copies."""

_ROOM = 1_000_000  # pairs, from which those are dropped that will not be looked at


class CheckedPairs:
    """Pairs of rows of one collection, or of two, and what their pixels say.

    Attributes:
        pairs: in the order of their first rows; rows of the second collection have numbers of their own.
        agreement: float64[p], as of `check_pixels`, 1 for equal vectors; `NOT_YET` where it has not been asked.
        unreadable: why images could not be read, by their paths.
    """

    def __init__(self, sides: Sequence[WhitenedRows], threshold: float, lists: RowLists | None = None) -> None:
        import numpy as np

        self._sides, self._threshold, self._lists = sides, threshold, lists
        self._offset = len(sides[0]) if sides[1:] else 0  # of the numbers of the second collection among all
        self._waiting, self._count = list[Pairs](), 0  # pairs of bands that are to be joined with the others
        self.pairs = joined([])
        self.agreement = np.zeros(0)
        self.unreadable: dict[str, ImageError] = {}

    @property
    def state(self) -> NDArray[np.int64]:
        """All that is known, in one array."""
        return self.snapshot()()

    @state.setter
    def state(self, state: NDArray[np.int64]) -> None:
        import numpy as np

        first, second, similarity, agreement = state.copy().reshape(4, -1)
        self.pairs = Pairs(first, second, similarity.view(np.float64).astype(np.float32))
        self.agreement = agreement.view(np.float64)
        if (self.agreement == NOT_YET).all():  # there may be pairs that were waiting
            self._waiting, self.pairs = [self.pairs], joined([])
            self._settle()

    def snapshot(self) -> Callable[[], NDArray[np.int64]]:
        """Returns what returns the state as it is now; until that is asked for, nothing is copied."""
        import numpy as np

        parts, agreement = [self.pairs, *self._waiting], None if self._waiting else self.agreement

        def state() -> NDArray[np.int64]:
            first, second, similarity = (np.concatenate(one) for one in zip(*parts, strict=True))
            agree = np.full(len(first), float(NOT_YET)) if agreement is None else agreement
            numbers = (one.view(np.int64) for one in (similarity.astype(np.float64), agree))
            return np.concatenate([first, second, *numbers])

        return state

    def compare(self, band: int = 0) -> Iterator[int]:
        """Finds the pairs, band by band from one on, and yields the number of each.

        Raises:
            UsageError: there are too many.
        """
        least = max(self._threshold - LOWER, 0.05)
        values = self._sides[0].values
        for number in range(band, bands(len(values)) if self._lists is None else self._lists.bands):
            if self._lists is not None:
                self._add(pairs_of_lists(values, self._lists, number, least))
            else:
                other = self._sides[1].values if self._sides[1:] else None
                self._add(pairs_of_band(values, number, least, other))
            yield number
        self._settle()

    def _add(self, found: Iterator[Pairs]) -> None:
        """Takes the pairs of a band, all at once; they are sorted when they are as many as the others."""
        waiting, count = list[Pairs](), 0
        for pairs in found:
            waiting.append(pairs)
            count += len(pairs.first)
            if count > _ROOM:
                waiting, count = [self._worth_a_look(joined(waiting))], 0
        own = self._worth_a_look(joined(waiting))
        self._waiting.append(own)
        self._count += len(own.first)
        if self._count > max(_ROOM, len(self.pairs.first)):
            self._settle()

    def _settle(self) -> None:
        import numpy as np

        if not self._waiting:
            return
        self.pairs = self._worth_a_look(joined([self.pairs, *self._waiting]))
        self._waiting, self._count = [], 0
        mine, theirs = self._sides[0].digests, self._sides[-1].digests
        self.agreement = np.where(mine[self.pairs.first] == theirs[self.pairs.second], 1.0, NOT_YET)

    def _worth_a_look(self, pairs: Pairs) -> Pairs:
        import numpy as np

        low = np.flatnonzero(pairs.similarity < self._threshold)
        rows = np.concatenate([pairs.first[low], pairs.second[low] + self._offset])
        place = np.tile(low, 2)
        order = np.lexsort((place, -pairs.similarity[place], rows))
        rank = np.arange(len(rows)) - np.searchsorted(rows[order], rows[order])
        kept = pairs.similarity >= self._threshold
        kept[place[order][rank < MOST]] = True
        found = _some(pairs, kept)
        if len(found.first) > MAX_PAIRS:
            raise UsageError(f"more than {MAX_PAIRS:,} pairs may be copies: give a higher threshold than it is now")
        return found

    def check(
        self,
        paths: Callable[[NDArray[np.int64]], list[str]],
        images: str | None,
        progress: Callable[[str, int, int], object],
        keep: Callable[[], object],
    ) -> None:
        """Looks at the pairs that are left.

        Args:
            paths: returns the paths of rows, those of a second collection after all of the first.
            images: the directory in which the images are, if it is not where their paths say.
            progress: as of `check_pixels`.
            keep: called now and then, and when this ends or is interrupted, so that what is known is not lost.
        """
        import numpy as np

        left = np.flatnonzero(self.agreement == NOT_YET)
        first, second = self.pairs.first[left], self.pairs.second[left] + self._offset
        rows, places = np.unique(np.concatenate([first, second]), return_inverse=True)
        known = np.full(len(left), NOT_YET, np.float32)
        names, kept = paths(rows), time.monotonic()

        def tell(what: str, done: int, of: int) -> None:
            nonlocal kept
            progress(what, done, of)
            if time.monotonic() > kept + SECONDS:
                self.agreement[left] = known
                keep()
                kept = time.monotonic()

        try:
            found = check_pixels(names, *np.split(places, 2), agreement_of=known, images=images, progress=tell)
        finally:
            self.agreement[left] = known
            keep()
        self.unreadable = {names[image]: error for image, error in found.unreadable.items()}

    def copies(self) -> Pairs:
        """Returns the pairs that are copies."""
        import numpy as np

        by_features = np.isnan(self.agreement) & (self.pairs.similarity >= self._threshold)
        return _some(self.pairs, (self.agreement >= MIN_AGREEMENT) | by_features)

    def shared(self) -> SharedCopies:
        """Returns for each row of two collections the most similar one of its copies."""
        found = SharedCopies(*self._sides)
        found.add(self.copies())
        return found


def _some(pairs: Pairs, kept: NDArray[np.bool_]) -> Pairs:
    return Pairs(pairs.first[kept], pairs.second[kept], pairs.similarity[kept])
