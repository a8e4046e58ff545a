"""Small tables and label files that take much memory or time once they are read: each ends a command by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.budget import check_cost
from xcli.core.errors import CheckError, LabelsError
from xcli.models.labels import read_labels
from xcli.storage import parquet_file
from xcli.tables import parquet
from xcli.tables.formats import create_table, open_table
from xcli.tables.schema import classify_schema, features_schema

READ = """
import sys
from xcli.checks.findings import Findings
from xcli.checks.verify import verify
from xcli.core.errors import XcliError
from xcli.models.labels import read_labels
from xcli.tables.formats import open_table

for name in sys.argv[1:]:
    try:
        if name.endswith((".txt", ".json")):
            read_labels(name)
        else:
            verify(open_table(name), None, Findings())
        print("read", flush=True)
    except XcliError as error:
        print(error.exit_code, str(error)[-100:], flush=True)
"""
"""Verifies tables, and reads label files, and says of each how it ended."""

MIB = 1 << 20
ROWS = 4096

Read = Callable[..., list[str]]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(str(tmp_path_factory.mktemp("honest") / "t.parquet"))


@pytest.fixture
def read(honest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)

    def run(*names: str) -> list[str]:
        cost = check_cost(READ, [str(Path(name).absolute()) for name in names], [honest])
        assert cost.code == 0, cost
        return cost.text.splitlines()

    return run


def write(name: str, rows: int = ROWS, **columns: Any) -> str:
    """Writes a table of `classify` with other columns, whose dictionaries are not to be seen in the schema."""
    own = {
        "path": ["a.jpg"] * rows,
        "status": ["ok"] * rows,
        "error": pa.nulls(rows, pa.string()),
        "label_1": ["cat"] * rows,
        "index_1": pa.array([0] * rows, pa.int32()),
        "score_1": pa.array([0.5] * rows, pa.float32()),
    }
    pq.write_table(pa.table(own | columns), name, compression="zstd", store_schema=False)
    return name


def shared(text: str) -> pa.Array:
    """A column of one text, which the file holds once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * ROWS, pa.int32()), [text])


class TestParquet:
    def test_one_value_in_all_rows(self, read: Read) -> None:
        text = shared("x" * MIB)
        (line,) = read(write("t.parquet", path=text, label_1=text, note=text))
        assert Path("t.parquet").stat().st_size < 2000
        assert line.startswith("6 ")
        assert re.search(r" bytes become [23]\d\d,\d\d\d,\d\d\d$", line)

    def test_lists_of_a_fixed_size(self, read: Read) -> None:
        for name, width in (("wide", 10_000_000), ("wider", 40_000_000)):
            features = pa.array([None], pa.list_(pa.float32(), width))
            table = {"path": ["a.jpg"], "status": ["ok"], "error": pa.nulls(1, pa.string()), "features": features}
            pq.write_table(pa.table(table), f"{name}.parquet")
        wide, wider = read("wide.parquet", "wider.parquet")
        assert wide == "read"
        assert wider.endswith("a row of it takes 160,000,000 bytes")

    def test_columns(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parquet_file, "_MAX_COLUMNS", 6)
        assert open_table(write(str(tmp_path / "t.parquet"), 1)).schema.names[-1] == "score_1"
        with pytest.raises(CheckError, match="it has 7 columns, more than 6"):
            open_table(write(str(tmp_path / "t.parquet"), 1, note=["x"]))

    def test_what_runs_write_is_read(self, tmp_path: Path) -> None:
        """Maps with large rows, wide features, and all rows an error: 300 MB in a small file."""
        for shape, rows in (((147, 147, 128), 2), ((2048,), 40_000)):
            schema = features_schema(shape, "float32", [("note", None)])
            values = np.full((rows, *shape), np.nan, np.float32)
            features = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), int(np.prod(shape)))
            if len(shape) > 1:
                features = pa.ExtensionArray.from_storage(schema.field("features").type, features)
            columns = [["a.jpg"] * rows, ["error"] * rows, ["missing: gone"] * rows]
            texts = [pa.array(column, pa.string()) for column in columns]
            batch = pa.RecordBatch.from_arrays([*texts, features, pa.array(["x" * 90] * rows)], schema=schema)
            with create_table("parquet", str(tmp_path / "t.parquet"), schema, {}, overwrite=True) as table:
                table.write(batch)
            found = 0
            for piece in open_table(str(tmp_path / "t.parquet")).batches():
                assert piece.schema == schema
                found += piece.num_rows
            assert found == rows

    def test_long_texts_end_a_group_of_rows(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parquet, "_GROUP_TEXT", 1000)
        schema = classify_schema(1, "name", [("note", None)])
        rows = {name: [None] * 30 for name in schema.names} | {"note": ["x" * (90 + n) for n in range(30)]}
        batch = pa.RecordBatch.from_pydict(rows, schema)
        groups = []
        for cut in (1, 7, 30):
            with create_table("parquet", str(tmp_path / "t.parquet"), schema, {}, overwrite=True) as table:
                for start in range(0, 30, cut):
                    table.write(batch.slice(start, cut))
            facts = pq.read_metadata(tmp_path / "t.parquet")
            groups.append([facts.row_group(n).num_rows for n in range(facts.num_row_groups)])
        assert groups[0] == groups[1] == groups[2]
        assert groups[0][:2] == [10, 9]


STATUS = '{"path": "a.jpg", "status": "ok", "error": null, "predictions": [{"label": "a", "index": 0, "score": 0.5}]'


class TestText:
    def test_lines_of_json(self, read: Read) -> None:
        lines = {
            "keys": "".join(f', "k{n}": 1' for n in range(700_000)),
            "columns": "".join(f', "k{n}": 1' for n in range(70_000)),
            "values": ', "note": [' + "1," * 2 * MIB + "1]",
            "deep": ', "note": ' + "[" * 100_000 + "]" * 100_000,
            "text": ', "note": "' + "x" * 65 * MIB + '"',
            "scores": ', "note": [' + '{"score":1},' * 60_000 + "1]",
        }
        for name, line in lines.items():
            Path(f"{name}.jsonl").write_text(STATUS + line + "}\n")
        keys, columns, values, deep, text, scores = read(*(f"{name}.jsonl" for name in lines))
        assert keys.endswith("line 1 has more than 524,288 values")
        assert columns.endswith("it has 70,003 columns, more than the 65,536 that are read")
        assert values.endswith("line 1 has more than 524,288 values")
        assert "recursion" in deep
        assert text.endswith("line 1 is too long")
        assert scores.endswith("more than the 65,536 that are read")

    def test_long_lines_are_read_a_few_at_a_time(self, tmp_path: Path) -> None:
        name = tmp_path / "t.jsonl"
        name.write_text((STATUS + ', "note": "' + "x" * 3 * MIB + '"}\n') * 7)
        assert [batch.num_rows for batch in open_table(str(name)).batches()] == [3, 3, 1]

    def test_columns_and_lines_of_csv(self, read: Read) -> None:
        own = "path,status,error,label_1,index_1,score_1,"
        texts = {
            "columns": own
            + ",".join(f"c{n}" for n in range(300_000))
            + "\na.jpg,ok,,cat,0,0.5"
            + ",1" * 300_000
            + "\n",
            "features": "path,status,error," + ",".join(f"f{n}" for n in range(300_000)) + "\n",
            "cell": own + "note\na.jpg,ok,,cat,0,0.5," + "x" * 20 * MIB + "\n",
            "quote": own + 'note\na.jpg,ok,,cat,0,0.5,"' + "x\n" * 10 * MIB,
            "header": 'path,status,"\n' + '","\n' * 2 * MIB,
        }
        for name, text in texts.items():
            Path(f"{name}.csv").write_text(text)
        columns, features, cell, quote, header = read(*(f"{name}.csv" for name in texts))
        assert columns.endswith("it has 300,006 columns, more than the 65,536 that are read")
        assert features.endswith("it has 300,003 columns, more than the 65,536 that are read")
        assert "straddl" in cell
        assert "straddl" in quote
        assert header.startswith("6 ")

    def test_wide_features_are_read(self, tmp_path: Path) -> None:
        name = tmp_path / "t.csv"
        width = 20_000
        name.write_text(
            "path,status,error," + ",".join(f"f{n}" for n in range(width)) + "\na,ok,," + "1," * (width - 1) + "1\n"
        )
        (batch,) = open_table(str(name)).batches()
        assert batch.column("features").to_pylist() == [[1.0] * width]

    def test_a_shape_without_rows(self, tmp_path: Path) -> None:
        name = tmp_path / "t.npy"
        header = {"descr": "<f4", "fortran_order": False, "shape": (0, 1 << 40)}
        with open(name, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
        (tmp_path / "t.npy.csv").write_text("path,status,error\n")
        with pytest.raises(CheckError, match=r"t\.npy cannot be read as npy: "):
            open_table(str(name))


class TestLabels:
    def test_files_that_are_no_lists_of_labels(self, read: Read) -> None:
        texts = {
            "line.txt": "x" * 40 * MIB,
            "lines.txt": "a\n" * 10_000_000,
            "name.txt": "cat\n" + "x" * 5000,
            "line.json": '["' + "x" * 30 * MIB + '"]',
            "list.json": "[" + "[]," * 10_000_000 + "[]]",
            "deep.json": "[" * 1_000_000,
            "digits.json": '{"' + "1" * 30 * MIB + '": "cat"}',
        }
        for name, text in texts.items():
            Path(name).write_text(text)
        found = dict(zip(texts, read(*texts), strict=True))
        assert all(line.startswith("3 ") for line in found.values())
        assert found["line.txt"].endswith("it has more than 33,554,432 bytes")
        assert found["lines.txt"].endswith("it has more than 1,048,576 labels")
        assert found["name.txt"].endswith("label 2 has more than 4,096 characters")
        assert found["line.json"].endswith("label 1 has more than 4,096 characters")
        assert found["list.json"].endswith("it has more than 1,048,576 labels")

    def test_many_long_names_are_read(self, tmp_path: Path) -> None:
        names = [f"{n} " + "é" * 100 for n in range(21_843)]
        (tmp_path / "labels.json").write_text(
            json.dumps([[f"n{n:08}", name] for n, name in enumerate(names)], indent=1)
        )
        assert read_labels(str(tmp_path / "labels.json")).names == tuple(names)
        (tmp_path / "labels.txt").write_text("\r\n".join(names))
        assert read_labels(str(tmp_path / "labels.txt")).names == tuple(names)
        (tmp_path / "labels.txt").write_bytes(b"")
        with pytest.raises(LabelsError, match="it holds no labels"):
            read_labels(str(tmp_path / "labels.txt"))
