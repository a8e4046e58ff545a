"""The split of a data set: given by the data, or made here so that the same bytes are never in both parts."""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING

from xcli.core.errors import ImageError, SourceError, UsageError
from xcli.core.process import processor_count
from xcli.core.shortage import patiently
from xcli.core.text import join_names, one_line
from xcli.images.formats import MAX_FILE_BYTES
from xcli.sources.splits import SPLITS, TRAIN, VALIDATION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from xcli.sources.labelled import LabelledImages, Sample

log = logging.getLogger("xcli")


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled image and the part that it belongs to: `train`, `validation` or `test`.

    Attributes:
        digest: SHA-256 of its bytes in hexadecimal; None where they cannot be read.
        error: why they cannot be read, else None.
    """

    sample: Sample
    split: str
    digest: str | None
    error: ImageError | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """All images, in the order of the data, each in exactly one part.

    Attributes:
        labels: class names, in the order of the model's outputs.
        skipped: counts of directory entries that are not among the images, by reason.
    """

    examples: tuple[Example, ...]
    labels: tuple[str, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Number of images by part."""
        return {part: len(self.part(part)) for part in SPLITS}

    def part(self, split: str) -> tuple[Example, ...]:
        """Returns the images of one part, in the order of the data."""
        return tuple(example for example in self.examples if example.split == split)


def split_images(data: LabelledImages, val_split: float, seed: int) -> Split:
    """Puts every image into one part.

    Parts for validation and test that the data have are left as they are. If there is no validation part, a share of
    each class is split off: at least one image, and never all. The choice depends only on the bytes of the images and
    the seed, not on the names and the order of files. Images with the same bytes stay together.

    Args:
        data: the labelled images.
        val_split: share of each class to split off, from 0 to below 1; 0 makes no validation part.
        seed: of the choice.

    Raises:
        UsageError: the share is out of range.
        SourceError: there are fewer than two classes, a class has no images or none for validation, or no image can be
            split off.
    """
    check_data(data, val_split)
    with ThreadPoolExecutor(processor_count()) as pool:
        examples = list(pool.map(_read, data.samples))
    split = divide(data, examples, [example.digest for example in examples], val_split, seed)
    _warn_of_duplicates(split.examples)
    return split


def check_data(data: LabelledImages, val_split: float) -> None:
    """Refuses what cannot be divided whatever the images are; raises what `split_images` does."""
    if not 0 <= val_split < 1:
        raise UsageError(f"--val-split must be from 0 to below 1; received {val_split:g}")
    _check_classes(data)


def divide(
    data: LabelledImages, examples: Sequence[Example], groups: Sequence[str | None], val_split: float, seed: int
) -> Split:
    """Puts every example into one part, as `split_images` does: what is in one group stays together.

    Args:
        data: what the examples are of.
        examples: in the parts that the data have, else in the training part.
        groups: the name of each example's group, which does not depend on the order of the data; None for one that
            cannot be read.
        val_split, seed: see `split_images`.

    Raises:
        SourceError: no image can be read, a class has none for validation, or no image can be split off.
    """
    examples = list(examples)
    if not any(example.digest for example in examples):
        first = examples[0]
        raise SourceError(f"none of the images can be read; the first, '{first.sample.ref.path}': {first.error}")
    if any(example.split == VALIDATION for example in examples):
        lacking = _lacking(data, VALIDATION)
        if lacking:
            raise SourceError(
                f"the validation part has no images of {quote_names(lacking)}: add some, or remove the validation part "
                "so that one is split off (--val-split)"
            )
    elif val_split:
        for index in _choose(examples, groups, data.labels, val_split, seed):
            examples[index] = replace(examples[index], split=VALIDATION)
    return Split(tuple(examples), data.labels, dict(data.skipped))


def _read(sample: Sample) -> Example:
    """Reads the bytes of an image that is in the part given by the data, by default the training part."""
    part, error = sample.split or TRAIN, sample.ref.error
    if error is None:
        try:
            return Example(
                sample, part, sha256(patiently(partial(sample.ref.location.read, MAX_FILE_BYTES))).hexdigest()
            )
        except ImageError as found:
            error = ImageError(found.reason, found.message)  # a traceback would keep the bytes in memory
    return Example(sample, part, None, error)


def _check_classes(data: LabelledImages) -> None:
    if data.empty:
        raise SourceError(
            f"no images of the class{'es' if len(data.empty) > 1 else ''} {quote_names(data.empty)}: "
            "add some, or remove the folder"
        )
    if len(data.labels) < 2:
        raise SourceError(
            f"all images are of the one class {quote_names(data.labels)}: a classifier needs two or more classes"
        )
    lacking = _lacking(data, TRAIN)
    if lacking:
        raise SourceError(f"no training images of {quote_names(lacking)}: add some, or remove the class")


def _lacking(data: LabelledImages, part: str) -> list[str]:
    there = {sample.label for sample in data.samples if (sample.split or TRAIN) == part}
    return [label for label in data.labels if label not in there]


def quote_names(labels: Iterable[str]) -> str:
    """Quotes class names for a message, which shows the first ten."""
    return join_names(repr(one_line(label)) for label in labels)


def _choose(
    examples: Sequence[Example], names: Sequence[str | None], labels: Sequence[str], share: float, seed: int
) -> set[int]:
    """Returns the indices of the training images to use for validation; `names` are those of their groups."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, (example, name) in enumerate(zip(examples, names, strict=True)):
        # Images that cannot be read are not counted, and stay in their part.
        if example.split == TRAIN and name is not None:
            groups[name].append(index)
    by_class: dict[str, list[str]] = {label: [] for label in labels}
    for digest, indices in groups.items():
        by_class[examples[indices[0]].sample.label].append(digest)
    chosen: set[int] = set()
    alone = []
    for label, members in by_class.items():
        if len(members) < 2:
            alone.append(label)
            continue
        # Sorting by a hash of bytes and seed gives a random order that does not depend on the release of NumPy.
        members.sort(key=lambda digest: sha256(f"{seed}/{digest}".encode()).digest())
        wanted = max(1, math.floor(share * sum(len(groups[one]) for one in members) + 0.5))
        for digest in members[:-1]:
            if wanted <= 0:
                break
            chosen.update(groups[digest])
            wanted -= len(groups[digest])
    if not chosen:
        raise SourceError(
            "no class has two different images, so none can be used for validation: add images, or train without a "
            "validation part (--val-split 0)"
        )
    if alone:
        log.warning("these classes have only one image, so none for validation: %s", quote_names(alone))
    return chosen


def _warn_of_duplicates(examples: Sequence[Example]) -> None:
    trained = {example.digest for example in examples if example.split == TRAIN} - {None}
    shared = sum(example.split != TRAIN and example.digest in trained for example in examples)
    if shared:
        log.warning(
            "%d of the validation and test images are byte-identical to training images: the metrics will be too good",
            shared,
        )
    pairs = {(example.digest, example.sample.label) for example in examples if example.digest is not None}
    counts = Counter(digest for digest, _ in pairs)
    several = sum(count > 1 for count in counts.values())
    if several:
        log.warning("%d images have more than one label: files with the same bytes are in different classes", several)
