"""CSV for spreadsheets, and what they make of it."""

from __future__ import annotations

import csv
import io
from codecs import BOM_UTF8
from pathlib import Path

import pytest

from tests.tables.tablerows import BROKEN, classify, encode, features, read_csv
from tests.writtentables import make_files, write_shards
from xcli.checks.findings import Findings
from xcli.checks.merge import Shards, merge
from xcli.checks.verify import verify
from xcli.core.errors import CheckError
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.tables.csv import CsvWriter
from xcli.tables.formats import create_table, open_table
from xcli.tables.npy import NpyWriter

NAMES = ["é, ü.jpg", 'say "x".jpg', "two\nlines.jpg", "日本.jpg", "bad.jpg"]


def saved(data: bytes, *, quote_all: bool = False, mark: bool = True) -> bytes:
    """The table as a spreadsheet saves it: Excel with a mark, LibreOffice with quotes around everything if asked."""
    text = io.StringIO()
    style = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    csv.writer(text, quoting=style, lineterminator="\r\n").writerows(read_csv(data.removeprefix(BOM_UTF8)))
    return (BOM_UTF8 if mark else b"") + text.getvalue().encode()


def test_the_mark_is_the_only_difference(tmp_path: Path) -> None:
    schema, batch = classify(NAMES, [[0.75, 0.25]] * 5, [None] * 4 + [BROKEN], top=2)
    plain = encode(CsvWriter, schema, [batch])
    assert encode(CsvWriter, schema, [batch], byte_order_mark=True) == BOM_UTF8 + plain
    schema, batch = features([[1, 2]], [None])
    companion = io.BytesIO()
    encode(NpyWriter, schema, [batch], companion=companion, byte_order_mark=True)
    assert companion.getvalue() == BOM_UTF8 + b"path,status,error\n0.jpg,ok,\n"
    with create_table("npy", str(tmp_path / "x.npy"), schema, {}, False, byte_order_mark=True) as output:
        output.write(batch)
    assert next(open_table(str(tmp_path / "x.npy")).batches())["path"].to_pylist() == ["0.jpg"]


@pytest.mark.parametrize("mark", [False, True])
@pytest.mark.parametrize("quote_all", [False, True])
@pytest.mark.parametrize("kind", ["classify", "features"])
def test_a_saved_table_has_the_same_rows(tmp_path: Path, kind: str, quote_all: bool, mark: bool) -> None:
    values, errors = [[0.75, 0.25]] * 5, [None] * 4 + [BROKEN]
    if kind == "classify":
        schema, batch = classify(
            NAMES, values, errors, top=2, types=[("note", None)], extra=[("a",), (None,)] + [()] * 3
        )
    else:
        schema, batch = features(values, errors)
    data = encode(CsvWriter, schema, [batch])
    path = tmp_path / "x.csv"
    path.write_bytes(saved(data, quote_all=quote_all, mark=mark))
    found = [row for one in open_table(str(path)).batches() for row in one.to_pylist()]
    path.write_bytes(data)
    assert found == [row for one in open_table(str(path)).batches() for row in one.to_pylist()]


def test_the_mark_alone_keeps_empty_texts(tmp_path: Path) -> None:
    schema, batch = classify(["a.jpg", "b.jpg"], [[1.0]] * 2, types=[("note", None)], extra=[("",), (None,)])
    (tmp_path / "x.csv").write_bytes(encode(CsvWriter, schema, [batch], byte_order_mark=True))
    (found,) = open_table(str(tmp_path / "x.csv")).batches()
    assert found["note"].to_pylist() == ["", None]


@pytest.mark.parametrize("quote_all", [False, True])
def test_saved_tables_are_verified_and_merged(tmp_path: Path, quote_all: bool) -> None:
    folder = make_files(tmp_path / "in", [name.encode() for name in NAMES])
    sources = SourceOptions((str(folder),))
    whole, shards = write_shards(tmp_path, "csv", "classify", sources, 2)
    for shard in shards:
        Path(shard).write_bytes(saved(Path(shard).read_bytes(), quote_all=quote_all))
        assert verify(open_table(shard), None, Findings()).passed
    target = tmp_path / "merged.csv"
    with list_images(sources) as listing:
        merge(Shards(shards), listing, "csv", str(target), overwrite=False, findings=Findings())
    assert target.read_bytes() == Path(whole).read_bytes()


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"path;status;error;label_1", "has other separators than commas"),
        (BOM_UTF8 + b'"path"\t"status"\t"error"', "has other separators than commas"),
        (b"sep=,\r\npath,status,error", "has other separators than commas"),
        ("path,status".encode("utf-16"), "is text in UTF-16"),
        (b"PK\3\4" + bytes(20), "is the file of a spreadsheet"),
        (b"\xd0\xcf\x11\xe0" + bytes(20), "is the file of a spreadsheet"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, head: bytes, what: str) -> None:
    (tmp_path / "x.csv").write_bytes(head)
    with pytest.raises(CheckError, match=f"x.csv {what}.*'CSV UTF-8 "):
        open_table(str(tmp_path / "x.csv"))


def test_windows_1252_is_named(tmp_path: Path) -> None:
    schema, batch = classify(["é.jpg"], [[1.0]])
    data = saved(encode(CsvWriter, schema, [batch]), mark=False).decode().encode("cp1252")
    (tmp_path / "x.csv").write_bytes(data)
    with pytest.raises(CheckError, match="it is not UTF-8; if a spreadsheet saved it, save it as 'CSV UTF-8'"):
        list(open_table(str(tmp_path / "x.csv")).batches())
