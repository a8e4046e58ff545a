"""A run without a network: for the tests of what keeps its rows.

As a program, one that is slow enough to be killed: python -m tests.stubrun SOURCE TARGET
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from tests.writtentables import provenance, values_of
from xcli.core.errors import ImageError
from xcli.core.records import FEATURES, ImageBatch, ImageRef, RunCounts
from xcli.core.shortage import patiently
from xcli.inference.listing_ahead import ListingAhead
from xcli.inference.profiler import Profile
from xcli.outputs.resume import RowOrder
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.tables.rows import classify_batch, features_batch
from xcli.tables.schema import classify_schema, features_schema

WIDTH, CLASSES = 4, 3


class StubRun:
    """What `xcli.outputs.save` uses of a `Run`; rows depend on paths alone, and empty files are errors."""

    def __init__(
        self, sources: Sequence[str], command: str, batch_size: int = 2, with_features: bool = False, **options: Any
    ) -> None:
        self.listing = list_images(SourceOptions(sources=tuple(sources), **options))
        self.report, self.profile = RunCounts(), Profile()
        self._command, self._batch_size, self._with_features = command, batch_size, with_features

    def foresee(self, pinned_batch_size: int | None) -> bool:
        return True

    def start(self, pinned_batch_size: int | None = None) -> pa.Schema:
        features = features_schema((WIDTH,), "float32", self.listing.extra_columns)
        if self._command == "features":
            return features
        schema = classify_schema(2, "name", self.listing.extra_columns)
        return schema.append(features.field(FEATURES)) if self._with_features else schema

    def references(self) -> Iterator[ImageRef]:
        return iter(self.listing)

    def batches(self, earlier: RowOrder) -> Iterator[tuple[ImageBatch, pa.RecordBatch]]:
        fresh = iter(ListingAhead(earlier.rest(iter(self.listing)), whole=earlier.needs_whole_listing))
        for batch, rows in self.rows(fresh):
            yield batch, rows
            self.report.count(batch.errors)
        self.report.resume(earlier.ok, earlier.errors)
        self.report.listed, self.report.skipped = self.listing.listed, dict(self.listing.skipped)

    def rows(self, refs: Iterator[ImageRef], **_: Any) -> Iterator[tuple[ImageBatch, pa.RecordBatch]]:
        """What workers of a cluster use of a `Predictor`."""
        while batch := tuple(islice(refs, self._batch_size)):
            states, errors = tuple(ref.location.state() for ref in batch), tuple(map(_read, batch))
            yield ImageBatch(batch, np.empty((0, 0, 0, 3), np.uint8), errors, states), self._rows(batch, errors)

    def _rows(self, refs: Sequence[ImageRef], errors: Sequence[ImageError | None]) -> pa.RecordBatch:
        extra = self.listing.extra_columns
        features = features_batch(features_schema((WIDTH,), "float32", extra), refs, errors, values_of(refs, WIDTH))
        if self._command == "features":
            return features
        scores = np.abs(np.tanh(values_of(refs, CLASSES)))
        schema = classify_schema(2, "name", extra)
        rows = classify_batch(schema, refs, errors, scores, ["a", "b", "c"])
        return rows.append_column(features.schema.field(3), features[3]) if self._with_features else rows

    def provenance(self, command: str) -> dict[str, Any]:
        return provenance(command, batch_size=self._batch_size)


def _read(ref: ImageRef) -> ImageError | None:
    """Reads an image, as a decoder does."""
    try:
        patiently(lambda: ref.location.read(1 << 20))
    except ImageError as error:
        return ImageError(error.reason, error.message)
    return None


def main() -> None:
    """Runs `features` with parts of three rows, a hundredth of a second for a batch."""
    from xcli.outputs.options import Output, SaveOptions
    from xcli.outputs.save import save
    from xcli.outputs.target import parse_target

    source, target = sys.argv[1:]
    run: Any = StubRun([source], "features")
    form = os.path.splitext(target)[1][1:] or "parquet"
    options = SaveOptions(part_rows=3)
    save(run, Output("features", parse_target(target), form), options, on_batch=lambda _: time.sleep(0.01))


if __name__ == "__main__":
    main()
