"""What a text of the command line of `search` stands for, and what becomes of queries without a vector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.writtentables import provenance, write
from xcli.analysis.queries import Queries, Query, find_queries
from xcli.analysis.search import Space, fit_space
from xcli.analysis.vectors import FeatureTables, open_features
from xcli.core.errors import ImageError, SourceError, SourceNotFoundError, UsageError
from xcli.sources.listing import Listing

WIDTH = 3
VECTORS = np.arange(18, dtype=np.float32).reshape(6, WIDTH) + 1


def make_table(path: Path, rows: list[tuple[str, np.ndarray | str]], **changes: Any) -> str:
    """Writes rows of features: a path, then its vector, or the text of an error."""
    nothing = np.full(WIDTH, np.nan, np.float32)
    columns = {
        "path": [name for name, _ in rows],
        "status": ["error" if isinstance(one, str) else "ok" for _, one in rows],
        "error": [one if isinstance(one, str) else None for _, one in rows],
        "features": [(nothing if isinstance(one, str) else one).tolist() for _, one in rows],
    }
    texts = [pa.array(columns[name], pa.string()) for name in ("path", "status", "error")]
    features = pa.array(columns["features"], pa.list_(pa.float32(), WIDTH))
    batch = pa.RecordBatch.from_arrays([*texts, features], names=[*columns])
    return write(path, batch, provenance("features", **changes))


@pytest.fixture
def tables(tmp_path: Path) -> FeatureTables:
    first: list[Any] = [("d/a.jpg", VECTORS[0]), ("d/bad.jpg", "empty: no bytes"), ("d/b.jpg", VECTORS[1])]
    second: list[Any] = [("d/a.jpg", VECTORS[2]), ("zero.jpg", 0 * VECTORS[0]), (r"d/\xff.jpg", VECTORS[3])]
    return open_features([make_table(tmp_path / "one.parquet", first), make_table(tmp_path / "two.npy", second)])


def nothing(listing: Listing) -> Iterator[Any]:
    raise AssertionError("no image is to be embedded")


def found(queries: Queries) -> list[tuple[str, list[float], list[int]]]:
    return [(query.name, query.vector.tolist(), [*query.own]) for query in queries.found]


def names(queries: Queries) -> list[str]:
    return [query.name for query in queries.found]


def test_rows_in_the_order_given(tables: FeatureTables) -> None:
    queries = find_queries(tables, ["d/b.jpg", "d/a.jpg", "d/\udcff.jpg", "d/b.jpg"], nothing)
    assert found(queries) == [
        ("d/b.jpg", VECTORS[1].tolist(), [2]),
        ("d/a.jpg", VECTORS[0].tolist(), [0, 3]),
        (r"d/\xff.jpg", VECTORS[3].tolist(), [5]),
        ("d/b.jpg", VECTORS[1].tolist(), [2]),
    ]
    rows, numbers = queries.excluded()
    assert [*zip(rows.tolist(), numbers.tolist(), strict=True)] == [(0, 1), (2, 0), (2, 3), (3, 1), (5, 2)]


def test_rows_without_a_vector(tables: FeatureTables) -> None:
    queries = find_queries(tables, ["d/bad.jpg", "zero.jpg", "d/a.jpg"], nothing)
    assert names(queries) == ["d/a.jpg"]
    assert [name for name, _ in queries.problems] == ["d/bad.jpg", "zero.jpg"]
    assert "error row of the table: empty: no bytes" in queries.problems[0][1]


def test_a_row_is_not_looked_for_on_the_disk(
    tables: FeatureTables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("zero.jpg").write_bytes(b"x")
    assert [name for name, _ in find_queries(tables, ["zero.jpg"], nothing).problems] == ["zero.jpg"]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_vectors(tables: FeatureTables, tmp_path: Path, dtype: str) -> None:
    path = str(tmp_path / "q.npy")
    np.save(path, np.array([[1, 2, 3], [0, 0, 0], [np.nan, 1, 1], [3, 2, 1]], dtype))
    queries = find_queries(tables, [path], nothing)
    assert found(queries) == [(f"{path}[0]", [1, 2, 3], []), (f"{path}[3]", [3, 2, 1], [])]
    assert [name for name, _ in queries.problems] == [f"{path}[1]", f"{path}[2]"]
    np.save(path, np.array([1, 2, 3], dtype))
    assert found(find_queries(tables, [path], nothing)) == [(f"{path}[0]", [1, 2, 3], [])]


@pytest.mark.parametrize(
    ("array", "error"),
    [(np.ones((2, 4)), UsageError), (np.ones((2, 3), int), SourceError), (np.ones((1, 2, 3)), SourceError)],
)
def test_vectors_of_another_kind(
    tables: FeatureTables, tmp_path: Path, array: np.ndarray, error: type[Exception]
) -> None:
    np.save(tmp_path / "q.npy", array)
    with pytest.raises(error, match=r"q\.npy"):
        find_queries(tables, [str(tmp_path / "q.npy")], nothing)


def test_npy_that_would_run_code_is_refused(tables: FeatureTables, tmp_path: Path) -> None:
    np.save(tmp_path / "q.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(SourceError, match="as NPY"):
        find_queries(tables, [str(tmp_path / "q.npy")], nothing)


def test_images_are_embedded_in_one_run(tables: FeatureTables, tmp_path: Path) -> None:
    for name in ("d/x.jpg", "d/y.jpg", "z.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    runs = []

    def embed(listing: Listing) -> Iterator[Any]:
        refs = [*listing]
        runs.append(refs)
        for number, ref in enumerate(refs):
            is_bad = ref.path.endswith("y.jpg")
            yield ref, None if is_bad else VECTORS[number], ImageError("empty", "no bytes") if is_bad else None

    z, folder = str(tmp_path / "z.jpg"), str(tmp_path / "d")
    queries = find_queries(tables, [z, "d/b.jpg", folder], embed)
    assert len(runs) == 1
    assert names(queries) == [z, "d/b.jpg", f"{folder}/x.jpg"]
    assert [query.vector.tolist() for query in queries.found] == [VECTORS[row].tolist() for row in (0, 1, 1)]
    assert queries.problems == [(f"{folder}/y.jpg", "empty: no bytes")]
    assert [query.own for query in queries.found] == [(), (2,), ()]


def test_what_is_nothing_is_named_with_rows_that_end_like_it(tables: FeatureTables, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"'b\.jpg' is neither .*one\.parquet.*did you mean d/b\.jpg"):
        find_queries(tables, ["b.jpg"], nothing)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceNotFoundError, match="holds no images"):
        find_queries(tables, [str(tmp_path / "empty")], nothing)


def test_too_many(tables: FeatureTables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xcli.analysis.queries.MAX_QUERIES", 2)
    np.save(tmp_path / "q.npy", np.ones((3, WIDTH)))
    with pytest.raises(UsageError, match="divide"):
        find_queries(tables, [str(tmp_path / "q.npy")], nothing)
    with pytest.raises(UsageError, match="divide"):
        find_queries(tables, ["d/a.jpg"] * 3, nothing)


def test_the_mean_of_a_table_has_no_direction_when_whitened(tmp_path: Path) -> None:
    rows = [(f"{row}.jpg", vector) for row, vector in enumerate([*np.eye(3), -np.eye(3)[0], [0, -1, 0], [0, 0, -1]])]
    table = make_table(tmp_path / "t.parquet", [(name, np.array(vector, np.float32) + 1) for name, vector in rows])
    tables = open_features([table])
    queries = Queries()
    queries.add(Query("mean", np.ones(3)))
    queries.add(Query("other", np.array([1, 2, 3])))
    queries.drop_without_direction(Space())
    assert names(queries) == ["mean", "other"]
    queries.drop_without_direction(fit_space(tables, whiten=True))
    assert names(queries) == ["other"]
    assert [name for name, _ in queries.problems] == ["mean"]
