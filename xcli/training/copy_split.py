"""The split of images into parts once their features are known: copies, by these, are in one part.

The split of an unfinished run is kept beside its checkpoints, so that the run goes on with it whatever the finder of
copies says the next time: its sums are rounded otherwise by another number of processors.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xcli.core.checked_json import MAX_BYTES, parse_object
from xcli.core.errors import UsageError
from xcli.sources.splits import TRAIN, VALIDATION
from xcli.storage import disk
from xcli.storage.atomic import write_atomically
from xcli.training.checkpoints import Checkpoints
from xcli.training.copies import MAX_COMPARED, copy_groups, count_copies
from xcli.training.run_directory import SPLIT
from xcli.training.split import Split, divide

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xcli.sources.labelled import LabelledImages
    from xcli.training.activations import ViewActivations

log = logging.getLogger("xcli")


def holds_state(folder: str, settings: Mapping[str, Any]) -> bool:
    """Returns whether a directory of checkpoints has the state of a run with these settings."""
    try:
        return Checkpoints(folder, settings).load() is not None
    except UsageError:  # of another run
        return False


def divide_by_features(
    data: LabelledImages, split: Split, plain: ViewActivations, val_split: float, seed: int
) -> Split:
    """Returns another split of the same images; copies are in one part, and their number is told.

    Args:
        data: what the split is of; it has no validation part of its own.
        split: the images, divided by their bytes.
        plain: the first view of all of them but those of the test part.
        val_split, seed: see `split_images`.
    """
    import numpy as np

    examples = [replace(one, split=one.sample.split or TRAIN) for one in split.examples]
    places = [place for place, one in enumerate(examples) if one.split == TRAIN]
    groups = [one.digest for one in examples]
    if 1 < len(places) <= MAX_COMPARED:
        values = np.array(plain.pooled)
        values[list(plain.errors)] = np.nan
        found = copy_groups([examples[place] for place in places], values)
        for place, name in zip(places, found, strict=True):
            groups[place] = name
        log.info(
            "%s of %s images are copies of others, and are in one part with these", count_copies(found), len(found)
        )
    return divide(data, examples, groups, val_split, seed)


def write_split(folder: str, split: Split) -> None:
    """Keeps a split beside the checkpoints."""
    chosen = [place for place, one in enumerate(split.examples) if one.split == VALIDATION]
    write_atomically(os.path.join(folder, SPLIT), json.dumps({"validation": chosen}).encode())


def read_split(folder: str, split: Split) -> Split | None:
    """Returns the split of the same images that is kept there; None if there is none that can be read."""
    try:
        value = parse_object(disk.read_file(os.path.join(folder, SPLIT), MAX_BYTES + 1), {"validation": [int]})
        chosen = set(value["validation"])
    except (OSError, ValueError, KeyError):
        return None
    examples = tuple(
        replace(one, split=VALIDATION if place in chosen else one.sample.split or TRAIN)
        for place, one in enumerate(split.examples)
    )
    return replace(split, examples=examples)
