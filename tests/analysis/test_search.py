"""`search` against a plain computation in float64, on random tables and on those that are made to mislead it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from xcli.analysis.search import Space, most_alike
from xcli.analysis.vectors import Block
from xcli.analysis.whitening import fit_whitening

ROWS = 300


def blocks(values: np.ndarray, ok: np.ndarray, size: int = 64) -> Iterator[Block]:
    for start in range(0, len(values), size):
        here = slice(start, start + size)
        paths = pa.array([f"{row}.jpg" for row in range(len(values))[here]])
        yield Block(start, paths, values[here].copy(), ok[here])


def plain(
    values: np.ndarray, ok: np.ndarray, queries: np.ndarray, top: int, space: Space
) -> list[list[tuple[int, float]]]:
    """All cosines in float64, rounded to float32, sorted."""
    with np.errstate(invalid="ignore"):
        cosines = (space.unit(queries) @ space.unit(values).T).clip(-1, 1).astype(np.float32)
    cosines[:, ~ok] = np.nan
    found = []
    for row in cosines:
        order = np.argsort(-row, kind="stable")
        found.append([(int(one), float(row[one])) for one in order[:top] if not np.isnan(row[one])])
    return found


def answers(values: np.ndarray, ok: np.ndarray, queries: np.ndarray, top: int, space: Space) -> list[list[object]]:
    found = most_alike(blocks(values, ok), queries, top, space)
    for row, path in found.paths.items():
        assert path == f"{row}.jpg"
    assert set(found.paths) >= set(found.rows[found.rows >= 0].tolist())
    return [
        [(row, score) for row, score in zip(rows, scores, strict=True) if row >= 0]
        for rows, scores in zip(found.rows.tolist(), found.scores.tolist(), strict=True)
    ]


def table(kind: str, random: np.random.Generator, width: int = 24) -> tuple[np.ndarray, np.ndarray]:
    values = random.standard_normal((ROWS, width)).astype(np.float32)
    ok = np.ones(ROWS, bool)
    if kind == "ties":
        values = values[random.integers(0, 9, ROWS)]
    elif kind == "equal":
        values[:] = values[0]
    elif kind == "one direction":
        values = values[:1] * random.uniform(0.1, 10, (ROWS, 1)).astype(np.float32)
    elif kind == "close":
        values = values[:1] + values * np.float32(1e-6)
    elif kind == "zeros":
        values[::3] = 0
    elif kind == "errors":
        ok[::3] = False
        values[~ok] = 0
    elif kind == "large and small":
        values *= np.float32(10) ** random.integers(-36, 36, (ROWS, 1)).astype(np.float32)
    elif kind == "float16":
        values = values.astype(np.float16).astype(np.float32)
    return values, ok


KINDS = ["random", "ties", "equal", "one direction", "close", "zeros", "errors", "large and small", "float16"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("top", [1, 7, 1000])
def test_the_same_as_all_cosines_sorted(kind: str, top: int) -> None:
    random = np.random.default_rng(KINDS.index(kind))
    values, ok = table(kind, random)
    queries = np.concatenate([values[1:5], random.standard_normal((3, values.shape[1]))])
    assert answers(values, ok, queries, top, Space()) == plain(values, ok, queries, top, Space())


@pytest.mark.parametrize("kind", ["random", "ties", "errors", "float16"])
def test_whitened(kind: str) -> None:
    random = np.random.default_rng(5)
    values, ok = table(kind, random)
    values[ok] = values[ok] * np.geomspace(1, 100, values.shape[1], dtype=np.float32) + 50  # one large, narrow cloud
    space = Space(fit_whitening(blocks(values, ok)))
    queries = values[1:5]
    assert answers(values, ok, queries, 9, space) == plain(values, ok, queries, 9, space)
    if kind != "ties":
        assert answers(values, ok, queries, 9, space) != answers(values, ok, queries, 9, Space())


def test_rows_that_are_no_answer_to_a_query() -> None:
    values, ok = table("ties", np.random.default_rng(2))
    excluded = np.array([2, 3, 70]), np.array([0, 0, 1])
    found = most_alike(blocks(values, ok), values[[2, 70]], ROWS, Space(), excluded)
    assert set(found.rows[0].tolist()) == {-1, *range(ROWS)} - {2, 3}
    assert set(found.rows[1].tolist()) == {-1, *range(ROWS)} - {70}


def test_pieces_of_blocks_are_searched_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    values, ok = table("ties", np.random.default_rng(3))
    queries = np.random.default_rng(4).standard_normal((50, values.shape[1]))
    whole = answers(values, ok, queries, 5, Space())
    monkeypatch.setattr("xcli.analysis.search._PRODUCTS", 50 * 11)
    assert answers(values, ok, queries, 5, Space()) == whole
    monkeypatch.setattr("xcli.analysis.search._EXACT_ROWS", 3)
    monkeypatch.setattr("xcli.analysis.search._DENSE", 0)
    assert answers(values, ok, queries, 5, Space()) == whole


def test_only_the_paths_of_answers_are_kept() -> None:
    values, ok = np.eye(8, dtype=np.float32)[np.zeros(ROWS, int)], np.ones(ROWS, bool)
    values[:, 1] = np.linspace(1, 0, ROWS)  # each row is better than all before it
    found = most_alike(blocks(values, ok, 1), np.eye(8)[:1], 1, Space())
    assert found.rows.tolist() == [[ROWS - 1]]
    assert found.paths[ROWS - 1] == f"{ROWS - 1}.jpg"


def test_an_empty_table() -> None:
    found = most_alike(iter(()), np.eye(3), 4, Space())
    assert (found.rows == -1).all()
    assert found.paths == {}
