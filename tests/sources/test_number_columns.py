"""Columns of a CSV manifest that hold nothing but numbers."""

from __future__ import annotations

import csv
import os
import threading
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from tests.cli.conftest import save_photos
from xcli.sources.listing import list_images
from xcli.sources.manifests import ExtraColumn, open_manifest
from xcli.sources.number_columns import find_number_columns
from xcli.sources.options import SourceOptions

if TYPE_CHECKING:
    from pathlib import Path

INT, FLOAT, TEXT = int, float, None


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["7", "0", "-12", ""], INT),
        (["9223372036854775807", "-9223372036854775808"], INT),
        (["1.50", "-0.25", "3", "1e-05", "2.5E+300"], FLOAT),
        (["0.1", "-0"], FLOAT),
        (["9223372036854775808"], TEXT),  # more than 64 bits hold
        (["9007199254740993", "0.5"], TEXT),  # not exact in a float64
        (["0.12345678901234567890"], TEXT),
        (["1e999", "1"], TEXT),
        (["007", "12"], TEXT),  # a code
        (["12E4"], TEXT),
        (["+5"], TEXT),
        ([" 5"], TEXT),
        (["1,5"], TEXT),
        (["1_000"], TEXT),
        (["٣"], TEXT),
        (["nan", "1.0"], TEXT),
        (["inf"], TEXT),
        (["1" * 5000], TEXT),
        (["7", "seven"], TEXT),
        (["", ""], TEXT),
        ([], TEXT),
    ],
)
def test_what_a_number_is(cells: list[str], expected: Any) -> None:
    assert find_number_columns(iter([[cell] for cell in cells]), 1) == ({} if expected is TEXT else {0: expected})


def test_rows_that_are_no_rows_of_the_table_do_not_count() -> None:
    rows = csv.reader(["1,2", '"x"y,1', "1,2,3,four", "", "5", "6,0.5"], strict=True)
    assert find_number_columns(rows, 2) == {0: int, 1: float}


def test_a_file_that_cannot_be_read_is_text() -> None:
    def fails() -> Any:
        yield ["1"]
        raise OSError("unplugged")

    assert find_number_columns(fails(), 1) == {}


TABLE = "\ufeffid;path;price;code;note\n7;a;1.50;007;3\n\n8;b;;12;x\n9\n10;c;2;1;2;3\n"
TYPES = (ExtraColumn("id", pa.int64()), ExtraColumn("price", pa.float64()), ExtraColumn("code"), ExtraColumn("note"))


@pytest.mark.parametrize("first", ["", "sep=;\n"])
def test_a_manifest_with_numbers(tmp_path: Path, first: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(TABLE.replace("\ufeff", "\ufeff" + first), encoding="utf-8")
    manifest = open_manifest(str(path), numbers=True)
    assert manifest.extra_columns == TYPES
    nothing = (None,) * 4
    assert [(ref.path, ref.extra) for ref in manifest] == [
        ("a", (7, 1.5, "007", "3")),
        ("b", (8, None, "12", "x")),
        ("", (9, None, None, None)),
        ("c", nothing),
    ]
    # Whoever does not ask gets the text, such as class names that are numbers.
    assert next(open_manifest(str(path)).refs).extra == ("7", "1.50", "007", "3")


def test_what_is_read_but_once_stays_text(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=["path,id\na,1\n"])
    writer.start()
    manifest = open_manifest(str(tmp_path / "pipe"), numbers=True)
    writer.join()
    assert manifest.extra_columns == (ExtraColumn("id"),)
    assert next(manifest.refs).extra == ("1",)


def test_a_manifest_that_changes_meanwhile_is_an_error_row(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("path,id\n" + "".join(f"{number}.jpg,{number}\n" for number in range(9000)))
    manifest = open_manifest(str(path), numbers=True)
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size - 5)
        file.write(b"x")
    *_, last = manifest
    assert last.error is not None
    assert last.extra == (None,)
    assert "unreadable: line 9001 of" in str(last.error)


def test_the_files_types_are_those_of_every_shard(tmp_path: Path) -> None:
    save_photos(tmp_path, [f"{number}.jpg" for number in range(6)])
    rows = "".join(f"{tmp_path}/{number}.jpg,{number if number else 'none'}\n" for number in range(6))
    (tmp_path / "m.csv").write_text("path,id\n" + rows)
    for number in (1, 2, 3):
        listing = list_images(SourceOptions(manifest=str(tmp_path / "m.csv"), shard=(number, 3)), numbers=True)
        assert listing.extra_columns == (ExtraColumn("id"),)
