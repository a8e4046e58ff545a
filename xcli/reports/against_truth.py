"""A table of `classify` against the true classes of its images (`--truth`): labels become classes of the model."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from xcli.analysis.pairing import NO_LABEL
from xcli.checks.row_index import row_paths
from xcli.core.errors import SourceError, reason_of
from xcli.core.records import ERROR, OK_STATUS, PATH, STATUS
from xcli.core.text import join_names, one_line
from xcli.evaluation.metrics import TOP_K, are_probabilities, calibrate, class_figures
from xcli.models.labels import Labels, find_labels, imagenet_labels, match_labels
from xcli.reports.outcomes import Cells, Outcomes
from xcli.tables.schema import has_wnids, prediction_count

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.analysis.truth import Truth
    from xcli.tables.base import TableReader


class _Reading:
    """What is read of the rows that have a label.

    Attributes:
        names: name, and WordNet id if the table has them, of each class that the table names, by its index.
        errors: of these rows, by reason.
        used: bool[k], which of the labels have a row.
        without_label: rows that have none.
    """

    def __init__(self, truth: Truth, width: int) -> None:
        import numpy as np

        self.names: dict[int, tuple[str, str | None]] = {}
        self.errors: Counter[str] = Counter()
        self.used = np.zeros(len(truth.hashes), bool)
        self.without_label = 0
        self._truth, self._width, self._rows = truth, width, 0
        kinds: list[tuple[Any, Any]] = [(0, np.int32), ((0, width), np.int32), (0, np.float32), (0, np.int64)]
        self._chunks: list[list[NDArray[Any]]] = [[np.zeros(shape, kind)] for shape, kind in kinds]

    def add(self, batch: pa.RecordBatch) -> None:
        """Reads the next rows."""
        import numpy as np
        import pyarrow.compute as pc

        places = self._truth.places(path or "" for path in batch.column(PATH).to_pylist())
        labelled = places >= 0
        self.used[places[labelled]] = True
        ok = pc.equal(batch.column(STATUS), OK_STATUS).fill_null(False).to_numpy(zero_copy_only=False)
        self.errors.update(
            reason_of(batch.column(ERROR)[row].as_py()) for row in np.flatnonzero(~ok & labelled).tolist()
        )
        best = np.stack([self._indices(batch, k) for k in range(1, self._width + 1)], axis=1)
        scores = batch.column("score_1").to_numpy(zero_copy_only=False).astype(np.float32)
        finite = np.isfinite(scores)
        best[~finite, 0] = NO_LABEL  # as everywhere in reports: a score that is no number is none
        scores = np.where(finite, scores, np.float32(np.nan))
        columns: tuple[Any, ...] = (self._truth.numbers[places], best, scores, self._rows + np.arange(len(ok)))
        for chunks, column in zip(self._chunks, columns, strict=True):
            chunks.append(column[ok & labelled])
        self.without_label += int((~labelled).sum())
        self._rows += len(ok)

    def _indices(self, batch: pa.RecordBatch, k: int) -> NDArray[np.int32]:
        """Returns the indices of the k-th predictions, `NO_LABEL` where there is none; learns the names of new ones."""
        import numpy as np

        column = batch.column(f"index_{k}").fill_null(NO_LABEL).to_numpy(zero_copy_only=False)
        indices: NDArray[np.int32] = column.astype(np.int32).clip(min=NO_LABEL)
        different, first = np.unique(indices, return_index=True)
        for index, row in zip(different.tolist(), first.tolist(), strict=True):
            if index != NO_LABEL and index not in self.names:
                label = batch.column(f"label_{k}")[row].as_py()
                wnid = batch.column(f"wnid_{k}")[row].as_py() if has_wnids(batch.schema) else None
                self.names[index] = (label or str(index), wnid)
        return indices

    def columns(self) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32], NDArray[np.int64]]:
        """Returns of the n rows without error numbers of labels, indices[n, width], scores and numbers of rows."""
        import numpy as np

        labels, best, scores, rows = (np.concatenate(chunks) for chunks in self._chunks)
        return labels, best, scores, rows


def read_against(reader: TableReader, truth: Truth) -> Outcomes:
    """Reads a table, and compares its predictions with the labels of their paths. Memory is some 80 bytes for each row.

    Raises:
        SourceError: no row has a label, or no label is a class of the table, or a label means several.
        CheckError: the table is damaged.
    """
    import numpy as np

    reading = _Reading(truth, min(TOP_K, prediction_count(reader.schema)))
    for batch in reader.batches():
        reading.add(batch)
    if not reading.used.any():
        raise SourceError(_no_match(reader, truth))
    classes, meant, unknown = _matched(reader, truth, reading.names)
    labels, best, scores, rows = reading.columns()
    indices = np.array([*classes], np.int64)
    true = np.searchsorted(indices, np.array(meant, np.int64))[labels].astype(np.int32)
    ranked = np.where(best == NO_LABEL, NO_LABEL, np.searchsorted(indices, best)).astype(np.int32)
    predicted, count = ranked[:, 0], len(classes)
    right, sure = true == predicted, predicted != NO_LABEL
    cells = Cells.of(true, predicted, count)
    probable = sure.any() and are_probabilities(scores[sure])
    calibration = calibrate(scores[sure], right[sure]) if probable else None
    # With fewer columns, or with scores left out of them, nobody knows what the fifth best class was.
    knows_five = len(true) and ranked.shape[1] == TOP_K and (ranked != NO_LABEL).all()
    return Outcomes(
        names=tuple(classes.values()),
        true=true,
        predicted=predicted,
        scores=scores,
        rows=rows,
        paths=lambda wanted: row_paths([reader], wanted),
        cells=cells,
        figures=class_figures(*cells.sums(count)),
        top1=float(right.mean()) if len(true) else None,
        top5=float((ranked == true[:, None]).any(1).mean()) if knows_five else None,
        ece=None if calibration is None else calibration.error,
        calibration=calibration,
        errors=reading.errors,
        without_label=reading.without_label,
        without_row=int((~reading.used).sum()),
        notes=_notes(truth, unknown),
    )


def _matched(
    reader: TableReader, truth: Truth, named: dict[int, tuple[str, str | None]]
) -> tuple[dict[int, str], list[int], list[str]]:
    """Returns names of classes by index, the index that each label means, and the labels that mean none.

    A table names only the classes that it has, unless it says that they are ImageNet's. A label that is none of those
    may be a class that was never among the best, and gets an index of its own.
    """
    made = (reader.provenance or reader.meta or {}).get("options") or {}
    known = imagenet_labels()
    if (made.get("labels") or {}).get("sha256") == known.digest:
        indices, labels, unknown = list(range(len(known.names))), known, []
    else:
        indices = sorted(named)
        has_ids = all(named[index][1] is not None for index in indices)
        wnids = tuple(named[index][1] or "" for index in indices) if has_ids else None
        labels = Labels(tuple(named[index][0] for index in indices), wnids, "table")
        candidates = find_labels(truth.labels, labels)
        unknown = [label for label in truth.labels if not candidates[label]]
        if len(unknown) == len(truth.labels):
            listed = (join_names(map(one_line, names)) for names in (unknown, dict.fromkeys(labels.names)))
            raise SourceError(
                "none of the labels ({}) is a class of the table ({}); labels are names or wnids".format(*listed)
            )
    meaning = match_labels([label for label in truth.labels if label not in set(unknown)], labels)
    following = max(indices, default=-1) + 1
    meant = {label: following + number for number, label in enumerate(unknown)}
    meant |= {label: indices[place] for label, place in meaning.items()}
    classes = {index: name for index, (name, _) in named.items()}
    for label, index in meant.items():
        classes.setdefault(index, labels.names[index] if labels is known else label)
    return dict(sorted(classes.items())), [meant[label] for label in truth.labels], unknown


def _notes(truth: Truth, unknown: list[str]) -> tuple[str, ...]:
    notes = []
    if truth.conflicting:
        notes.append(f"{truth.conflicting:,} paths have more than one label, and count as without one.")
    if unknown:
        notes.append(
            f"{len(unknown):,} labels are no class that the table names, and count as never predicted: "
            f"{join_names(map(one_line, unknown))}."
        )
    return tuple(notes)


def _no_match(reader: TableReader, truth: Truth) -> str:
    first = next((batch.column(PATH)[0].as_py() for batch in reader.batches([PATH]) if batch.num_rows), None)
    return (
        f"no row of {one_line(reader.name)} has a label: its paths are like '{one_line(first or '')}', those with "
        f"labels like '{one_line(truth.example)}'; they must be written alike"
    )
