"""Tables in files: formats by name, atomic appearance, streams."""

from __future__ import annotations

import csv
import errno
import gc
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from xcli.core.errors import ImageError, OutputError, SourceError, UsageError
from xcli.core.records import ImageRef
from xcli.tables.formats import (
    CLASSIFY_FORMATS,
    FEATURES_FORMATS,
    FORMATS,
    create_table,
    format_from_name,
    open_table,
    write_csv,
)
from xcli.tables.rows import classify_batch, features_batch
from xcli.tables.schema import classify_schema, features_schema

ALL = [("csv", "c"), ("parquet", "c"), ("jsonl", "c"), ("csv", "f"), ("parquet", "f"), ("npy", "f")]
REFS = [ImageRef(f"{i}.jpg", f"{i}.jpg", b"") for i in range(3)]
ERRORS = [None, ImageError("empty", "no bytes"), None]


def table(kind: str):
    if kind == "c":
        schema = classify_schema(1, "name", [])
        scores = np.array([[0.5, 0.25]] * 3, np.float32)
        return schema, classify_batch(schema, REFS, ERRORS, scores, ["a", "b"])
    schema = features_schema((2,), "float32", [])
    return schema, features_batch(schema, REFS, ERRORS, np.ones((3, 2), np.float32))


EVERY = [(name, command[0]) for name, one in FORMATS.items() for command in one.commands]


@pytest.mark.parametrize(("form", "kind"), EVERY)
def test_a_table_is_read_back_and_its_bytes_do_not_depend_on_the_batches(tmp_path, form: str, kind: str) -> None:
    schema, batch = table(kind)
    contents = []
    for sizes in ([3], [1, 2], [1, 1, 1]):
        name = str(tmp_path / f"{len(sizes)}{FORMATS[form].extensions[0]}")
        with create_table(form, name, schema, {}, overwrite=False) as output:
            for number, size in enumerate(sizes):
                output.write(batch.slice(sum(sizes[:number]), size))
        with open(name, "rb") as file:
            contents.append(file.read())
        reader = open_table(name)
        assert reader.schema.equals(schema)
        # The formats of text do not say it; what is beside the table does (`images` of FILE.meta.json).
        assert reader.row_count == (3 if form in ("parquet", "npy") else None)
        rows = [row for read in reader.batches() for row in read.to_pylist()]
        assert rows[::2] == batch.to_pylist()[::2]
        assert rows[1]["error"] == "empty: no bytes"
        assert next(iter(reader.batches(["path"]))).schema.names == ["path"]
    assert len(set(contents)) == 1


@pytest.mark.parametrize(
    ("path", "allowed", "expected"),
    [
        ("a.csv", CLASSIFY_FORMATS, "csv"),
        ("dir.csv/a.parquet", CLASSIFY_FORMATS, "parquet"),
        ("a.PQ", FEATURES_FORMATS, "parquet"),
        ("a.jsonl", CLASSIFY_FORMATS, "jsonl"),
        ("a.b.NDJSON", CLASSIFY_FORMATS, "jsonl"),
        ("a.npy", FEATURES_FORMATS, "npy"),
        (None, CLASSIFY_FORMATS, "default"),
        ("-", CLASSIFY_FORMATS, "default"),
        ("/dev/stdout", CLASSIFY_FORMATS, "default"),
        ("/dev/null", CLASSIFY_FORMATS, "default"),
    ],
)
def test_format_from_name(path: str | None, allowed: tuple[str, ...], expected: str) -> None:
    assert format_from_name(path, allowed, "default") == expected


@pytest.mark.parametrize(
    ("path", "allowed", "message"),
    [
        (
            "a.txt",
            ("csv", "parquet", "jsonl"),
            r"'a.txt': .* end it in .csv, .parquet or .jsonl, or give --format csv\|parquet",
        ),
        ("a", ("parquet", "csv", "npy"), "end it in .parquet, .csv or .npy, or give --format"),
        (".csv", ("parquet", "csv", "npy"), "the name does not tell"),
        ("a.csv.gz", ("csv", "parquet", "jsonl"), "the name does not tell"),
        ("a.npy", ("csv", "parquet", "jsonl"), "does not write npy; end it in .csv"),
        ("a.jsonl", ("parquet", "csv", "npy"), "does not write jsonl; end it in .parquet"),
    ],
)
def test_names_that_tell_no_format(path: str, allowed: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        format_from_name(path, allowed, "csv")


def test_formats() -> None:
    assert {*CLASSIFY_FORMATS, *FEATURES_FORMATS} == set(FORMATS)
    with pytest.raises(UsageError, match="'xls'; give one of csv, parquet"):
        create_table("xls", "a.xls", table("c")[0], {}, False)


@pytest.mark.parametrize(("format", "kind"), ALL)
def test_a_table_appears_at_the_end(tmp_path, format: str, kind: str) -> None:
    schema, batch = table(kind)
    target = tmp_path / f"out.{format}"
    expected = [target.name] + [f"{target.name}.csv"] * (format == "npy")
    with create_table(format, str(target), schema, {"xception": "{}"}, False) as out:
        out.write(batch)
        out.write(batch)
        assert os.listdir(tmp_path) == [f"{target.name}.partial"]
    assert sorted(os.listdir(tmp_path)) == expected
    if format == "parquet":
        assert pq.read_table(target).num_rows == 6
        assert pq.read_schema(target).metadata[b"xception"] == b"{}"
    elif format == "npy":
        array = np.load(target, mmap_mode="r")
        assert np.isnan(array).all(axis=1).tolist() == [False, True, False] * 2
        lines = (tmp_path / "out.npy.csv").read_text().splitlines()
        assert lines[:3] == ["path,status,error", "0.jpg,ok,", "1.jpg,error,empty: no bytes"]
        assert len(lines) == 7
    else:
        assert len(target.read_text().splitlines()) == 6 + (format == "csv")


class Interrupted(BaseException):
    """Like KeyboardInterrupt, without stopping pytest."""


@pytest.mark.parametrize(("format", "kind"), ALL)
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_interrupted_run_leaves_what_was_there(tmp_path, format: str, kind: str, overwrite: bool) -> None:
    schema, batch = table(kind)
    target = tmp_path / f"out.{format}"
    if overwrite:
        target.write_bytes(b"old")
    with pytest.raises(Interrupted), create_table(format, str(target), schema, {}, overwrite) as out:  # noqa: PT012
        out.write(batch)
        raise Interrupted
    gc.collect()  # pyarrow ends files when writers are collected
    assert os.listdir(tmp_path) == [target.name] * overwrite
    assert not overwrite or target.read_bytes() == b"old"


@pytest.mark.parametrize(("format", "kind"), ALL)
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, format: str, kind: str) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    schema, batch = table(kind)
    target = tmp_path / f"out.{format}"
    with (
        pytest.raises(OutputError, match=rf"{target}\S*: No space left on device$"),
        create_table(format, str(target), schema, {}, False) as out,
    ):
        out.write(batch)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize(("format", "kind"), [pair for pair in ALL if pair[0] != "npy"])
def test_a_full_device(format: str, kind: str) -> None:
    schema, batch = table(kind)
    message = r"^cannot write /dev/full: No space left on device$"
    with pytest.raises(OutputError, match=message), create_table(format, "/dev/full", schema, {}, False) as out:
        out.write(batch)
    gc.collect()


def test_a_full_disk_in_the_middle_of_a_parquet_file(tmp_path, monkeypatch) -> None:
    schema, batch = table("c")
    monkeypatch.setattr("xcli.tables.base._GROUP_ROWS", 3)
    written = []

    def full(self: object, data: bytes) -> int:
        written.append(len(data))
        if len(written) > 3:
            raise OutputError("cannot write out: full")
        return len(data)

    monkeypatch.setattr("xcli.storage.streams.CheckedStream.write", full)
    with (
        pytest.raises(OutputError, match=r"^cannot write out: full$"),
        create_table("parquet", str(tmp_path / "out"), schema, {}, False) as out,
    ):
        out.write(batch)
    gc.collect()
    assert len(written) == 4
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["out.npy", "out.npy.csv"])
def test_existing_files_are_refused_before_any_work(tmp_path, name: str) -> None:
    schema, batch = table("f")
    (tmp_path / name).write_bytes(b"old")
    with pytest.raises(OutputError, match=rf"/{name} exists; pass --overwrite to replace it$"):
        create_table("npy", str(tmp_path / "out.npy"), schema, {}, False)
    assert os.listdir(tmp_path) == [name]
    with create_table("npy", str(tmp_path / "out.npy"), schema, {}, True) as out:
        out.write(batch)
    assert np.load(tmp_path / "out.npy").shape == (3, 2)
    assert len((tmp_path / "out.npy.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize("name", ["out.npy", "out.npy.csv"])
def test_files_that_appear_meanwhile_are_not_replaced(tmp_path, name: str) -> None:
    schema, batch = table("f")
    with (  # noqa: PT012
        pytest.raises(OutputError, match=rf"/{name} exists"),
        create_table("npy", str(tmp_path / "out.npy"), schema, {}, False) as out,
    ):
        out.write(batch)
        (tmp_path / name).write_bytes(b"theirs")
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b"theirs"


def test_npy_needs_a_file(tmp_path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for target in (None, "-", "/dev/null", str(tmp_path / "fifo")):
        with pytest.raises(UsageError, match="give a file with -o"):
            create_table("npy", target, table("f")[0], {}, True)


def test_what_a_format_cannot_hold_leaves_no_file(tmp_path) -> None:
    target = str(tmp_path / "out")
    maps, taken = features_schema((2, 2, 2), "float32", []), features_schema((2,), "float32", [("f0", None)])
    for format, schema, error in [
        ("csv", maps, UsageError),
        ("csv", taken, SourceError),
        ("jsonl", maps, UsageError),
        ("npy", table("c")[0], UsageError),
    ]:
        with pytest.raises(error):
            create_table(format, target, schema, {}, False)
        assert os.listdir(tmp_path) == []


def test_discard_without_entering(tmp_path) -> None:
    out = create_table("parquet", str(tmp_path / "out"), table("c")[0], {}, False)
    out.discard()
    assert os.listdir(tmp_path) == []


def test_rows_can_be_read_from_standard_output_as_they_come(monkeypatch) -> None:
    class Stdout:
        closed = False

        def __init__(self) -> None:
            self.seen = io.BytesIO()
            self.buffer = io.BufferedWriter(self.seen, 10**6)

        def flush(self) -> None: ...

    stdout = Stdout()
    monkeypatch.setattr(sys, "stdout", stdout)
    schema, batch = table("c")
    with create_table("jsonl", None, schema, {}, False) as out:
        for n in (1, 2):
            out.write(batch)
            assert stdout.seen.getvalue().count(b"\n") == 3 * n
    assert not stdout.buffer.closed


SCRIPT = """
import sys
import numpy as np
from xcli.core.records import ImageRef
from xcli.tables.formats import create_table
from xcli.tables.rows import features_batch
from xcli.tables.schema import features_schema
schema = features_schema((2048,), "float32", [])
batch = features_batch(schema, [ImageRef("a", "a", b"")] * 64, [None] * 64, np.ones((64, 2048), np.float32))
try:
    with create_table(sys.argv[1], "-", schema, {}, False) as out:
        for _ in range(int(sys.argv[2])):
            out.write(batch)
except BrokenPipeError:
    sys.stderr.write("broken pipe")
    import os
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
"""


@pytest.mark.parametrize("options", [[], ["-u"]])
def test_parquet_goes_to_a_pipe(options: list[str]) -> None:
    done = subprocess.run([sys.executable, *options, "-c", SCRIPT, "parquet", "2"], capture_output=True, check=True)
    assert pq.read_table(io.BytesIO(done.stdout)).num_rows == 128


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_closed_pipe_is_told_as_such(format: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, format, "70"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.read(3)
    process.stdout.close()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"broken pipe")


def test_a_csv_file_of_any_columns(tmp_path: Path) -> None:
    write_csv(tmp_path, "safe.csv", {"path": ["=a", "-b"], "value": [-1, 2]}, escape_formulas=True)
    assert (tmp_path / "safe.csv").read_text() == "path,value\n'=a,-1\n'-b,2\n"
    write_csv(tmp_path, "x.csv", {"name": ["a,b", None], "value": [0.5, None], "count": [1, 2], "no": [None, None]})
    with open(tmp_path / "x.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["name", "value", "count", "no"],
            ["a,b", "0.5", "1", ""],
            ["", "", "2", ""],
        ]
