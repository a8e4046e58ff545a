"""Copies among labelled images, by their features: what must not be on two sides of a split.

The finder is that of `xception duplicates`. It may be wrong: images that all look alike, such as drawings or patches of
one texture, may all seem to be copies. A group that is a large share of its class is therefore none.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from xcli.analysis.duplicates import linked_rows, whiten_vectors
from xcli.sources.splits import TRAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from xcli.training.split import Example

MAX_COMPARED = 100_000
"""Images of which all pairs are compared; of more, only equal ones are kept together."""

MAX_GROUP, MAX_SHARE = 5, 0.25
"""A group may have so many images, or this share of its class; a larger one tells how the class looks."""

log = logging.getLogger("xcli")


def copy_groups(examples: Sequence[Example], values: NDArray[np.float32]) -> list[str | None]:
    """Returns the name of each image's group of copies, which does not depend on the order of the images.

    Args:
        examples: n images; those with equal digests are copies, and those without one are in no group.
        values: float32[n, d], their features; what stands where there is no digest does not count.
    """
    import numpy as np

    digests = [one.digest for one in examples]
    ok = np.array([digest is not None for digest in digests], bool) & np.isfinite(values).all(axis=1)
    if ok.sum() < 2 or len(ok) > MAX_COMPARED:
        return digests
    return _plausible(examples, _named(digests, linked_rows(whiten_vectors(values, ok))))


def count_copies(groups: Sequence[str | None]) -> int:
    """Returns how many images are copies of others: of each group all but one."""
    named = [name for name in groups if name is not None]
    return len(named) - len(set(named))


def warn_of_copies(examples: Sequence[Example], groups: Sequence[str | None]) -> None:
    """Warns of copies of training images in other parts, where the data put them, and of copies with several labels."""
    trained, labels = set[str](), dict[str, set[str]]()
    for one, name in zip(examples, groups, strict=True):
        if name is not None:
            labels.setdefault(name, set()).add(one.sample.label)
            if one.split == TRAIN:
                trained.add(name)
    shared = sum(one.split != TRAIN and name in trained for one, name in zip(examples, groups, strict=True))
    if shared:
        log.warning(
            "%d of the validation and test images are copies of training images, by their features: the metrics will "
            "be too good",
            shared,
        )
    if several := sum(len(found) > 1 for found in labels.values()):
        log.warning("%d images have copies, by their features, with another label", several)


def _named(digests: Sequence[str | None], linked: NDArray[np.int64]) -> list[str | None]:
    """Names groups, whose images have equal numbers int64[n], by the first of their digests; equal ones are joined."""
    roots: list[int] = linked.tolist()
    same: dict[str, int] = {}
    for place, digest in enumerate(digests):
        if digest is not None:
            roots[place] = same.setdefault(digest, roots[place])
    first: dict[int, str] = {}
    for digest, root in zip(digests, roots, strict=True):
        if digest is not None:
            first[root] = min(digest, first.get(root, digest))
    return [None if digest is None else first[root] for digest, root in zip(digests, roots, strict=True)]


def _plausible(examples: Sequence[Example], groups: Sequence[str | None]) -> list[str | None]:
    """Dissolves groups that are too large to be copies, and those of classes that would have a single group."""
    labels = Counter(one.sample.label for one in examples if one.digest is not None)
    sizes = Counter(name for name in groups if name is not None)
    of_class: dict[str, set[str]] = {}
    for one, name in zip(examples, groups, strict=True):
        if name is not None:
            of_class.setdefault(one.sample.label, set()).add(name)
    found = []
    for one, name in zip(examples, groups, strict=True):
        label = one.sample.label
        most = max(MAX_GROUP, MAX_SHARE * labels[label])
        large = name is not None and (sizes[name] > most or len(of_class[label]) < 2)
        found.append(one.digest if large else name)
    return found
