"""`xception verify`: whether a table is what a run promises, row by row, and whether every source has its row.

One pass over the values and one over the paths, a batch at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xcli.checks.findings import Finding, Findings, RowIndex, names_of, paths_of
from xcli.core.errors import CheckError, ImageError, SourceError, reason_of
from xcli.core.records import ERROR, ERROR_STATUS, OK_STATUS, PATH, STATUS, STATUS_COLUMNS, RunCounts
from xcli.core.text import one_line
from xcli.sources.listing import OTHER_SHARD
from xcli.tables.provenance import PROVENANCE_KEYS, differences, provenance_of
from xcli.tables.schema import (
    FIRST_RESULT,
    classify_schema,
    feature_shape,
    features_schema,
    has_wnids,
    prediction_columns,
    prediction_count,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.sources.listing import Listing
    from xcli.tables.base import TableReader

    Rows = NDArray[np.bool_]

SCORE_SLACK = 1e-3
"""How far a probability may lie outside [0, 1]: of half precision, whose softmax is rounded."""


@dataclass(slots=True)
class Verdict:
    """What `verify` found.

    Attributes:
        name: of the table.
        command: `classify` or `features`.
        width: predictions a row, or values a row of features.
        report: counts of the rows; `listed` is the number of sources, or of rows without them.
        sources: whether the rows were held against sources.
        findings: what is wrong, and warnings.
        provenance: what made the rows, as far as the file says.
    """

    name: str
    command: str
    width: int
    report: RunCounts = field(default_factory=RunCounts)
    sources: bool = False
    findings: list[Finding] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return all(finding.warning for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "passed": self.passed,
            "kind": self.command,
            "rows": self.report.rows,
            "images": self.report.as_dict(),
            "sources": self.sources,
            "findings": [finding.as_dict() for finding in self.findings],
            "provenance": self.provenance,
        }


def verify(reader: TableReader, listing: Listing | None, findings: Findings) -> Verdict:
    """Checks a table.

    Args:
        reader: of the table.
        listing: what should have rows, not begun; None leaves the sources out.
        findings: gets what is found.

    Raises:
        CheckError: the file is damaged, so that there are no rows to check.
        SourceError: the listing fails.
    """
    schema = reader.schema
    shape = feature_shape(schema)
    width = prediction_count(schema) if shape is None else _product(shape)
    verdict = Verdict(reader.name, reader.command, width, sources=listing is not None)
    verdict.provenance = reader.provenance or provenance_of(reader.meta or {})
    _check_provenance(reader, findings)
    sound = _check_schema(reader, verdict.provenance, findings)
    index = RowIndex.of([paths_of(reader)])
    _Values(reader, verdict, findings).check(only_status=not sound)
    check_counts(reader, verdict.report, findings)
    verdict.report.listed = index.rows
    if listing is None:
        again = index.repeated()
        if len(again):
            what = "rows whose path has a row before (right only if the sources list it so often)"
            findings.add("repeated", what, names_of([reader], again), warning=True)
    else:
        verdict.report.listed = match(index, [reader], listing, findings)
        verdict.report.skipped = {key: count for key, count in listing.skipped.items() if key != OTHER_SHARD}
        _check_order(index, findings)
    verdict.findings = findings.all
    return verdict


def match(index: RowIndex, readers: list[TableReader], listing: Listing, findings: Findings) -> int:
    """Holds rows against sources: what has no row, what has no source, what has too many; returns how many sources.

    Raises:
        SourceError: the listing fails.
    """
    listed = index.match(listing, lambda path: findings.add("missing", "sources without a row", [path]))
    unknown, surplus = index.unmatched()
    if len(unknown):
        findings.add("unknown", "rows that no source has", names_of(readers, unknown))
    if len(surplus):
        findings.add("duplicate", "rows more than the sources list their path", names_of(readers, surplus))
    return listed


def _product(shape: tuple[int, ...]) -> int:
    import math

    return math.prod(shape)


def _check_provenance(reader: TableReader, findings: Findings) -> None:
    if reader.meta is None:
        findings.add("provenance", "missing FILE.meta.json", [f"{one_line(reader.name)}.meta.json"])
    if reader.self_describing and reader.provenance is None:
        findings.add("provenance", "no provenance in the metadata of the Parquet file", [one_line(reader.name)])
    for where, found in (("FILE.meta.json", reader.meta), ("the Parquet metadata", reader.provenance)):
        if found is not None:
            absent = [key for key in PROVENANCE_KEYS if key not in found]
            findings.add("provenance", f"members missing in {where}", absent)
    if reader.meta is not None and reader.provenance is not None:
        differing = differences(reader.provenance, provenance_of(reader.meta))
        names = (f"{key}: {one!r} and {other!r}" for key, one, other in differing)
        findings.add("provenance", "differences between the Parquet metadata and FILE.meta.json", names)


def _check_schema(reader: TableReader, provenance: dict[str, Any], findings: Findings) -> bool:
    """Holds the columns against the contract, and what the options promise; says whether they have its types."""
    schema, options = reader.schema, _members(provenance, "options")
    shape = feature_shape(schema)
    top = prediction_count(schema)
    both = has_wnids(schema)
    try:
        if shape is None:
            own = FIRST_RESULT + top * len(prediction_columns(wnids=both))
            carried = [(field.name, field.type) for field in list(schema)[own:]]
            expected = classify_schema(top, "both" if both else "name", carried)
        else:
            column = schema.field(FIRST_RESULT).type
            dtype = "float16" if str(column.value_type) == "halffloat" else "float32"
            carried = [(field.name, field.type) for field in list(schema)[FIRST_RESULT + 1 :]]
            expected = features_schema(shape, dtype, carried)  # type: ignore[arg-type]
            if reader.keeps_dtype and options.get("dtype", dtype) != dtype:
                findings.add("schema", "columns of another type", [f"features: {dtype}, not {options['dtype']}"])
    except SourceError as error:
        findings.add("schema", "columns of no run", [str(error)])
        return False
    for field_, right in zip(schema, expected, strict=True):
        if field_.name != right.name:
            findings.add("schema", "columns out of place", [f"{field_.name!r}, where {right.name!r} belongs"])
        elif field_.type != right.type:
            findings.add("schema", "columns of another type", [f"{field_.name}: {field_.type}, not {right.type}"])
    if shape is None and not reader.omits_nulls:
        if isinstance(options.get("top"), int) and top > options["top"]:
            findings.add("schema", "columns of another number", [f"{top} predictions, not {options['top']}"])
        if options.get("label_type") in ("name", "wnid", "both") and both != (options["label_type"] == "both"):
            findings.add("schema", "columns of no run", [f"wnid_1 and the label type {options['label_type']}"])
    return bool(schema.equals(expected))


def _members(value: dict[str, Any], key: str) -> dict[str, Any]:
    inner = value.get(key)
    return inner if isinstance(inner, dict) else {}


def check_counts(reader: TableReader, report: RunCounts, findings: Findings) -> None:
    """Holds the rows of a table against what its `FILE.meta.json` counts."""
    findings.add("counts", "counts of FILE.meta.json that the rows do not have", _count_differences(reader, report))


def count_rows(batch: pa.RecordBatch, report: RunCounts) -> None:
    """Adds the rows of a batch to the counts; whatever is not ok counts as an error."""
    for status, error in zip(batch.column(STATUS).to_pylist(), batch.column(ERROR).to_pylist(), strict=True):
        if status == OK_STATUS:
            report.ok += 1
        else:
            report.errors[reason_of(error)] = report.errors.get(reason_of(error), 0) + 1


def _count_differences(reader: TableReader, report: RunCounts) -> list[str]:
    """Where `images` of FILE.meta.json and the rows differ, in words."""
    if reader.meta is None:
        return []
    told = _members(reader.meta, "images")
    found = {"listed": report.rows, "ok": report.ok, "errors": report.errors}
    name = one_line(reader.name)
    return [
        f"{name}: {key} is {told.get(key)}, in the rows {here}" for key, here in found.items() if told.get(key) != here
    ]


def _check_order(index: RowIndex, findings: Findings) -> None:
    import numpy as np

    positions = index.positions[index.positions >= 0]
    breaks = np.flatnonzero(np.diff(positions) < 0)
    names = (f"behind row {row + 1}" for row in breaks)
    findings.add("order", "places where rows are not in the order of the sources", names, warning=True)


class _Values:
    """The pass over the values."""

    def __init__(self, reader: TableReader, verdict: Verdict, findings: Findings) -> None:
        self._reader = reader
        self._report = verdict.report
        self._findings = findings
        options = _members(verdict.provenance, "options")
        self._min_score = options.get("min_score")
        self._raw = options.get("raw_scores") is True
        self._top = prediction_count(reader.schema) if verdict.command == "classify" else 0

    def check(self, *, only_status: bool) -> None:
        for batch in self._reader.batches(STATUS_COLUMNS if only_status else None):
            ok = self._check_status(batch)
            if only_status:
                continue
            if self._top:
                self._check_predictions(batch, ok)
            else:
                self._check_features(batch, ok)

    def _add(self, check: str, what: str, batch: pa.RecordBatch, rows: Rows) -> None:
        if rows.any():
            self._findings.add(check, what, _paths(batch, rows))

    def _check_status(self, batch: pa.RecordBatch) -> Rows:
        """Path, status and error; returns which rows are ok."""
        import numpy as np

        status = batch.column(STATUS).to_pylist()
        ok = np.array([text == OK_STATUS for text in status], bool)
        failed = np.array([text == ERROR_STATUS for text in status], bool)
        self._add("path", "rows without a path", batch, _nulls(batch.column(PATH)))
        self._add("status", "rows whose status is neither ok nor error", batch, ~(ok | failed))
        silent = _nulls(batch.column(ERROR))
        self._add("status", "ok rows with an error", batch, ok & ~silent)
        reasons = [reason_of(text) for text in batch.column(ERROR).to_pylist()]
        known = np.array([reason in ImageError.REASONS for reason in reasons], bool)
        self._add("status", "error rows without a known reason", batch, failed & ~known)
        count_rows(batch, self._report)
        return ok

    def _check_predictions(self, batch: pa.RecordBatch, ok: Rows) -> None:
        import numpy as np

        before: Any = None
        predicted = np.zeros(batch.num_rows, bool)
        for k in range(1, self._top + 1):
            score = batch.column(f"score_{k}")
            absent = _nulls(batch.column(f"index_{k}"))
            names = [f"label_{k}"] + ([f"wnid_{k}"] if f"wnid_{k}" in batch.schema.names else [])
            torn = np.zeros(batch.num_rows, bool)
            for name in names:
                torn |= _nulls(batch.column(name)) != absent
            unscored = _nulls(score) & ~absent  # in JSON lines, where NaN is null
            self._add("values", f"rows with half a prediction ({k})", batch, torn | (~_nulls(score) & absent))
            predicted |= ~absent
            values = score.to_numpy(zero_copy_only=False)
            there = ok & ~absent
            if self._min_score is None and not self._reader.omits_nulls:
                self._add("values", f"ok rows without a prediction {k}", batch, ok & absent)
            elif self._min_score is None and k == 1:
                self._add("values", "ok rows without predictions", batch, ok & absent)
            self._add("nan", f"ok rows with NaN as score {k}", batch, there & (np.isnan(values) | unscored))
            with np.errstate(invalid="ignore"):
                finite = there & np.isfinite(values)
                if not self._raw:
                    self._add("infinite", f"ok rows with an infinite score {k}", batch, there & np.isinf(values))
                    outside = (values < -SCORE_SLACK) | (values > 1 + SCORE_SLACK)
                    self._add("range", f"scores {k} outside 0 to 1", batch, finite & outside)
                if self._min_score is not None:
                    low = values < np.float32(self._min_score)
                    self._add("range", f"scores {k} below --min-score", batch, finite & low)
                if before is not None:
                    self._add("order", f"scores {k} above the one before", batch, finite & (values > before))
            before = values
        self._add("values", "error rows with predictions", batch, ~ok & predicted)

    def _check_features(self, batch: pa.RecordBatch, ok: Rows) -> None:
        import numpy as np
        import pyarrow as pa

        column = batch.column(FIRST_RESULT)
        storage = column.storage if isinstance(column.type, pa.BaseExtensionType) else column
        width = storage.type.list_size
        flat = storage.values.slice(storage.offset * width, len(storage) * width)
        missing = np.repeat(_nulls(storage), width) | _nulls(flat)
        values = flat.to_numpy(zero_copy_only=False).reshape(-1, width)
        missing = missing.reshape(-1, width)
        nan = np.isnan(values) & ~missing
        self._add("values", "ok rows with null features", batch, ok & missing.any(1))
        self._add("nan", "ok rows with NaN", batch, ok & nan.any(1))
        self._add("infinite", "ok rows with infinite values", batch, ok & np.isinf(values).any(1))
        self._add("values", "error rows with features", batch, ~ok & ~(missing | nan).all(1))


def _nulls(column: pa.Array) -> Rows:
    nulls: Rows = column.is_null().to_numpy(zero_copy_only=False)
    return nulls


def _paths(batch: pa.RecordBatch, rows: Rows) -> Iterator[str]:
    import numpy as np

    column = batch.column(PATH)
    return (column[int(row)].as_py() or "" for row in np.flatnonzero(rows))


def refusal(findings: list[Finding]) -> CheckError:
    """The error that sums findings up: `sources without a row: 2; rows that no source has: 1`."""
    return CheckError("; ".join(f"{finding.what}: {finding.count:,}" for finding in findings))
