"""Small manifests, lists and tables of labels that take much memory or time once they are decoded."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.budget import check_cost
from xcli.core.errors import SourceError
from xcli.sources.carried import MAX_COLUMNS, MAX_NAME
from xcli.sources.labelled import read_labelled
from xcli.sources.listing import list_images, read_entries
from xcli.sources.manifests import open_manifest
from xcli.sources.options import SourceOptions

READ = """
import sys
from collections import Counter, deque
from xcli.core.errors import SourceError
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions

for name in sys.argv[1:]:
    in_flight = deque(maxlen=200)  # as in a run
    errors = Counter()
    try:
        is_list = name.endswith(".txt")
        sources = SourceOptions(("-",)) if is_list else SourceOptions(manifest=name)
        with list_images(sources, stdin=open(name, "rb") if is_list else None, numbers=True) as listing:
            for ref in listing:
                in_flight.append(ref)
                errors[str(ref.error)[-100:]] += 1
        (text, count) = errors.most_common(1)[0]
        print(f"{listing.listed} rows, {count} times {text}", flush=True)
    except SourceError as error:
        print(f"refused: {str(error)[-100:]}", flush=True)
"""
"""Lists manifests, as a run does, and says of each how it ended."""

MIB = 1 << 20
PATHS = ["a.jpg"] * 4096

Read = Callable[[Sequence[str]], list[str]]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("honest") / "m.parquet"
    pq.write_table(pa.table({"path": [f"{n}.jpg" for n in range(4096)], "id": list(range(4096))}), path)
    return str(path)


@pytest.fixture
def read(honest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)

    def run(names: Sequence[str]) -> list[str]:
        cost = check_cost(READ, [str(Path(name).absolute()) for name in names], [honest])
        assert cost.code == 0, cost
        return [line for line in cost.text.splitlines() if "of the first" not in line]

    return run


def write(name: str, table: dict[str, Any], **options: Any) -> str:
    """Writes a Parquet file; returns its name."""
    pq.write_table(pa.table(table), name, **{"compression": "zstd", **options})
    return name


def shared(text: str, rows: int = 4096) -> pa.Array:
    """A column of one text, which the file holds once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), [text])


class TestParquet:
    def test_one_value_in_all_rows(self, read: Read) -> None:
        names = [
            write("path.parquet", {"path": shared("x" * MIB, 100)}),
            write("note.parquet", {"path": PATHS, "note": shared("x" * MIB)}),
            write("long.parquet", {"path": PATHS[:3], "note": shared("x" * 40 * MIB, 3)}),
            write("list.parquet", {"path": PATHS, "note": pa.array([["x" * MIB] * 3] * 9 + [[]] * 4087)}),
        ]
        assert [Path(name).stat().st_size < 10_000 for name in names] == [True] * 4
        path, note, long, inner = read(names)
        assert "has a path of 1,048,576 characters" in path
        assert re.match(r"1\d\d rows, 1\d\d times None", note)
        assert long.startswith("3 rows, 3 times")
        assert long.endswith("at most 2,097,152 are carried into the output")
        assert inner.startswith("4096 rows, 4087 times None")

    def test_the_end_says_why_the_rest_is_not_read(self, tmp_path: Path) -> None:
        name = write(str(tmp_path / "m.parquet"), {"path": shared("x" * 2 * MIB)})
        *_, last = open_manifest(name)
        assert re.search(r"cannot read the manifest '.*' beyond row \d+: its \d+ bytes become 1\d\d,", str(last.error))

    def test_values_in_lists(self, read: Read) -> None:
        many = pa.ListArray.from_arrays(pa.array([0, 30_000_000]), pa.nulls(30_000_000, pa.int8()))
        dicts = pa.array([[{"a": True}] * 300_000, [{"a": False}]])
        names = [
            write("many.parquet", {"path": ["a.jpg"], "note": many}),
            write("dicts.parquet", {"path": PATHS[:2], "note": dicts}),
        ]
        many_said, dicts_said = read(names)
        assert "beyond row 0: a group of its rows takes " in many_said
        assert dicts_said.startswith("2 rows, 1 times")

    def test_pages(self, read: Read) -> None:
        texts = {"path": PATHS[:130], "note": ["x" * MIB] * 130}
        plain = {"use_dictionary": False, "data_page_size": 1 << 30}
        deltas = {"use_dictionary": False, "column_encoding": {"path": "PLAIN", "note": "DELTA_BYTE_ARRAY"}}
        fixed = pa.array([b"x" * MIB] * 130, pa.binary(MIB))
        packed, equal, wide = read(
            [
                write("packed.parquet", texts, **plain),
                write("equal.parquet", texts, **deltas),
                write("fixed.parquet", {"path": PATHS[:130], "note": fixed}),
            ]
        )
        assert "beyond row 0: a group of its rows takes 136," in packed
        assert re.match(r"1\d\d rows, 1\d\d times None", equal)
        assert re.match(r"1\d\d rows, 1\d\d times None", wide)

    def test_rows_groups_and_columns(self, read: Read) -> None:
        columns = {"path": ["a.jpg"]} | {f"c{n}": [1] for n in range(MAX_COLUMNS)}
        deep: Any = "a.jpg"
        for _ in range(100):
            deep = [deep]
        rows, groups, wide, nested = read(
            [
                write("rows.parquet", {"path": pa.nulls(10_000_000, pa.string())}),
                write("groups.parquet", {"path": PATHS[:2000]}, row_group_size=1),
                write("wide.parquet", columns),
                write("deep.parquet", {"path": ["a.jpg"], "deep": [deep]}),
            ]
        )
        assert "it promises 10,000,000 rows in " in rows
        assert groups.startswith("2000 rows, 2000 times None")
        assert f"has {MAX_COLUMNS + 1:,} columns" in wide
        assert nested.startswith("refused: ")

    def test_parts_upon_one_another(self, tmp_path: Path) -> None:
        paths = [f"{n * 7919 % 4096}.jpg" for n in range(4096)]
        name = write(str(tmp_path / "one.parquet"), {"path": paths})
        metadata, again = pq.read_metadata(name), pq.read_metadata(name)
        for _ in range(9):
            metadata.append_row_groups(again)
        metadata.write_metadata_file(tmp_path / "footer")
        body = Path(name).read_bytes()
        body = body[: -8 - int.from_bytes(body[-8:-4], "little")] + (tmp_path / "footer").read_bytes()[4:]
        Path(name).write_bytes(body)
        *refs, last = open_manifest(name)
        assert str(last.error).endswith("parts of it lie upon one another")
        assert len(refs) < 3 * 4096

    def test_what_honest_files_hold(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        rows = 300
        table = {
            "path": [f"{n}.jpg" for n in range(rows)],
            "text": [f"{n}" + "é" * 50_000 for n in range(rows)],
            "license": shared("all rights reserved " * 500, rows),
            "tags": [["a", None, "long " * 2000]] * rows,
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array([0.5] * (rows * 2048), pa.float32()), 2048),
            "object": [{"box": [1, 2, 3], "name": "cat" * n} for n in range(rows)],
            "pairs": pa.array([[("k", "v" * 3000)]] * rows, pa.map_(pa.string(), pa.string())),
            "views": pa.array([["x"]] * rows, pa.list_(pa.string_view())),
        }
        manifest = open_manifest(write("m.parquet", table, row_group_size=77))
        expected = [column.to_pylist() for column in pa.table(table).columns[1:]]
        for n, ref in enumerate(manifest):
            assert ref.error is None
            assert list(ref.extra) == [values[n] for values in expected]
        assert n == rows - 1
        wide = {"path": ["a.jpg", "b.jpg"]} | {f"f{n}": [n * 0.5, None] for n in range(2048)}
        first, second = open_manifest(write("wide.parquet", wide))
        assert first.extra == tuple(n * 0.5 for n in range(2048))
        assert second.extra == (None,) * 2048

    def test_the_memory_of_the_rows_is_counted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for name in (write("m.parquet", {"path": PATHS[:9], "note": ["x" * 1000] * 9}), "m.csv"):
            Path("m.csv").write_text("path,note\n" + f"a.jpg,{'x' * 1000}\n" * 9)
            with list_images(SourceOptions(manifest=name)) as listing:
                list(listing)
                assert 9 * 1000 < listing.carried.total < 9 * 1300


class TestCsv:
    def test_lines_that_never_end(self, read: Read) -> None:
        head = "path,note\na.jpg,b\n"
        texts = {
            "header.csv": "path," + "x" * 10 * MIB,
            "line.csv": head + "x" * 10 * MIB + "\nb.jpg,c\n",
            "commas.csv": head + "," * 10 * MIB + "\nb.jpg,c\n",
            "quote.csv": head + 'c.jpg,"' + "x\n" * 100_000,
            "quotes.csv": head + 'c.jpg,"\n' + '","\n' * 400_000,
            "sep.csv": "sep=;\x0b" + "x" * 10 * MIB,
        }
        for name, text in texts.items():
            Path(name).write_text(text)
        header, line, commas, quote, quotes, sep = read(list(texts))
        assert header.startswith("refused: ")
        assert header.endswith("a row of more than 1,048,576 characters")
        assert line.startswith("3 rows, 2 times None")
        assert commas.startswith("3 rows, 2 times None")
        assert quote.endswith("None")
        assert quotes.endswith("None")
        assert sep.startswith("refused: ")

    def test_the_row_that_is_too_long_is_an_error_in_its_place(self, tmp_path: Path) -> None:
        path = tmp_path / "m.csv"
        path.write_text("path,note\na.jpg,b\n" + "x" * 3 * MIB + "\nb.jpg,c\n")
        first, long, last = open_manifest(str(path))
        assert (first.error, last.error) == (None, None)
        assert str(long.error).endswith(
            "line 3 of the manifest '" + str(path) + "': a row of more than 1,048,576 characters"
        )

    def test_columns(self, read: Read, tmp_path: Path) -> None:
        names = ",".join(f"c{n}" for n in range(300_000))
        Path("wide.csv").write_text(f"path,{names}\na.jpg\n")
        short = ",".join(f"c{n}" for n in range(MAX_COLUMNS - 1))
        Path("short.csv").write_text(f"path,{short}\n" + "a.jpg\n" * 3000)
        wide, rows = read(["wide.csv", "short.csv"])
        assert wide.startswith("refused: ")
        assert wide.endswith("a row of more than 1,048,576 characters")
        assert rows == "3000 rows, 3000 times None"

    def test_features_in_columns(self, tmp_path: Path) -> None:
        path = tmp_path / "m.csv"
        names, values = ([f"{one}{n}" for n in range(2048)] for one in ("f", "0.12345678"))
        path.write_text(f"path,{','.join(names)}\na.jpg,{','.join(values)}\n")
        (ref,) = open_manifest(str(path), numbers=True)
        assert ref.error is None
        assert len(ref.extra) == 2048


class TestLists:
    def test_names_that_never_end(self, read: Read) -> None:
        Path("line.txt").write_bytes(b"a.jpg\n" + b"x" * 50 * MIB + b"\nb.jpg\n")
        (line,) = read(["line.txt"])
        assert line.startswith("3 rows, ")

    def test_the_beginning_of_a_long_name_is_kept(self) -> None:
        stream = io.BytesIO(b"a\n" + b"b" * 200_000 + b"\n\nc\n" + b"d" * 200_000)
        assert list(read_entries(stream, b"\n")) == [b"a", b"b" * (MAX_NAME + 1), b"c", b"d" * (MAX_NAME + 1)]

    def test_a_long_name_is_an_error_in_its_place(self) -> None:
        stream = io.BytesIO(b"a.jpg\n" + b"b" * 200_000 + b"\nc.jpg")
        refs = list(list_images(SourceOptions(("-",)), stdin=stream))
        assert [ref.path for ref in refs] == ["a.jpg", "b" * MAX_NAME, "c.jpg"]
        assert str(refs[1].error) == "missing: entry 2 of the list has more than 8,192 bytes"


def test_a_long_label_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"path": ["a.jpg"], "label": ["x" * 5000]}), path)
    with pytest.raises(SourceError, match=r"the label has 5,000 characters, more than any name of a class"):
        read_labelled(str(path))
