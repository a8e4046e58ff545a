"""`classify --from-features`: the scores of a head over stored features, as a run whose images are the rows of tables.

tables of features --> references, each with its vector --> Head --> rows

No pixels are read, and TensorFlow is not imported. What comes after the rows is that of every run: parts, restart, the
finished file and its provenance.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from xcli.core.errors import CheckError, ImageError, reason_of
from xcli.core.records import ERROR_STATUS, OK_STATUS, STATUS_COLUMNS, ImageBatch, ImageRef, RunCounts
from xcli.core.text import one_line, short_text
from xcli.core.version import __version__, versions
from xcli.inference.finite import finite_rows
from xcli.inference.profiler import Profile
from xcli.inference.run import counted
from xcli.sources.exclusions import with_exclusions
from xcli.sources.listing import Listing
from xcli.sources.manifests import ExtraColumn
from xcli.tables.base import sliced
from xcli.tables.rows import flat_features
from xcli.tables.schema import FIRST_RESULT

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.analysis.stored import StoredFeatures
    from xcli.core.records import FileState
    from xcli.inference.options import Pinned
    from xcli.inference.run import EarlierRows
    from xcli.inference.tasks import ClassifyTask
    from xcli.models.head import Head
    from xcli.sources.options import SourceOptions

_CHUNK = 1024  # rows that are read, and scored, at a time


@dataclass(slots=True, eq=False)
class RowLocation:
    """Where the features of an image are: a row of a table; a `Location` without bytes of its own.

    Attributes:
        file: the table.
        offset: number of the row in all tables, by which rows with one path differ.
        table_state: of the table; a row of an earlier run is valid as long as that is the same.
        vectors, index: float[some rows, d], and which of them is that of the image; None if only paths were read.
    """

    file: str
    offset: int
    table_state: FileState
    vectors: NDArray[np.floating[Any]] | None
    index: int

    size = None
    remote = False

    def read(self, max_bytes: int) -> bytes:
        raise ImageError("unreadable", "it is a row of a table")

    def fetch(self, max_bytes: int) -> tuple[bytes, FileState | None]:
        return self.read(max_bytes), self.table_state

    def state(self) -> FileState | None:
        return self.table_state


@dataclass(slots=True)
class ScoresRun:
    """A run over the rows of tables, as a `TableRun`.

    Attributes:
        stored: the tables, which `check_fit` has accepted.
        head: of the bundle.
        task: what the rows hold.
        options: what is listed: names of the tables, `limit`, `shard`, and what is excluded.

    Raises:
        SourceError: the table of exclusions cannot be used.
    """

    stored: StoredFeatures
    head: Head
    task: ClassifyTask
    options: SourceOptions
    report: RunCounts = field(default_factory=RunCounts)
    profile: Profile = field(default_factory=Profile)
    listing: Listing = field(init=False)
    _schema: Any = None
    _with_vectors: bool = True

    def __post_init__(self) -> None:
        carried = list(self.stored.readers[0].schema)[FIRST_RESULT + 1 :]
        extra = tuple(ExtraColumn(one.name, one.type) for one in carried)
        options = with_exclusions(self.options)
        count, limit = self.stored.row_count, options.limit
        is_cut = options.shard is not None or options.excluded is not None
        known = None if count is None or is_cut else min(count, count if limit is None else limit)
        self.listing = Listing(self._rows(), options, extra_columns=extra, total=known)

    def foresee(self, pinned: Pinned) -> bool:
        """Everything is known without TensorFlow."""
        return True

    def start(self, pinned: Pinned | None = None) -> pa.Schema:
        """Returns the schema of the rows."""
        self._schema = self.task.schema([(len(self.head.bias),)], self.listing.extra_columns)
        return self._schema

    def batches(self, earlier: EarlierRows | None = None) -> Iterator[tuple[ImageBatch, pa.RecordBatch]]:
        """Yields batches without pixels, and their rows, but for `earlier` rows; call `start` before.

        Raises:
            CheckError: a table is damaged.
        """
        refs = iter(self.listing)
        wanted = refs if earlier is None else earlier.rest(refs)
        yield from counted(self._scored(wanted), self, earlier)
        self.profile.finish()

    def references(self) -> Iterator[ImageRef]:
        """Yields all references, which can be had once: here, without their vectors, or as `batches`."""
        self._with_vectors = False
        return iter(self.listing)

    def provenance(self, command: str) -> dict[str, Any]:
        """Returns everything that the rows depend on: what made the features, and the head."""
        made, head = self.stored.provenance, self.head
        return {
            "tool": {"name": "xception-cli", "version": __version__, "command": command},
            "versions": versions(),
            "model": {
                "name": head.name,
                "sha256": head.digest,
                "input_range": head.preprocessing["input_range"],
                "backbone": head.backbone,
            },
            "preprocessing": made["preprocessing"],
            "precision": made["precision"],
            "device": made["device"],
            "batch_size": made["batch_size"],
            "options": self.task.settings() | {"from_features": self.stored.described()},
        }

    def _scored(self, refs: Iterator[ImageRef]) -> Iterator[tuple[ImageBatch, pa.RecordBatch]]:
        import numpy as np

        nothing = np.empty((0, 0, 0, 3), np.uint8)
        while chunk := tuple(islice(refs, _CHUNK)):
            with self.profile.stage("engine", len(chunk)):
                scores = self.head.scores(_vectors_of(chunk))
            with self.profile.stage("output", len(chunk)):
                states = tuple(ref.location.state() for ref in chunk)
                batch = ImageBatch(chunk, nothing, tuple(ref.error for ref in chunk), states)
                batch = _refuse_not_finite(batch, scores)
                yield batch, self.task.rows(self._schema, batch, [scores])

    def _rows(self) -> Iterator[ImageRef]:
        number = 0
        for reader, state in zip(self.stored.readers, self.stored.states, strict=True):
            light = not self._with_vectors and not self.listing.extra_columns
            for whole in reader.batches(STATUS_COLUMNS if light else None):
                for batch in sliced(whole, _CHUNK):
                    vectors = self._read(batch) if self._with_vectors else None
                    columns = [batch.column(index).to_pylist() for index in range(FIRST_RESULT)]
                    carried = [column.to_pylist() for column in batch.columns[FIRST_RESULT + 1 :]]
                    extras = zip(*carried, strict=True) if carried else [()] * batch.num_rows
                    for index, (path, status, error, extra) in enumerate(zip(*columns, extras, strict=True)):
                        location = RowLocation(reader.name, number, state, vectors, index)
                        found = _error(reader.name, number, path, status, error)
                        yield ImageRef(path, location, path.encode(), found, extra)
                        number += 1

    def _read(self, batch: pa.RecordBatch) -> NDArray[np.floating[Any]]:
        """Returns the vectors of a batch, float32[b, d] or float16[b, d]."""
        import numpy as np

        with self.profile.stage("listing", batch.num_rows):
            flat = flat_features(batch.column(FIRST_RESULT)).to_numpy(zero_copy_only=False)  # NaN where null
            kept = flat.dtype in (np.float16, np.float32)
            return np.ascontiguousarray(flat, None if kept else np.float32).reshape(batch.num_rows, -1)


def _error(table: str, number: int, path: str | None, status: str | None, text: str | None) -> ImageError | None:
    """Returns the error that a row of a table tells; raises CheckError where it tells neither that nor success."""
    if path is None:
        raise CheckError(f"{one_line(table)} is damaged: a row (number {number + 1:,} of all) has no path")
    if status == OK_STATUS:
        return None
    reason = reason_of(text)
    if status != ERROR_STATUS or reason not in ImageError.REASONS:
        shown = f"the status {short_text(status)} with the error {short_text(text)}"
        raise CheckError(f"{one_line(table)} is damaged: the row of {one_line(path)} has {shown}")
    return ImageError(reason, (text or "").partition(": ")[2])


def _vectors_of(refs: tuple[ImageRef, ...]) -> NDArray[np.floating[Any]]:
    """Returns the vectors of references, float[b, d]; consecutive ones are mostly of one block."""
    import numpy as np

    pieces = []
    locations: list[Any] = [ref.location for ref in refs]
    for _, group in groupby(locations, key=lambda one: id(one.vectors)):
        some = list(group)
        pieces.append(some[0].vectors[[one.index for one in some]])
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _refuse_not_finite(batch: ImageBatch, scores: NDArray[np.floating[Any]]) -> ImageBatch:
    """Returns the batch with an error for each row whose vector is not finite, though its status is ok."""
    good = finite_rows([scores])
    if good.all():
        return batch
    bad = ImageError("not-finite", "the stored features are NaN or infinite")
    errors = tuple(error or (None if fine else bad) for error, fine in zip(batch.errors, good.tolist(), strict=True))
    return replace(batch, errors=errors)
