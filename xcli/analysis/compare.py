"""`compare`: two tables of the same images: what is in one only, what has changed, and by how much.

Memory is some 80 bytes for each row. Vectors of features are read one table after the other: those of the second are in
a temporary file meanwhile, from which each gets to its row of the first.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from xcli.analysis.pairing import NO_LABEL, Rows, pair, read_rows
from xcli.checks.row_index import row_paths
from xcli.core.errors import UsageError
from xcli.core.records import ERROR_STATUS, OK_STATUS
from xcli.core.text import one_line
from xcli.storage import disk
from xcli.storage.streams import write_errors
from xcli.storage.temporary import TemporaryDirectory
from xcli.tables.base import sliced
from xcli.tables.formats import create_table
from xcli.tables.rows import flat_features
from xcli.tables.schema import FIRST_RESULT, feature_shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.tables.base import TableReader

MOST_CHANGED = 20
"""Images that are named as those that have changed most."""

_CHUNK = 1024  # rows whose vectors are in memory
_WRITTEN = 65536


@dataclass(frozen=True)
class Comparison:
    """How table B differs from table A, of which n and m rows were read.

    Attributes:
        command: `classify` or `features`.
        summary: the figures, as `--json` prints them.
        names: of the classes, by number.
        a, b: the rows.
        partner: int64[n], for each row of A its row in B, or -1.
        change: float64[n]. Of classes the difference of the scores (B less A) where the class is the same, else the sum
            of both; of features the cosine. NaN where the two cannot be compared.
        is_other: bool[n], whether the best class is another one; of features always False.
    """

    command: str
    names: list[str | None]
    a: Rows
    b: Rows
    partner: NDArray[np.int64]
    change: NDArray[np.float64]
    is_other: NDArray[np.bool_]
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def distance(self) -> NDArray[np.float64]:
        """How much each row of A has changed, float64[n]: 0 for not at all; NaN where it cannot be compared."""
        import numpy as np

        return np.abs(self.change) if self.command == "classify" else 1 - self.change

    @property
    def only_a(self) -> NDArray[np.int64]:
        """The rows of A that B does not have."""
        import numpy as np

        return np.flatnonzero(self.partner < 0)

    @property
    def only_b(self) -> NDArray[np.int64]:
        """The rows of B that A does not have."""
        import numpy as np

        surplus = np.ones(len(self.b.ok), bool)
        surplus[self.partner[self.partner >= 0]] = False
        return np.flatnonzero(surplus)

    @property
    def status_changed(self) -> NDArray[np.int64]:
        """The rows of A that are ok in one table and an error in the other."""
        import numpy as np

        return np.flatnonzero((self.partner >= 0) & (self.a.ok != _taken(self.b.ok, self.partner, False)))

    @property
    def slightly_changed(self) -> NDArray[np.int64]:
        """The rows of A that are ok in both tables, and differ in the score of the same class, or in the features."""
        import numpy as np

        missing = 0.0 if self.command == "classify" else 1.0  # features whose cosine is not defined do differ
        both = (self.partner >= 0) & self.a.ok & _taken(self.b.ok, self.partner, False)
        return np.flatnonzero(both & ~self.is_other & (np.nan_to_num(self.distance, nan=missing) > 0))

    def label(self, number: int) -> str | None:
        """Returns the name of a class; None for `NO_LABEL`."""
        return None if number == NO_LABEL else self.names[number]


def compare(first: TableReader, second: TableReader, most: int = MOST_CHANGED) -> Comparison:
    """Compares two tables of `classify`, or two of `features`.

    Raises:
        UsageError: they are of different kinds, or their features have different shapes.
        CheckError: one is damaged.
        OutputError: the temporary file cannot be written.
    """
    import numpy as np

    check_comparable(first, second)
    if first.is_escaped or second.is_escaped:
        # What --csv-safe has changed in one table is in neither: paths and classes are matched as texts.
        first.restores_texts = second.restores_texts = True
    numbers: dict[str, int] = {}
    a, b = read_rows(first, numbers), read_rows(second, numbers)
    partner = pair(a.hashes, b.hashes)
    both = np.flatnonzero(partner >= 0)
    both = both[a.ok[both] & b.ok[partner[both]]]
    change, is_other = np.full(len(partner), np.nan), np.zeros(len(partner), bool)
    if first.command == "classify":
        is_other[both] = a.labels[both] != b.labels[partner[both]]
        score_a, score_b = a.scores.astype(np.float64), _taken(b.scores, partner, np.nan).astype(np.float64)
        change[both] = (score_b - score_a)[both]
        other = np.flatnonzero(is_other)
        change[other] = np.nan_to_num(score_a[other]) + np.nan_to_num(score_b[other])
    else:
        _add_cosines(first, second, partner, both, change)
    result = Comparison(first.command, [*numbers], a, b, partner, change, is_other)
    result.summary.update(_summary(result, both, len(b.ok)))
    result.summary["most_changed"] = _most_changed(result, first, most)
    return result


def check_comparable(first: TableReader, second: TableReader) -> None:
    """Raises UsageError for tables of different kinds, or of features of different shapes."""
    if first.command != second.command:
        kinds = f"{one_line(first.name)} is of {first.command}, {one_line(second.name)} of {second.command}"
        raise UsageError(f"tables of one command are compared: {kinds}")
    shapes = [feature_shape(one.schema) for one in (first, second)]
    if shapes[0] != shapes[1]:
        raise UsageError(f"the features have different shapes, {shapes[0]} and {shapes[1]}: other layers, or models")


def _summary(result: Comparison, both: NDArray[np.int64], rows: int) -> dict[str, Any]:
    import numpy as np

    a, partner = result.a, result.partner
    paired = np.flatnonzero(partner >= 0)
    was_ok, is_ok = a.ok[paired], result.b.ok[partner[paired]]
    missing = len(a.ok) + rows - 2 * len(paired) + int((was_ok != is_ok).sum())
    found: dict[str, Any] = {
        "command": result.command,
        "rows": {"a": len(a.ok), "b": rows},
        "only_a": len(a.ok) - len(paired),
        "only_b": rows - len(paired),
        "status": {
            "ok_to_error": int((was_ok & ~is_ok).sum()),
            "error_to_ok": int((~was_ok & is_ok).sum()),
            "error_in_both": int((~was_ok & ~is_ok).sum()),
        },
        "compared": len(both),
        "missing_or_failed_in_one": missing,
    }
    if result.command == "features":
        return found | {"cosine": _spread(result.change[both], lowest=True)}
    changed = int(result.is_other.sum())
    drift = result.change[both[~result.is_other[both]]]
    same, of_all = len(both) - changed, len(both) + missing
    return found | {
        "agreement": same / len(both) if len(both) else None,
        "agreement_of_all": same / of_all if of_all else None,
        "changed": changed,
        "changed_classes": _changed_classes(result),
        "score_drift": _spread(drift, lowest=False),
    }


def _spread(values: NDArray[np.float64], *, lowest: bool) -> dict[str, Any]:
    """Returns median, percentiles and the worst of the values that are numbers, and how many are none."""
    import numpy as np

    numbers = values[~np.isnan(values)]
    if not len(numbers):
        return {"median": None, "p1": None, "p99": None, "worst": None, "not_comparable": len(values)}
    worst = numbers.min() if lowest else numbers[np.argmax(np.abs(numbers))]
    p1, median, p99 = np.percentile(numbers, [1, 50, 99]).tolist()
    missing = len(values) - len(numbers)
    return {"median": median, "p1": p1, "p99": p99, "worst": float(worst), "not_comparable": missing}


def _changed_classes(result: Comparison) -> list[dict[str, Any]]:
    """Returns the pairs of classes, the most frequent first, then by name."""
    import numpy as np

    rows = np.flatnonzero(result.is_other)
    pairs = np.stack([result.a.labels[rows], result.b.labels[result.partner[rows]]], axis=1)
    classes, counts = np.unique(pairs, axis=0, return_counts=True)
    named = [
        {"a": result.label(one), "b": result.label(other), "count": count}
        for (one, other), count in zip(classes.tolist(), counts.tolist(), strict=True)
    ]
    return sorted(named, key=lambda one: (-one["count"], one["a"] or "", one["b"] or ""))


def _most_changed(result: Comparison, first: TableReader, most: int) -> list[dict[str, Any]]:
    """Returns the images that have changed most, the first of equal ones first."""
    import numpy as np

    distance = np.nan_to_num(result.distance)
    rows = np.argsort(-distance, kind="stable")[:most]
    rows = rows[distance[rows] > 0]
    order = np.sort(rows)
    with _counted_whole(first, len(distance)):
        paths = dict(zip(order.tolist(), row_paths([first], order), strict=True))
    return [{"path": paths[row], **_described(result, row)} for row in rows.tolist()]


@contextmanager
def _counted_whole(reader: TableReader, rows: int) -> Iterator[None]:
    """A context in which a table is read, perhaps not to its end: it is told (`on_rows`) that all rows were taken."""
    told, tell = 0, reader.on_rows
    if tell is None:
        yield
        return

    def count(taken: int) -> None:
        nonlocal told
        told += taken
        tell(taken)

    reader.on_rows = count
    try:
        yield
    finally:
        reader.on_rows = tell
    tell(rows - told)


def readings(command: str, *, written: bool) -> tuple[int, int]:
    """Returns how often the first and the second table are read, if the differences are written too, or not."""
    each = (2 if command == "features" else 1) + written
    return each + 1, each


def _described(result: Comparison, row: int) -> dict[str, Any]:
    if result.command == "features":
        return {"cosine": float(result.change[row])}
    other = int(result.partner[row])
    found: dict[str, Any] = {}
    for key, rows, at in (("a", result.a, row), ("b", result.b, other)):
        score = float(rows.scores[at])
        found[f"label_{key}"] = result.label(int(rows.labels[at]))
        found[f"score_{key}"] = None if score != score else score
    return found | {"change": float(result.change[row])}


def _add_cosines(
    first: TableReader, second: TableReader, partner: NDArray[np.int64], both: NDArray[np.int64], change: Any
) -> None:
    """Sets the cosines of the rows `both` of the first table; NaN where a vector is zero or holds none."""
    import numpy as np

    directory = TemporaryDirectory(second.name)
    path = os.path.join(directory.path, "vectors")
    compared = np.zeros(len(partner), bool)
    compared[both] = True
    stored_as = np.dtype(np.float32)
    try:
        with write_errors(path), disk.create(path) as file:
            for _, vectors in _vectors(second):
                stored_as = vectors.dtype
                file.write(vectors.data.cast("B"))
        with open(path, "rb", buffering=0) as stored:
            for start, vectors in _vectors(first):
                rows = np.flatnonzero(compared[start : start + len(vectors)])
                there = np.empty((len(rows), vectors.shape[1]), stored_as)
                # Read, not mapped: what was mapped would count as memory of this process.
                for at, row in enumerate(partner[start + rows].tolist()):
                    stored.seek(row * there.itemsize * there.shape[1])
                    stored.readinto(there[at])
                change[start + rows] = _cosine(vectors[rows], there)
    finally:
        directory.close()


def _vectors(reader: TableReader) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yields the features of a table, [some rows, values] in its own dtype, each with the number of its first row."""
    import numpy as np

    start = 0
    for batch in reader.batches():
        for piece in sliced(batch, _CHUNK):
            flat = flat_features(piece.column(FIRST_RESULT)).to_numpy(zero_copy_only=False)
            yield start, np.ascontiguousarray(flat).reshape(piece.num_rows, -1)
            start += piece.num_rows


def _cosine(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    import numpy as np

    a, b = a.astype(np.float32, copy=False), b.astype(np.float32, copy=False)

    def products(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = np.einsum("ij,ij->i", one, other, dtype=np.float64)
        return found

    with np.errstate(all="ignore"):
        found = products(a, b) / np.sqrt(products(a, a) * products(b, b))
    found[~np.isfinite(found)] = np.nan
    return np.clip(found, -1, 1)


def write_differences(
    result: Comparison, first: TableReader, second: TableReader, target: str, form: str, *, overwrite: bool
) -> None:
    """Writes a row for each image that differs: those of A in their order, then those in B only.

    Columns are `path, difference, status_a, status_b`, then for classes `label_a, score_a, label_b, score_b, change`,
    for features `cosine`. `difference` is `only-a`, `only-b`, `status`, `class`, `score` or `cosine`.

    Raises:
        OutputError: the table exists, or cannot be written.
    """
    import numpy as np

    changed = (result.only_a, result.status_changed, np.flatnonzero(result.is_other), result.slightly_changed)
    rows = np.sort(np.concatenate(changed))
    with create_table(form, target, _schema(result.command), {}, overwrite) as table:
        for reader, of_a, numbers in ((first, True, rows), (second, False, result.only_b)):
            paths = row_paths([reader], numbers)
            with _counted_whole(reader, len(result.a.ok if of_a else result.b.ok)):
                for start in range(0, len(numbers), _WRITTEN):
                    chosen = numbers[start : start + _WRITTEN]
                    table.write(_differences(result, chosen, [*islice(paths, len(chosen))], of_a=of_a))


def _schema(command: str) -> pa.Schema:
    import pyarrow as pa

    texts = ["path", "difference", "status_a", "status_b"]
    if command == "features":
        return pa.schema([*((name, pa.string()) for name in texts), ("cosine", pa.float64())])
    results = [
        (f"{name}_{key}", kind) for key in "ab" for name, kind in (("label", pa.string()), ("score", pa.float32()))
    ]
    return pa.schema([*((name, pa.string()) for name in texts), *results, ("change", pa.float64())])


def _differences(result: Comparison, rows: NDArray[np.int64], paths: list[str], *, of_a: bool) -> pa.RecordBatch:
    """Returns rows of the table of differences: these rows of A, or of B if they are in B only."""
    import numpy as np
    import pyarrow as pa

    none = np.full(len(rows), -1, np.int64)
    at_a, at_b = (rows, result.partner[rows]) if of_a else (none, rows)
    ok = [_taken(side.ok, at, False) for side, at in ((result.a, at_a), (result.b, at_b))]
    change = _taken(result.change, at_a, np.nan)
    is_other = _taken(result.is_other, at_a, False)
    least = "score" if result.command == "classify" else "cosine"
    kinds = np.where(at_a < 0, "only-b", np.where(at_b < 0, "only-a", np.where(ok[0] != ok[1], "status", least)))
    kinds = np.where(is_other, "class", kinds)
    columns = [pa.array(paths, pa.string()), pa.array(kinds.tolist(), pa.string())]
    for side, at in zip(ok, (at_a, at_b), strict=True):
        texts = np.where(side, OK_STATUS, ERROR_STATUS).tolist()
        columns.append(pa.array(texts, pa.string(), mask=at < 0))
    if result.command == "classify":
        for table, at in ((result.a, at_a), (result.b, at_b)):
            labels = [result.label(number) for number in _taken(table.labels, at, NO_LABEL).tolist()]
            columns += [pa.array(labels, pa.string()), pa.array(_taken(table.scores, at, np.nan), from_pandas=True)]
    columns.append(pa.array(change, pa.float64(), from_pandas=True))
    return pa.RecordBatch.from_arrays(columns, schema=_schema(result.command))


def _taken(values: NDArray[Any], at: NDArray[np.int64], missing: Any) -> NDArray[Any]:
    """Returns the values at some places; `missing` where the place is -1."""
    import numpy as np

    if not len(values):
        return np.full(len(at), missing, values.dtype)
    return np.where(at >= 0, values[at], missing).astype(values.dtype)
