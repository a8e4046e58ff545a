"""Reading CSV and Parquet manifests, good and bad."""

from __future__ import annotations

import datetime
import io
import os
import signal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xcli.core.errors import SourceError
from xcli.sources.manifests import ExtraColumn, open_manifest


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def deadline():
    """Fails a test that waits for input which cannot come."""

    def fail(*_):
        raise TimeoutError("waited for more input than was needed")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def from_csv(data, name="m.csv", **options):
    with open(name, "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())
    return open_manifest(name, **options)


def from_parquet(table, name="m.parquet", write=None, **options):
    pq.write_table(pa.table(table) if isinstance(table, dict) else table, name, **(write or {}))
    return open_manifest(name, **options)


def rows(manifest):
    return [(ref.path, str(ref.error) if ref.error else None, ref.extra) for ref in manifest]


class TestCsv:
    def test_paths_and_other_columns(self, here):
        manifest = from_csv("id,path,label\n1,a/b.jpg,cat\n2,../c.jpg,\n")
        assert manifest.extra_columns == (ExtraColumn("id", None), ExtraColumn("label", None))
        refs = list(manifest)
        assert [(ref.path, ref.location.path, ref.key, ref.extra, ref.error) for ref in refs] == [
            ("a/b.jpg", "a/b.jpg", b"a/b.jpg", ("1", "cat"), None),
            ("../c.jpg", "../c.jpg", b"../c.jpg", ("2", ""), None),
        ]

    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("m.csv", b"path,n\na,1\nb,2\n"),
            ("m.csv", b"\xef\xbb\xbfpath,n\na,1\nb,2\n"),
            ("m.csv", b"path,n\r\na,1\r\nb,2"),
            ("m.csv", b"\n\npath,n\n\na,1\n\n\nb,2\n\n"),
            ("m.csv", b'"path","n"\n"a","1"\n"b","2"\n'),
            ("m.txt", b"path,n\na,1\nb,2\n"),
            ("m.tsv", b"path\tn\na\t1\nb\t2\n"),
            ("M.TSV", b"path\tn\na\t1\nb\t2\n"),
        ],
    )
    def test_dialects(self, here, name, data):
        assert rows(from_csv(data, name)) == [("a", None, ("1",)), ("b", None, ("2",))]

    def test_cells_are_verbatim(self, here):
        manifest = from_csv('path,n\n" a, ""b""\nc\\d.jpg","x\r\ny"\nq"q.jpg,\'\n')
        assert rows(manifest) == [(' a, "b"\nc\\\\d.jpg', None, ("x\r\ny",)), ('q"q.jpg', None, ("'",))]

    def test_bytes_that_are_not_utf8(self, here):
        manifest = from_csv(b"path,caf\xe9\ncaf\xe9.jpg,caf\xe9 \\ \xf0\x9f\xa6\x8a\n")
        assert manifest.extra_columns == (ExtraColumn("caf\\xe9"),)
        (ref,) = manifest
        assert (ref.path, os.fsencode(ref.location), ref.key) == ("caf\\xe9.jpg", b"caf\xe9.jpg", b"caf\xe9.jpg")
        assert ref.extra == ("caf\\xe9 \\ 🦊",)

    def test_escaped_paths(self, here):
        data = "path\ncaf\\xe9\\\\.jpg\nbad\\escape.jpg\n"
        escaped, bad = from_csv(data, escaped_paths=True)
        assert (escaped.path, os.fsencode(escaped.location)) == ("caf\\xe9\\\\.jpg", b"caf\xe9\\.jpg")
        assert bad.path == "bad\\\\escape.jpg"
        assert (
            str(bad.error) == "unreadable: row 2 of the manifest: the backslash at byte 3 begins neither \\\\ nor \\xNN"
        )
        verbatim, _ = from_csv(data)
        assert os.fsencode(verbatim.location) == b"caf\\xe9\\\\.jpg"

    def test_path_column(self, here):
        manifest = from_csv("file,label\na.jpg,cat\n", path_column="file")
        assert manifest.extra_columns == (ExtraColumn("label"),)
        assert rows(manifest) == [("a.jpg", None, ("cat",))]
        assert rows(from_csv("status\na.jpg\n", path_column="status")) == [("a.jpg", None, ())]
        assert rows(from_csv(b"caf\xe9\na.jpg\n", path_column="caf\udce9")) == [("a.jpg", None, ())]

    def test_rows_that_cannot_be_used_are_errors_in_their_place(self, here):
        data = 'n,path\n1,a\n2,\n3\n4,b,c\n5,"x"y\n"6\n7",d\n8,"open\n'
        assert rows(from_csv(data)) == [
            ("a", None, ("1",)),
            ("", "missing: row 2 of the manifest has no path", ("2",)),
            ("", "missing: row 3 of the manifest has no path", ("3",)),
            ("b", "unreadable: line 5 of the manifest 'm.csv' has 3 fields, expected 2", (None,)),
            ("", "unreadable: line 6 of the manifest 'm.csv': ',' expected after '\"'", (None,)),
            ("d", None, ("6\n7",)),
            ("", "unreadable: line 9 of the manifest 'm.csv': unexpected end of data", (None,)),
        ]

    def test_a_path_with_a_nul_byte_is_an_error_of_its_row(self, here):
        (ref,) = from_csv("path\na\\x00\n", escaped_paths=True)
        assert str(ref.error) == "missing: row 1 of the manifest has a NUL byte in its path"

    def test_missing_cells_are_none(self, here):
        assert rows(from_csv("path,a,b\nx,1\ny\n")) == [("x", None, ("1", None)), ("y", None, (None, None))]

    def test_a_cell_too_long_for_the_reader_is_an_error_of_its_row(self, here):
        first, second = from_csv("path,n\n" + "x" * 200_000 + ",1\na,2\n")
        assert "field larger than field limit" in str(first.error)
        assert (second.path, second.extra) == ("a", ("2",))

    def test_a_file_that_fails_on_the_way_ends_in_a_row_that_says_so(self):
        class Failing(io.BytesIO):
            def read1(self, size=-1):
                if self.tell() >= 30:
                    raise OSError(5, "Input/output error")
                return self.read(30)

        stdin = Failing(b"path\n" + b"".join(b"%d.jpg\n" % number for number in range(100)))
        refs = list(open_manifest("-", stdin=stdin))
        assert [ref.path for ref in refs[:3]] == ["0.jpg", "1.jpg", "2.jpg"]
        assert refs[-1].error.reason == "unreadable"
        assert f"cannot read the manifest standard input beyond row {len(refs) - 1}" in str(refs[-1].error)

    def test_is_read_as_it_arrives(self, deadline):
        read, write = os.pipe()
        with os.fdopen(read, "rb") as stdin, os.fdopen(write, "wb", buffering=0) as writer:
            writer.write(b"path\na\n")
            refs = iter(open_manifest("-", stdin=stdin))
            assert next(refs).path == "a"
            writer.write(b"b\n")
            assert next(refs).path == "b"
            writer.close()
            assert list(refs) == []

    def test_from_a_fifo(self, here, deadline):
        os.mkfifo("fifo")
        writer = os.open("fifo", os.O_RDWR)  # so that opening it to read does not wait
        os.write(writer, b"path\na\n")
        with open("fifo", "rb"):
            manifest = open_manifest("fifo")
            os.close(writer)
            assert rows(manifest) == [("a", None, ())]
        manifest.close()

    @pytest.mark.parametrize(
        ("data", "options", "message"),
        [
            (b"", {}, "'m.csv' is empty; it needs a header line with a column 'path'"),
            (b"\n\n", {}, "is empty"),
            (
                b"file,label\na,b\n",
                {},
                "no column 'path', only 'file', 'label'; name the column of paths with --path-col",
            ),
            (b"path|label\na|b\n", {}, "no column 'path', only 'path.label'"),
            (b"path\n", {"path_column": "f\udcff"}, r"no column 'f\\xff', only 'path'"),
            (b"path,a,a\n", {}, "more than one column 'a'"),
            (b"path,path\n", {}, "more than one column 'path'"),
            (b"path,\xff,\\xff\n", {}, r"more than one column '\\xff'"),
            (b"path,status\n", {}, "a column 'status', which the output has too; rename or drop it"),
            (b"error,path\n", {}, "a column 'error'"),
            (b"file,path\n", {"path_column": "file"}, "a column 'path', which the output has too"),
            (b"path\0\n", {}, "is binary data"),
            (b"\x89PNG\r\n\x1a\n\0\0\0\r", {}, "neither CSV nor Parquet"),
            ("path\na\n".encode("utf-16"), {}, "is UTF-16; save it as UTF-8"),
            (b'"path\n', {}, "cannot read the header"),
            (b"PAR1garbage", {}, "begins like Parquet but cannot be read"),
        ],
    )
    def test_what_cannot_be_used_is_refused_at_once(self, here, data, options, message):
        with pytest.raises(SourceError, match=message) as caught:
            from_csv(data, **options)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("gone.csv", "cannot open the manifest 'gone.csv': No such file or directory"),
            (".", "cannot open the manifest '.': Is a directory"),
            ("", "cannot open the manifest '': No such file or directory"),
            ("a\0", "cannot open the manifest 'a\0': embedded null byte"),
            ("gone\udcff", r"'gone\\xff': No such file"),
        ],
    )
    def test_what_cannot_be_opened_is_refused_at_once(self, here, name, message):
        with pytest.raises(SourceError, match=message):
            open_manifest(name)

    def test_parquet_on_standard_input_is_refused(self):
        with pytest.raises(SourceError, match="standard input is binary data; it must be text: CSV only"):
            open_manifest("-", stdin=io.BytesIO(b"PAR1....PAR1"))


class TestParquet:
    def test_paths_and_other_columns_with_their_types(self, here):
        table = pa.table(
            {
                "label": pa.array(["cat", None, "🦊"]),
                "path": ["a.jpg", "b/c.jpg", "🦊.jpg"],
                "score": pa.array([1.5, None, 2.0], pa.float32()),
                "day": pa.array([datetime.date(2020, 1, 2), None, None]),
                "box": pa.array([[1, 2], None, []], pa.list_(pa.int8())),
            }
        )
        manifest = from_parquet(table)
        assert manifest.extra_columns == tuple(
            ExtraColumn(field.name, field.type) for field in table.schema if field.name != "path"
        )
        assert rows(manifest) == [
            ("a.jpg", None, ("cat", 1.5, datetime.date(2020, 1, 2), [1, 2])),
            ("b/c.jpg", None, (None, None, None, None)),
            ("🦊.jpg", None, ("🦊", 2.0, None, [])),
        ]

    @pytest.mark.parametrize(
        "column",
        [
            pa.array([True, None]),
            pa.array([2**63, None], pa.uint64()),
            pa.array([1.5, None], pa.float16()),
            pa.array([b"\xff\0", None]),
            pa.array(["x", None], pa.large_string()),
            pa.array(["x", None]).dictionary_encode(),
            pa.array([1, None], pa.timestamp("ns", "Europe/Berlin")),
            pa.array([1, None], pa.timestamp("us")),
            pa.array([1, None], pa.duration("ns")),
            pa.array([1, None], pa.time64("ns")),
            pa.array([1, None], pa.int64()).cast(pa.decimal128(20)),
            pa.array([{"a": 1, "b": ["x"]}, None]),
            pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int8())),
            pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)),
            pa.array([None, None], pa.null()),
        ],
        ids=lambda column: str(column.type),
    )
    def test_values_give_their_column_back(self, here, column):
        manifest = from_parquet({"path": ["a", "b"], "x": column})
        (extra,) = manifest.extra_columns
        plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        assert extra.type == plain.type
        assert pa.array([ref.extra[0] for ref in manifest], type=extra.type).equals(plain)

    @pytest.mark.parametrize(
        "kind",
        [
            pa.string(),
            pa.large_string(),
            pa.string_view(),
            pa.binary(),
            pa.large_binary(),
            pa.dictionary(pa.int32(), pa.string()),
        ],
        ids=str,
    )
    def test_paths_of_every_text_type(self, here, kind):
        manifest = from_parquet({"path": pa.array(["a", None, "🦊"], kind)})
        assert rows(manifest) == [
            ("a", None, ()),
            ("", "missing: row 2 of the manifest has no path", ()),
            ("🦊", None, ()),
        ]

    def test_bytes_that_are_not_utf8(self, here):
        names = pa.array([b"caf\xe9", b"a"], pa.binary())
        text = names.view(pa.string())  # as careless writers do
        for column in (names, text):
            first, second = from_parquet({"path": column, "note": text})
            assert (first.path, os.fsencode(first.location), first.extra) == ("caf\\xe9", b"caf\xe9", ("caf\\xe9",))
            assert (second.path, second.extra) == ("a", ("a",))

    def test_escaped_paths(self, here):
        (ref,) = from_parquet({"path": ["caf\\xe9"]}, escaped_paths=True)
        assert os.fsencode(ref.location) == b"caf\xe9"

    def test_a_value_that_python_cannot_hold_is_an_error_of_its_row(self, here):
        far = pa.array([0, 10**12, 1], pa.int64()).cast(pa.timestamp("s")).cast(pa.timestamp("ms"))
        first, second, third = from_parquet({"path": ["a", "b", "c"], "when": far})
        assert (first.error, third.error) == (None, None)
        assert third.extra == (datetime.datetime(1970, 1, 1, 0, 0, 1),)
        assert (second.path, second.extra, second.error.reason) == ("b", (None,), "unreadable")
        assert str(second.error).startswith("unreadable: row 2 of the manifest 'm.parquet': column 'when': ")

    def test_many_rows_and_row_groups_keep_their_order(self, here):
        count = 3000
        table = {"path": [f"{number}.jpg" for number in range(count)], "n": list(range(count))}
        manifest = from_parquet(table, write={"row_group_size": 700})
        assert rows(manifest) == [(f"{number}.jpg", None, (number,)) for number in range(count)]

    def test_is_known_by_content_not_by_name(self, here):
        assert rows(from_parquet({"path": ["a"]}, "m.csv")) == [("a", None, ())]

    def test_without_rows(self, here):
        assert rows(from_parquet({"path": pa.array([], pa.null())})) == []

    def test_name_that_is_not_text(self, here):
        assert rows(from_parquet({"path": ["a"]}, "m.parquet")) == [("a", None, ())]
        os.rename("m.parquet", b"caf\xe9")
        assert rows(open_manifest("caf\udce9")) == [("a", None, ())]

    def test_a_file_damaged_further_on_ends_in_a_row_that_says_so(self, here):
        table = pa.table({"path": [f"{number}-{number * 7919}.jpg" for number in range(4000)]})
        options = {"row_group_size": 2000, "use_dictionary": False, "compression": "zstd"}
        pq.write_table(table, "m.parquet", **options)
        start = pq.ParquetFile("m.parquet").metadata.row_group(1).column(0).data_page_offset
        with open("m.parquet", "r+b") as file:
            file.seek(start)
            file.write(b"\xff" * 2000)
        refs = list(open_manifest("m.parquet"))
        assert refs[0].path == "0-0.jpg"
        assert refs[-1].error.reason == "unreadable"
        assert f"cannot read the manifest 'm.parquet' beyond row {len(refs) - 1}" in str(refs[-1].error)
        assert "\n" not in str(refs[-1].error)

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ({"file": ["a"]}, "no column 'path', only 'file'"),
            ({"path": [1]}, "the column 'path' of the manifest 'm.parquet' holds int64, not text"),
            ({"path": ["a"], "status": [1]}, "a column 'status', which the output has too"),
            (pa.table([["a"], [1], [2]], names=["path", "n", "n"]), "more than one column 'n'"),
            (
                {"path": ["a"], "times": pa.array([[1]], pa.list_(pa.timestamp("ns")))},
                r"the column 'times' .* holds list<.*timestamp\[ns\]>; nested nanoseconds cannot be carried exactly",
            ),
        ],
    )
    def test_what_cannot_be_used_is_refused_at_once(self, here, table, message):
        with pytest.raises(SourceError, match=message):
            from_parquet(table)
