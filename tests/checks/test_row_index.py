"""Rows matched to sources."""

from __future__ import annotations

from xcli.checks.row_index import RowIndex
from xcli.core.records import ImageRef


def sources(*paths: str) -> list[ImageRef]:
    return [ImageRef(path, path, path.encode()) for path in paths]


def test_rows_get_the_positions_of_their_sources() -> None:
    index, missing = RowIndex([[["b", "x"], ["a"]], [["b", None]]]), []
    assert index.match(sources("a", "b", "c", "a", "b"), missing.append) == 5
    assert [ref.path for ref in missing] == ["c", "a"]
    assert index.positions.tolist() == [1, -1, 0, 4, -1]
    unknown, surplus = index.unmatched()
    assert (unknown.tolist(), surplus.tolist()) == ([1, 4], [])
    assert index.repeated().tolist() == [3]


def test_surplus_rows_are_not_unknown() -> None:
    index = RowIndex([[["a", "a", "b"]]])
    assert index.match(sources("a"), lambda ref: None) == 1
    unknown, surplus = index.unmatched()
    assert (unknown.tolist(), surplus.tolist()) == ([2], [1])


def test_no_rows() -> None:
    index, missing = RowIndex([[]]), []
    assert index.match(sources("a"), missing.append) == 1
    assert (index.rows, [ref.path for ref in missing], index.repeated().tolist()) == (0, ["a"], [])
