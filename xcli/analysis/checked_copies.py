"""Copies by a second look: pairs that may be copies by their features, of which the pixels decide.

The similarity from which pairs are looked at is lower than that of copies, so that more are found, and of those found
more are right. Where an image cannot be read, the features decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xcli.analysis.duplicates import MAX_PAIRS, find_pairs
from xcli.analysis.nearest import Pairs, joined, pairs_above
from xcli.analysis.pixel_check import check_pixels
from xcli.analysis.shared_copies import SharedCopies
from xcli.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from xcli.analysis.duplicates import WhitenedRows

LOWER = 0.25
"""By how much the similarity of pairs that are looked at is lower than that of copies."""


class Checked(NamedTuple):
    """Pairs whose pixels agree.

    Attributes:
        pairs: these.
        looked_at: number of pairs that were looked at.
        unreadable: number of images that cannot be read.
    """

    pairs: Pairs
    looked_at: int
    unreadable: int


def candidates(sides: Sequence[WhitenedRows], threshold: float, on_band: Callable[[int], object]) -> Pairs:
    """Returns the pairs of one collection, or of two, that are worth a look if copies have this threshold.

    Raises:
        UsageError: there are too many.
    """
    least = max(threshold - LOWER, 0.05)
    if len(sides) == 1:
        return find_pairs(sides[0], least, on_band=on_band)
    found, count = [], 0
    for number, pairs in enumerate(pairs_above(sides[0].values, least, sides[1].values)):
        found.append(pairs)
        count += len(pairs.first)
        if count > MAX_PAIRS:
            raise UsageError(f"more than {MAX_PAIRS:,} pairs have a similarity of {least:g}: give a higher threshold")
        on_band(number)
    return joined(found)


def check(
    sides: Sequence[WhitenedRows],
    pairs: Pairs,
    threshold: float,
    paths: Callable[[NDArray[np.int64]], list[str]],
    images: str | None,
    progress: Callable[[str, int, int], object],
) -> Checked:
    """Looks at pairs.

    Args:
        sides: one collection, or two.
        pairs: what `candidates` returned for them.
        threshold: of copies, where an image cannot be read.
        paths: returns the paths of rows, those of a second collection after all of the first.
        images: the directory in which the images are, if it is not where their paths say.
        progress: as of `check_pixels`.
    """
    import numpy as np

    other = sides[-1]
    equal = sides[0].digests[pairs.first] == other.digests[pairs.second]
    first, second = pairs.first[~equal], pairs.second[~equal] + (len(sides[0]) if sides[1:] else 0)
    rows, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    found = check_pixels(paths(rows), *np.split(places, 2), images=images, progress=progress)
    copies = equal.copy()
    copies[~equal] = found.are_copies | (found.are_unknown & (pairs.similarity[~equal] >= threshold))
    return Checked(Pairs(*(one[copies] for one in pairs)), len(first), len(found.unreadable))


def shared_by(sides: Sequence[WhitenedRows], pairs: Pairs) -> SharedCopies:
    """Returns for each row of two collections the most similar one of those that these pairs call copies."""
    found = SharedCopies(*sides)
    found.add(pairs)
    return found
