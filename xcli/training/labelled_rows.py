"""Rows of tables of features with the labels of their paths: what a head is trained on without pixels."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from hashlib import sha256
from itertools import compress
from typing import TYPE_CHECKING

from xcli.analysis.vectors import batch_vectors
from xcli.core.errors import ImageError, SourceError, reason_of
from xcli.core.records import ERROR, FEATURES, OK_STATUS, PATH, STATUS, ImageRef
from xcli.core.text import one_line
from xcli.sources.labelled import LabelledImages, Sample
from xcli.sources.splits import SPLITS, TRAIN
from xcli.training.copies import copy_groups, count_copies, warn_of_copies
from xcli.training.split import Example, Split, check_data, divide, quote_names

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.analysis.stored import StoredFeatures
    from xcli.analysis.truth import Truth
    from xcli.sources.excluded import Exclusions

_NOT_FINITE = "the stored features are NaN or infinite"

log = logging.getLogger("xcli")


@dataclass(frozen=True)
class RowLocation:
    """Where an image was, by its path in a table; it is looked for only where a picture of it is drawn."""

    file: str

    offset = None
    size = None
    remote = False


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """The n rows that have a label.

    Attributes:
        values: float32[n, 2048], NaN in rows without a vector.
        examples: of each row its path, label and part, and a digest of its vector.
        labels: the classes, sorted.
        unlabelled: number of rows without a label.
    """

    values: NDArray[np.float32]
    examples: tuple[Example, ...]
    labels: tuple[str, ...]
    unlabelled: int

    @property
    def errors(self) -> dict[int, str]:
        """`reason: message` of the rows without a vector, by index."""
        return {index: str(one.error) for index, one in enumerate(self.examples) if one.error is not None}

    def split(self, val_split: float, seed: int) -> tuple[Split, int]:
        """Puts every row into one part, copies into the same, and returns how many rows are copies of others.

        Raises:
            SourceError, UsageError: as `split_images`.
        """
        data = LabelledImages(tuple(one.sample for one in self.examples), self.labels)
        check_data(data, val_split)
        groups = copy_groups(self.examples, self.values)
        split = divide(data, self.examples, groups, val_split, seed)
        warn_of_copies(split.examples, groups)
        return split, count_copies(groups)


def read_rows(stored: StoredFeatures, truth: Truth, source: str, excluded: Exclusions | None = None) -> LabelledRows:
    """Reads the rows that have a label; 8 KiB of memory for each.

    Args:
        stored: the tables.
        truth: the labels by path.
        source: where they are from, for messages.
        excluded: images that are left out.

    Raises:
        SourceError: no row has a label, a label has no row, or none is excluded that should be.
        CheckError: a table is damaged.
    """
    import numpy as np
    import pyarrow as pa

    values, examples, unlabelled = [], list[Example](), 0
    found, dropped = np.zeros(len(truth.hashes), bool), np.zeros(len(truth.hashes), bool)
    example = ""
    for reader in stored.readers:
        for batch in reader.batches():
            paths = batch.column(PATH).fill_null("").to_pylist()
            places = truth.places(paths)
            if excluded is not None:
                is_out = np.fromiter((path in excluded.paths for path in paths), bool, len(paths)) & (places >= 0)
                dropped[places[is_out]] = True
                paths, places = [*compress(paths, ~is_out)], places[~is_out]
                batch = batch.filter(pa.array(~is_out))
            rows = np.flatnonzero(places >= 0)
            example = example or next(iter(paths), "")
            unlabelled += len(paths) - len(rows)
            found[places[rows]] = True
            if len(rows):
                own, made = _examples(batch.take(rows), truth, places[rows])
                values.append(own)
                examples += made
    if excluded is not None:
        if excluded.paths and not dropped.any():
            raise SourceError(excluded.found_none(example))
        count = f"{int(dropped.sum()):,}"
        log.info("%s images are left out for %s", count, one_line(excluded.source))
    _check(stored, truth, found, dropped, source, example, unlabelled)
    labels = tuple(sorted({one.sample.label for one in examples}))
    return LabelledRows(np.concatenate(values), tuple(examples), labels, unlabelled)


def _examples(
    batch: pa.RecordBatch, truth: Truth, places: NDArray[np.int64]
) -> tuple[NDArray[np.float32], list[Example]]:
    """Returns the vectors of rows, NaN where there is none, and the rows as examples."""
    import numpy as np

    width = batch.schema.field(FEATURES).type.list_size
    vectors, is_ok, is_finite = batch_vectors(batch.select([PATH, STATUS, FEATURES]), width)
    values = vectors.astype(np.float32)
    values[~(is_ok & is_finite)] = np.nan
    columns = [batch.column(name).to_pylist() for name in (PATH, STATUS, ERROR)]
    made = []
    for row, (path, status, error) in enumerate(zip(*columns, strict=True)):
        place = places[row]
        label, part = truth.labels[truth.numbers[place]], truth.splits[place]
        sample = Sample(ImageRef(path, RowLocation(path), path.encode()), label, SPLITS[part] if part >= 0 else None)  # type: ignore[arg-type]
        problem, digest = _problem(status, error, finite=bool(is_finite[row])), None
        if problem is None:
            digest = sha256(values[row].data).hexdigest()
        made.append(Example(sample, sample.split or TRAIN, digest, problem))
    return values, made


def _problem(status: str | None, text: str | None, *, finite: bool) -> ImageError | None:
    if status == OK_STATUS:
        return None if finite else ImageError("not-finite", _NOT_FINITE)
    reason = reason_of(text)
    known = reason in ImageError.REASONS
    return ImageError(reason if known else "unreadable", (text or "").partition(": ")[2] if known else "an error row")


def _check(
    stored: StoredFeatures,
    truth: Truth,
    found: NDArray[np.bool_],
    dropped: NDArray[np.bool_],
    source: str,
    example: str,
    unlabelled: int,
) -> None:
    """Says which rows and labels have no counterpart; raises SourceError where nothing can be trained so."""
    import numpy as np

    shown = one_line(source)
    if dropped.any() and (lost := sorted(set(truth.numbers[dropped]) - set(truth.numbers[found]))):
        raise SourceError(f"what is left out leaves no row of the class {one_line(repr(truth.labels[lost[0]]))}")
    if not found.any():
        raise SourceError(
            f"no row of {stored.name} has a label in {shown}: paths there are like {one_line(truth.example)!r}, and in "
            f"the table like {one_line(example)!r}; they must be the same"
        )
    there = set(truth.numbers[found].tolist())
    lacking = [label for number, label in enumerate(truth.labels) if number not in there]
    if lacking:
        raise SourceError(
            f"no row of {stored.name} has the label{'s' if len(lacking) > 1 else ''} {quote_names(sorted(lacking))}: "
            f"add rows, or take the labels out of {shown}"
        )
    if unlabelled:
        log.info("%s rows have no label in %s, and are left out", f"{unlabelled:,}", shown)
    if missing := int(np.count_nonzero(~(found | dropped))):
        log.warning("%s labels of %s have no row, and are left out", f"{missing:,}", shown)
    if truth.conflicting:
        log.warning("%s paths have more than one label in %s, and are left out", f"{truth.conflicting:,}", shown)
