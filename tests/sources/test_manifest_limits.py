"""Small manifests that take much memory or time once they are decoded, read by a child within 1 GiB and 10 s."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.budget import Cost, check_cost

READ = """
import sys
from collections import Counter, deque
from xcli.core.errors import SourceError
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions

in_flight = deque(maxlen=200)  # as in a run
errors = Counter()
try:
    with list_images(SourceOptions(manifest=sys.argv[1]), numbers=True) as listing:
        for ref in listing:
            in_flight.append(ref)
            errors[str(ref.error)[:300]] += 1
except SourceError as error:
    sys.exit(f"refused: {str(error)[:300]}")
print(listing.listed, "rows", dict(errors.most_common(3)))
"""

MIB = 1 << 20


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("honest") / "m.parquet"
    pq.write_table(pa.table({"path": [f"{n}.jpg" for n in range(4096)], "id": list(range(4096))}), path)
    return str(path)


Read = Callable[..., Cost]


@pytest.fixture
def read(tmp_path: Path, honest: str) -> Read:
    def run(table: Any, name: str = "m.parquet", **options: Any) -> Cost:
        path = tmp_path / name
        if isinstance(table, dict):
            pq.write_table(pa.table(table), path, **{"compression": "zstd", **options})
        else:
            path.write_bytes(table)
        return check_cost(READ, [path], [honest])

    return run


PATHS = ["a.jpg"] * 4096


def shared(size: int, rows: int = 4096) -> pa.Array:
    """A column of one text, stored once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), ["x" * size])


class TestParquet:
    @pytest.mark.parametrize("column", ["path", "note"])
    @pytest.mark.parametrize("size", [MIB, 4 * MIB, 64 * MIB])
    def test_one_value_in_every_row(self, read: Read, column: str, size: int) -> None:
        cost = read({"path": PATHS} | {column: shared(size)})
        print(cost)

    def test_in_lists(self, read: Read) -> None:
        cost = read({"path": PATHS, "tags": pa.array([["x" * MIB] * 3] * 40 + [[]] * 4056)})
        print(cost)
        values = pa.array([["x"] * 100_000] * 40 + [[]] * 4056)
        print(read({"path": PATHS, "tags": values}))
        print(read({"path": PATHS, "tags": pa.array([[{"a": True}] * 1_000_000] + [None] * 4095)}))
        print(read({"path": PATHS, "tags": pa.ListArray.from_arrays(pa.array([0]*4096+[30_000_000]), pa.array([0]*30_000_000,pa.int8()))}))

    def test_pages(self, read: Read) -> None:
        print(read({"path": PATHS[:300], "note": ["x" * MIB] * 300}, use_dictionary=False, data_page_size=1 << 30))
        print(read({"path": PATHS[:300], "note": ["x" * MIB] * 300}, use_dictionary=False))
        print(read({"path": PATHS[:300], "note": ["x" * MIB] * 300}, use_dictionary=False, column_encoding={"path":"PLAIN","note":"DELTA_BYTE_ARRAY"}))
        print(read({"path": PATHS, "note": ["x" * 30000] * 4096}, use_dictionary=False, column_encoding={"path":"PLAIN","note":"DELTA_BYTE_ARRAY"}))
        print(read({"path": PATHS[:512], "note": pa.array([b"x" * MIB] * 512, pa.binary(MIB))}))

    def test_many(self, read: Read) -> None:
        t = pa.table({"path": PATHS[:1]} | {f"c{n}": [1] for n in range(100_000)})
        print(read({n: t[n] for n in t.column_names}))
        t = pa.table({"path": PATHS[:1]} | {f"c{n}": [1] for n in range(16_000)})
        print(read({n: t[n] for n in t.column_names}))
        print(read({"path": ["a"] * 20000}, row_group_size=1))
        print(read({"path": pa.nulls(50_000_000, pa.string())}))
        print(read({"path": pa.nulls(1_000_000, pa.string())}))
