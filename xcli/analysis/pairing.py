"""Rows of two tables brought together by their paths, in whatever order they are; a row takes some 30 bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xcli.checks.row_index import path_hashes
from xcli.core.records import ERROR_STATUS, PATH, STATUS

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.tables.base import TableReader

NO_LABEL = -1


@dataclass(frozen=True)
class Rows:
    """What is kept of each of n rows.

    Attributes:
        hashes: uint64[n], of the paths.
        ok: bool[n].
        labels: int32[n], numbers of the best classes, `NO_LABEL` where there is none; empty for features.
        scores: float32[n], of the best classes, NaN where there is none; empty for features.
    """

    hashes: NDArray[np.uint64]
    ok: NDArray[np.bool_]
    labels: NDArray[np.int32]
    scores: NDArray[np.float32]


def read_rows(reader: TableReader, names: dict[str, int]) -> Rows:
    """Reads a table once; `names` has the number of each class, and gets those that are new.

    Raises:
        CheckError: the table is damaged.
    """
    import numpy as np
    import pyarrow.compute as pc

    hashes, ok = [np.zeros(0, np.uint64)], [np.zeros(0, bool)]
    labels, scores = [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
    has_labels = reader.command == "classify"
    for batch in reader.batches([PATH, STATUS, *(["label_1", "score_1"] if has_labels else [])]):
        hashes.append(path_hashes(path or "" for path in batch.column(PATH).to_pylist()))
        failed = pc.equal(batch.column(STATUS), ERROR_STATUS).fill_null(True)
        ok.append(~failed.to_numpy(zero_copy_only=False))
        if has_labels:
            labels.append(_numbers(batch.column("label_1"), names))
            values = batch.column("score_1").to_numpy(zero_copy_only=False).astype(np.float32)
            scores.append(np.where(np.isfinite(values), values, np.float32(np.nan)))
    return Rows(*(np.concatenate(one) for one in (hashes, ok, labels, scores)))


def _numbers(column: pa.Array, names: dict[str, int]) -> NDArray[np.int32]:
    import numpy as np

    encoded = column.dictionary_encode()
    known = [names.setdefault(name, len(names)) for name in encoded.dictionary.to_pylist()]
    indices = encoded.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
    found: NDArray[np.int32] = np.array([*known, NO_LABEL], np.int32)[indices]
    return found


def pair(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Returns for each row of the first table its row in the second, int64[n], -1 where it has none.

    Rows with one path are paired in their order: the first with the first.
    """
    import numpy as np

    order, other = (np.argsort(hashes, kind="stable") for hashes in (first, second))
    ordered, others = first[order], second[other]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered, "left")
    slot = np.searchsorted(others, ordered, "left") + rank
    found = slot < np.searchsorted(others, ordered, "right")
    partner = np.full(len(first), -1, np.int64)
    partner[order[found]] = other[slot[found]]
    return partner
