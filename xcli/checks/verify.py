"""`xception verify`: checks that a table is what a run writes, row by row, and that every source has its row."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from xcli.checks.row_index import RowIndex, paths_of, row_paths
from xcli.checks.unmatched import match_sources
from xcli.core.errors import CheckError, ImageError, SourceError, reason_of
from xcli.core.records import ERROR, ERROR_STATUS, OK_STATUS, PATH, STATUS, STATUS_COLUMNS, RunCounts
from xcli.core.text import one_line
from xcli.sources.selection import OTHER_SHARD
from xcli.storage.checksums import checksum_of
from xcli.storage.staging import pending, staging_path
from xcli.storage.urls import is_url
from xcli.tables.parquet import DatasetReader
from xcli.tables.provenance import (
    DATASET_META,
    META_SUFFIX,
    PARTS,
    PROVENANCE_KEYS,
    differences,
    is_unchanged,
    provenance_of,
)
from xcli.tables.rows import flat_features
from xcli.tables.schema import (
    FIRST_RESULT,
    classify_schema,
    feature_shape,
    features_schema,
    has_wnids,
    prediction_columns,
    prediction_count,
)
from xcli.tables.states import PathDigest, states_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.checks.findings import Finding, Findings
    from xcli.sources.listing import Listing
    from xcli.tables.base import TableReader

    Rows = NDArray[np.bool_]

SCORE_TOLERANCE = 1e-3
"""How far a probability may be outside [0, 1], since the softmax of half precision is rounded."""


@dataclass(slots=True)
class Verdict:
    """The result of `verify`.

    Attributes:
        name: of the table.
        command: `classify` or `features`.
        width: predictions per row, or values per row of features.
        counts: of the rows; `listed` is the number of sources, or of rows if no sources were given.
        sources: whether the rows were compared with sources.
        findings: failures and warnings.
        provenance: what made the rows, as far as the file says.
    """

    name: str
    command: str
    width: int
    counts: RunCounts = field(default_factory=RunCounts)
    sources: bool = False
    findings: list[Finding] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return all(finding.warning for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "passed": self.passed,
            "kind": self.command,
            "rows": self.counts.rows,
            "images": self.counts.as_dict(),
            "sources": self.sources,
            "findings": [asdict(finding) for finding in self.findings],
            "provenance": self.provenance,
        }


def verify(reader: TableReader, listing: Listing | None, findings: Findings) -> Verdict:
    """Checks a table.

    Args:
        reader: of the table.
        listing: the sources that should have rows, not yet iterated; None checks the table alone.
        findings: receives what is found.

    Raises:
        CheckError: the file is damaged, so there are no rows to check.
        SourceError: the listing fails.
    """
    shape = feature_shape(reader.schema)
    width = prediction_count(reader.schema) if shape is None else math.prod(shape)
    verdict = Verdict(reader.name, reader.command, width, sources=listing is not None)
    verdict.provenance = reader.provenance or provenance_of(reader.meta or {})
    _check_publication(reader, findings)
    _check_provenance(reader, findings)
    if isinstance(reader, DatasetReader):
        _check_parts(reader, findings)
    sound = _check_schema(reader, verdict.provenance, findings)
    digest = PathDigest()
    index = RowIndex([_digested(paths_of(reader), digest)])
    _check_states(reader, digest, findings)
    _ValueChecks(reader, verdict, findings).run(only_status=not sound)
    check_counts(reader, verdict.counts, findings)
    if listing is None:
        verdict.counts.listed = index.rows
        again = index.repeated()
        if len(again):
            what = "rows whose path occurs before (correct only if the sources list it as often)"
            findings.add("repeated", what, row_paths([reader], again), warning=True)
    else:
        verdict.counts.listed = match_sources(index, [reader], listing, findings)
        verdict.counts.skipped = {key: count for key, count in listing.skipped.items() if key != OTHER_SHARD}
        _check_order(index, findings)
    verdict.findings = findings.all
    return verdict


def _check_publication(reader: TableReader, findings: Findings) -> None:
    """Reports a table whose files were about to be replaced when their process was killed."""
    if not is_url(reader.name):
        names = [one.final for one in pending(staging_path(reader.name), reader.name)]
        what = "files that were being replaced when a run was killed (its command, given again, completes it)"
        findings.add("unfinished", what, names)


def _check_provenance(reader: TableReader, findings: Findings) -> None:
    if reader.meta is None:
        findings.add("provenance", "missing FILE.meta.json", [one_line(reader.name) + META_SUFFIX])
    elif not is_unchanged(reader.meta):
        findings.add("provenance", "files that have changed since they were written", ["FILE.meta.json"])
    if reader.self_describing and reader.provenance is None:
        findings.add("provenance", "files without provenance in their metadata", [one_line(reader.name)])
    for where, found in (("FILE.meta.json", reader.meta), ("the file's metadata", reader.provenance)):
        if found is not None:
            absent = [key for key in PROVENANCE_KEYS if key not in found]
            findings.add("provenance", f"members missing in {where}", absent)
    if reader.meta is not None and reader.provenance is not None:
        differing = differences(reader.provenance, provenance_of(reader.meta))
        names = (f"{key}: {one!r} and {other!r}" for key, one, other in differing)
        findings.add("provenance", "differences between the file's metadata and FILE.meta.json", names)


def _check_parts(reader: DatasetReader, findings: Findings) -> None:
    """Compares the parts of a directory with those in its `_meta.json`, if it names them; earlier versions did not."""
    recorded = _object(reader.meta or {}, PARTS)
    if not recorded:
        return
    for name in reader.parts:
        try:
            found = checksum_of(os.path.join(reader.path, name)).digest if name in recorded else None
        except OSError as error:
            raise CheckError(f"cannot read {one_line(os.path.join(reader.name, name))}: {error.strerror}") from None
        if found is None:
            findings.add("parts", f"parts that {DATASET_META} does not name", [one_line(name)])
        elif found != str(recorded[name]).rpartition(" ")[2]:
            findings.add("parts", "parts that have changed since they were written", [one_line(name)])
    findings.add("parts", "missing parts", map(one_line, sorted(recorded.keys() - set(reader.parts))))


def _digested(paths: Iterable[list[str | None]], digest: PathDigest) -> Iterator[list[str | None]]:
    for some in paths:
        digest.update(some)
        yield some


def _check_states(reader: TableReader, paths: PathDigest, findings: Findings) -> None:
    """Compares the states of images, if the run has recorded them, with the paths of the table."""
    try:
        states = states_of(reader)
    except CheckError as error:
        what = "files of states that are missing or damaged, without which changed images are not noticed"
        findings.add("states", what, [str(error)], warning=True)
        return
    if states is not None and paths.text() != states.paths:
        findings.add("states", "tables whose paths have changed since they were written", [one_line(reader.name)])


def _check_schema(reader: TableReader, provenance: dict[str, Any], findings: Findings) -> bool:
    """Compares the columns with those that a run writes; returns whether they have the right types."""
    schema, options = reader.schema, _object(provenance, "options")
    shape, top, wnids = feature_shape(schema), prediction_count(schema), has_wnids(schema)
    own = 1 if shape is not None else top * len(prediction_columns(wnids=wnids))
    carried = [(field.name, field.type) for field in list(schema)[FIRST_RESULT + own :]]
    try:
        if shape is None:
            expected = classify_schema(top, "both" if wnids else "name", carried)
        else:
            is_half = str(schema.field(FIRST_RESULT).type.value_type) == "halffloat"
            dtype = "float16" if is_half else "float32"
            expected = features_schema(shape, dtype, carried)  # type: ignore[arg-type]
            if reader.keeps_dtype and options.get("dtype", dtype) != dtype:
                findings.add("schema", "columns of another type", [f"features: {dtype}, not {options['dtype']}"])
    except SourceError as error:
        findings.add("schema", "unexpected columns", [str(error)])
        return False
    for found, right in zip(schema, expected, strict=True):
        if found.name != right.name:
            findings.add("schema", "columns out of place", [f"{found.name!r} in place of {right.name!r}"])
        elif found.type != right.type:
            findings.add("schema", "columns of another type", [f"{found.name}: {found.type}, not {right.type}"])
    if shape is None and not reader.omits_nulls:
        if isinstance(options.get("top"), int) and top > options["top"]:
            findings.add("schema", "unexpected columns", [f"{top} predictions, not {options['top']}"])
        label_type = options.get("label_type")
        if label_type in ("name", "wnid", "both") and wnids != (label_type == "both"):
            findings.add("schema", "unexpected columns", [f"wnid_1, with the label type {label_type}"])
    return bool(schema.equals(expected))


def _object(value: dict[str, Any], key: str) -> dict[str, Any]:
    inner = value.get(key)
    return inner if isinstance(inner, dict) else {}


def check_counts(reader: TableReader, counts: RunCounts, findings: Findings) -> None:
    """Compares the counts of a table's rows with those in its `FILE.meta.json`."""
    if reader.meta is None:
        return
    stored, name = _object(reader.meta, "images"), one_line(reader.name)
    found = {"listed": counts.rows, "ok": counts.ok, "errors": counts.errors}
    differing = [
        f"{name}: {key} is {stored.get(key)}, in the rows {here}"
        for key, here in found.items()
        if stored.get(key) != here
    ]
    findings.add("counts", "counts in FILE.meta.json that differ from the rows", differing)


def count_rows(batch: pa.RecordBatch, counts: RunCounts) -> None:
    """Adds the rows of a batch to the counts; a row that is not ok counts as an error."""
    for status, error in zip(batch.column(STATUS).to_pylist(), batch.column(ERROR).to_pylist(), strict=True):
        if status == OK_STATUS:
            counts.ok += 1
        else:
            reason = reason_of(error)
            counts.errors[reason] = counts.errors.get(reason, 0) + 1


def _check_order(index: RowIndex, findings: Findings) -> None:
    import numpy as np

    positions = index.positions
    if (positions < 0).any():
        positions = positions[positions >= 0]
    breaks = np.flatnonzero(positions[1:] < positions[:-1])
    names = (f"after row {row + 1}" for row in breaks)
    findings.add("order", "places where rows are not in the order of the sources", names, warning=True)


class _ValueChecks:
    def __init__(self, reader: TableReader, verdict: Verdict, findings: Findings) -> None:
        self._reader, self._counts, self._findings = reader, verdict.counts, findings
        options = _object(verdict.provenance, "options")
        self._min_score = options.get("min_score")
        self._raw = options.get("raw_scores") is True
        self._top = prediction_count(reader.schema) if verdict.command == "classify" else 0

    def run(self, *, only_status: bool) -> None:
        for batch in self._reader.batches(STATUS_COLUMNS if only_status else None):
            ok = self._check_status(batch)
            if only_status:
                continue
            if self._top:
                self._check_predictions(batch, ok)
            else:
                self._check_features(batch, ok)

    def _add(self, check: str, what: str, batch: pa.RecordBatch, rows: Rows) -> None:
        paths = batch.column(PATH).filter(rows) if rows.any() else ()
        self._findings.add(check, what, (path.as_py() or "" for path in paths))

    def _check_status(self, batch: pa.RecordBatch) -> Rows:
        """Checks the status columns; returns which rows are ok."""
        import numpy as np

        status = batch.column(STATUS).to_pylist()
        ok = np.array([text == OK_STATUS for text in status], bool)
        failed = np.array([text == ERROR_STATUS for text in status], bool)
        self._add("path", "rows without a path", batch, _nulls(batch.column(PATH)))
        self._add("status", "rows whose status is neither ok nor error", batch, ~(ok | failed))
        self._add("status", "ok rows with an error", batch, ok & ~_nulls(batch.column(ERROR)))
        reasons = map(reason_of, batch.column(ERROR).to_pylist())
        known = np.array([reason in ImageError.REASONS for reason in reasons], bool)
        self._add("status", "error rows without a known reason", batch, failed & ~known)
        count_rows(batch, self._counts)
        return ok

    def _check_predictions(self, batch: pa.RecordBatch, ok: Rows) -> None:
        import numpy as np

        predicted = np.zeros(batch.num_rows, bool)
        previous = None
        for k in range(1, self._top + 1):
            absent = _nulls(batch.column(f"index_{k}"))
            predicted |= ~absent
            self._check_presence(batch, ok, absent, k)
            values = batch.column(f"score_{k}").to_numpy(zero_copy_only=False)
            self._check_scores(batch, ok & ~absent, values, previous, k)
            previous = values
        self._add("values", "error rows with predictions", batch, ~ok & predicted)

    def _check_presence(self, batch: pa.RecordBatch, ok: Rows, absent: Rows, k: int) -> None:
        unscored = _nulls(batch.column(f"score_{k}"))
        incomplete = ~unscored & absent
        for name in (f"label_{k}", f"wnid_{k}"):
            if name in batch.schema.names:
                incomplete |= _nulls(batch.column(name)) != absent
        self._add("values", f"rows with an incomplete prediction {k}", batch, incomplete)
        if self._min_score is None and not self._reader.omits_nulls:
            self._add("values", f"ok rows without a prediction {k}", batch, ok & absent)
        elif self._min_score is None and k == 1:
            self._add("values", "ok rows without predictions", batch, ok & absent)

    def _check_scores(self, batch: pa.RecordBatch, present: Rows, scores: Any, previous: Any, k: int) -> None:
        """Checks the k-th `scores`, float32[b] with NaN for null, in the rows that have them.

        In JSON lines, whose NaN is null, the score of a prediction that is `present` may be null.
        """
        import numpy as np

        finite = present & np.isfinite(scores)
        self._add("nan", f"ok rows with NaN in score_{k}", batch, present & np.isnan(scores))
        with np.errstate(invalid="ignore"):
            if not self._raw:
                self._add("infinite", f"ok rows with an infinite score_{k}", batch, present & np.isinf(scores))
                outside = (scores < -SCORE_TOLERANCE) | (scores > 1 + SCORE_TOLERANCE)
                self._add("range", f"rows with score_{k} outside 0 to 1", batch, finite & outside)
            if self._min_score is not None:
                low = scores < np.float32(self._min_score)
                self._add("range", f"rows with score_{k} below --min-score", batch, finite & low)
            if previous is not None:
                self._add("order", f"rows with score_{k} above score_{k - 1}", batch, finite & (scores > previous))

    def _check_features(self, batch: pa.RecordBatch, ok: Rows) -> None:
        import numpy as np

        column = batch.column(FIRST_RESULT)
        flat = flat_features(column)
        width = len(flat) // max(len(column), 1)
        missing = (np.repeat(_nulls(column), width) | _nulls(flat)).reshape(len(column), width)
        values = flat.to_numpy(zero_copy_only=False).reshape(len(column), width)
        nan = np.isnan(values) & ~missing
        self._add("values", "ok rows with null features", batch, ok & missing.any(1))
        self._add("nan", "ok rows with NaN", batch, ok & nan.any(1))
        self._add("infinite", "ok rows with infinite values", batch, ok & np.isinf(values).any(1))
        self._add("values", "error rows with features", batch, ~ok & ~(missing | nan).all(1))


def _nulls(column: pa.Array) -> Rows:
    return column.is_null().to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
