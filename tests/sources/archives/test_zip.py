"""Zip archives, whole and damaged, through `list_images`."""

from __future__ import annotations

import io
import random
import stat
import struct
import tracemalloc
import zipfile

import pytest

from tests.archivefiles import THREE, contents, listing, write, zip_bytes
from xcli.core.errors import ImageError
from xcli.images.formats import MAX_FILE_BYTES


class TestZip:
    def test_the_order_is_that_of_the_central_directory(self, here):
        data = zip_bytes([("a.jpg", b"a"), ("b.jpg", b"b")])
        start = data.index(b"PK\1\2")
        second = data.index(b"PK\1\2", start + 1)
        end = data.index(b"PK\5\6")
        write("x.zip", data[:start] + data[second:end] + data[start:second] + data[end:])
        assert contents(listing("x.zip")) == [("x.zip::b.jpg", b"b"), ("x.zip::a.jpg", b"a")]

    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
    def test_methods(self, here, method):
        noise = random.Random(1).randbytes(3 << 20)
        entries = [("a.jpg", noise), ("b.jpg", bytes(3 << 20)), ("c.jpg", b""), ("d.jpg", bytes(1 << 20))]
        write("x.zip", zip_bytes(entries, method))
        assert contents(listing("x.zip")) == [(f"x.zip::{name}", content) for name, content in entries]

    def test_written_as_a_stream(self, here):
        class Pipe(io.BytesIO):
            def seekable(self):
                return False

            def seek(self, *_):
                raise OSError("a pipe")

            def tell(self):
                raise OSError("a pipe")

        pipe = Pipe()
        with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.jpg", b"a" * 99)  # its sizes stand behind it
        write("x.zip", pipe.getvalue())
        assert contents(listing("x.zip")) == [("x.zip::a.jpg", b"a" * 99)]

    @pytest.mark.parametrize("prefix", [b"", b"#!/bin/sh\n" * 50])
    @pytest.mark.parametrize("comment", [b"", b"a comment with PK\5\6 in it, and more than twenty-two bytes after"])
    def test_something_before_and_a_comment_after(self, here, prefix, comment):
        write("x.zip", prefix + zip_bytes(THREE, comment=comment))
        assert contents(listing("x.zip")) == [(f"x.zip::{name}", content) for name, content in THREE]

    @pytest.mark.parametrize("prefix", [b"", b"x" * 77])
    def test_zip64(self, here, monkeypatch, prefix):
        monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 300)
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
        data = zip_bytes(THREE, zipfile.ZIP_STORED)
        assert b"PK\6\6" in data
        write("x.zip", prefix + data)
        assert contents(listing("x.zip")) == [(f"x.zip::{name}", content) for name, content in THREE]

    def test_more_members_than_sixteen_bits_count(self, here):
        # As programs without Zip64 write it: the count modulo 65,536.
        count = 65_536 + 3
        local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, 5, 0) + b"a.jpg"
        central = struct.Struct("<4s6H3L5H2L5s")
        numbers = b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0
        entries = b"".join(central.pack(*numbers, at * len(local), b"a.jpg") for at in range(count))
        end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 3, 3, len(entries), count * len(local), 0)
        write("x.zip", local * count + entries + end)
        assert sum(1 for ref in listing("x.zip") if ref.error is None) == count

    def test_links_and_directories(self, here):
        link = zipfile.ZipInfo("link.jpg")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        fifo = zipfile.ZipInfo("fifo.jpg")
        fifo.create_system, fifo.external_attr = 3, stat.S_IFIFO << 16
        dos = zipfile.ZipInfo("dos.jpg")
        dos.create_system, dos.external_attr = 0, stat.S_IFLNK << 16
        write("x.zip", zip_bytes([(link, b"/etc/passwd"), (fifo, b""), ("d.jpg/", b""), (dos, b"dos")]))
        found = listing("x.zip")
        assert contents(found) == [("x.zip::dos.jpg", b"dos")]
        assert found.skipped == {"link": 1, "special file": 1}

    def test_names_without_utf8_flag_are_bytes(self, here):
        data = zip_bytes([("caf_.jpg", b"1"), ("grXn.jpg", b"2")])
        write("x.zip", data.replace(b"caf_.jpg", b"caf\x82.jpg").replace(b"grXn.jpg", b"gr\xc3\xbc.jpg"))
        assert contents(listing("x.zip")) == [("x.zip::caf\\x82.jpg", b"1"), ("x.zip::grü.jpg", b"2")]

    def patched(self, field, value, name=b"b.jpg", method=zipfile.ZIP_DEFLATED):
        """Three members, of which one has another value in the central directory."""
        data = bytearray(zip_bytes([("a.jpg", b"a" * 50), ("b.jpg", b"b" * 50), ("c.jpg", b"c" * 50)], method))
        place = data.rindex(name) - 46 + field
        width = 4 if field in (16, 20, 24, 42) else 2
        data[place : place + width] = value.to_bytes(width, "little")
        write("x.zip", data)

    @pytest.mark.parametrize(
        ("field", "value", "error"),
        [
            (8, 1, "unreadable: it is encrypted"),
            (10, 14, "unsupported: it is packed with LZMA"),
            (10, 77, "unsupported: it is packed with method 77"),
            (10, 0, r"corrupt: it is stored as it is, in \d bytes for 50"),
            (16, 1, r"corrupt: the member's checksum \(CRC-32\) is wrong"),
            (20, 1 << 31, "truncated: its data lies beyond the end of the archive"),
            (20, 2, r"truncated: the member ends after \d of 50 bytes"),
            (24, MAX_FILE_BYTES + 1, "too-large: a member of 1,073,741,825 bytes; the limit is 134,218,"),
            (24, 0xFFFFFFFF, "corrupt: the archive does not say how large it is"),
            (24, 10, "corrupt: the member unpacks to more than the 10 bytes it declares"),
            (24, 51, "truncated: the member ends after 50 of 51 bytes"),
            (42, 1, "corrupt: its data overlap those of another member"),
            (42, 0, "corrupt: its data overlap those of another member"),
            (42, 1 << 30, "truncated: its data lies beyond the end"),
        ],
    )
    def test_damaged_members_are_rows_and_the_others_are_read(self, here, field, value, error):
        self.patched(field, value)
        first, second, third = listing("x.zip")
        with pytest.raises(ImageError, match=error):
            raise second.error or second.location.read(MAX_FILE_BYTES)
        assert contents([first, third]) == [("x.zip::a.jpg", b"a" * 50), ("x.zip::c.jpg", b"c" * 50)]

    @pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
    def test_bombs_are_not_unpacked_past_what_they_declare(self, here, method):
        data = bytearray(zip_bytes([("b.jpg", bytes(64 << 20))], method))
        place = data.rindex(b"b.jpg") - 46 + 24
        data[place : place + 4] = (5000).to_bytes(4, "little")
        write("x.zip", data)
        tracemalloc.start()
        found = contents(listing("x.zip"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found == [("x.zip::b.jpg", "corrupt")]
        assert peak < 8 << 20

    def test_a_limit_of_the_reader(self, here):
        write("x.zip", zip_bytes([("a.jpg", b"12345")]))
        (ref,) = listing("x.zip")
        with pytest.raises(ImageError, match="too-large: a member of 5 bytes; the limit is 4"):
            ref.location.read(4)

    def test_damaged_deflate_data(self, here):
        data = bytearray(zip_bytes([("a.jpg", random.Random(1).randbytes(300)), ("b.jpg", b"b" * 50)]))
        data[35] = 0x07  # a block of a kind that there is not
        write("x.zip", data)
        assert contents(listing("x.zip")) == [("x.zip::a.jpg", "corrupt"), ("x.zip::b.jpg", b"b" * 50)]

    def test_cut_off_anywhere_is_one_row(self, here):
        data = zip_bytes(THREE)
        for cut in range(1, len(data), 11):
            write("x.zip", data[:cut])
            (ref,) = listing("x.zip")
            assert (ref.path, ref.error.reason) == ("x.zip", "not-an-image" if cut < 4 else "truncated")

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "empty: the archive has zero bytes"),
            (b"\xff\xd8\xff" * 400, "not-an-image: it has the name of a zip archive, but its content is none"),
            (b"PK\5\6" + bytes(18), None),
            (
                b"PK\5\6" + bytes(8) + b"\xff" * 8 + bytes(2),
                "corrupt: the archive is damaged: its central directory is",
            ),
            (b"PK\5\6\1" + bytes(17), "unsupported: the archive is one of several parts; join them first"),
        ],
    )
    def test_ends_of_all_sorts(self, here, data, message):
        write("x.zip", data)
        found = [(ref.path, str(ref.error)) for ref in listing("x.zip")]
        assert [path for path, _ in found] == (["x.zip"] if message else [])
        assert all(error.startswith(message) for _, error in found)

    def test_a_damaged_central_directory(self, here):
        data = bytearray(zip_bytes(THREE))
        place = data.rindex(b"PK\1\2")
        data[place] = 0
        write("x.zip", data)
        *rows, last = listing("x.zip")
        assert contents(rows) == [(f"x.zip::{name}", content) for name, content in THREE[:2]]
        assert str(last.error) == "corrupt: the archive is damaged: the central directory is damaged after 2 members"
        assert last.path == "x.zip"

    def test_a_wrong_count(self, here):
        data = bytearray(zip_bytes(THREE))
        data[-12:-10] = b"\5\0"
        write("x.zip", data)
        *rows, last = listing("x.zip")
        assert len(rows) == 3
        assert str(last.error).endswith("the central directory lists 3 members, the archive announces 5")
