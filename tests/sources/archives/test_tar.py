"""Tar archives, whole and damaged, through `list_images`."""

from __future__ import annotations

import gzip
import os
import random
import tarfile

import pytest

from tests.archivefiles import THREE, contents, header, listing, make, paths, record, resum, tar_bytes, write, zstd
from xcli.core.errors import ImageError
from xcli.images.formats import MAX_FILE_BYTES
from xcli.sources.archives import tar as tars


class TestTar:
    def special(self, name, kind, target=""):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        return info

    @pytest.mark.parametrize("kind", ["tar", "tar.gz"])
    def test_links_and_devices_are_counted_and_never_followed(self, here, kind):
        write("secret.jpg", b"secret")
        entries = [
            ("a.jpg", b"a"),
            self.special("soft.jpg", tarfile.SYMTYPE, "secret.jpg"),
            self.special("up.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            self.special("hard.jpg", tarfile.LNKTYPE, "a.jpg"),
            self.special("fifo.jpg", tarfile.FIFOTYPE),
            self.special("null.jpg", tarfile.CHRTYPE),
            self.special("sda.jpg", tarfile.BLKTYPE),
            self.special("d.jpg", tarfile.DIRTYPE),
            ("z.jpg", b"z"),
        ]
        found = listing(make(kind, entries))
        expected = [("a.jpg", b"a"), ("hard.jpg", b"a"), ("z.jpg", b"z")]
        assert contents(found) == [(f"x.{kind}::{name}", content) for name, content in expected]
        assert found.skipped == {"link": 2, "special file": 3}
        assert contents(listing(f"x.{kind}::soft.jpg", f"x.{kind}::null.jpg", f"x.{kind}::d.jpg/")) == [
            (f"x.{kind}::{name}", "not-a-file") for name in ("soft.jpg", "null.jpg", "d.jpg/")
        ]

    @pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.xz"])
    @pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_hard_links_are_the_members_that_they_link_to(self, here, kind, form):
        deep = "d" * 60 + "/" + "é" * (15 if form == tarfile.USTAR_FORMAT else 60) + ".jpg"
        link = tarfile.LNKTYPE
        entries = [
            (".a.jpg", b"0"),
            ("./b.jpg", b"1"),
            self.special("c.jpg", link, "b.jpg"),
            self.special("d.jpg", link, "./c.jpg"),  # a link to a link
            ("notes.txt", b"2"),
            self.special("e.jpg", link, "notes.txt"),
            (deep, b"3"),
            self.special("f.jpg", link, deep),
            self.special("g.jpg", link, ".a.jpg"),
            self.special("h.txt", link, "b.jpg"),
            self.special("i.jpg", link, "later.jpg"),
            self.special("j.jpg", link, "/etc/passwd"),
            self.special("k", tarfile.DIRTYPE),
            self.special("l.jpg", link, "k"),
            ("later.jpg", b"4"),
            ("b.jpg", b"5"),
            self.special("m.jpg", link, "b.jpg"),  # the last earlier one counts
            self.special("z.jpg", link, "z.jpg"),
        ]
        found = listing(make(kind, entries, form=form))
        expected = ["./b.jpg", b"1", "c.jpg", b"1", "d.jpg", b"1", "e.jpg", b"2", deep, b"3", "f.jpg", b"3"]
        expected += ["g.jpg", b"0", "i.jpg", "missing", "j.jpg", "missing", "later.jpg", b"4", "b.jpg", b"5"]
        expected += ["m.jpg", b"5", "z.jpg", "missing"]
        names = [f"x.{kind}::{name}" for name in expected[::2]]
        refs = list(found)
        assert contents(refs) == list(zip(names, expected[1::2], strict=True))
        assert found.skipped == {"hidden": 1, "not an image": 2}
        (missing,) = [ref for ref in refs if ref.path.endswith("i.jpg")]
        assert str(missing.error) == (
            "missing: it is a hard link to 'later.jpg', which is not in the archive before it"
        )
        assert contents(listing(f"x.{kind}::d.jpg", f"x.{kind}::i.jpg")) == [
            (f"x.{kind}::d.jpg", b"1"),
            (f"x.{kind}::i.jpg", "missing"),
        ]

    def test_only_the_last_members_are_kept_for_hard_links(self, here, monkeypatch):
        monkeypatch.setattr(tars, "_MAX_PLACES", 2)
        links = [self.special(f"{name}{name}.jpg", tarfile.LNKTYPE, f"{name}.jpg") for name in "ca"]
        write("x.tar", tar_bytes([*((f"{name}.jpg", name.encode()) for name in "abc"), *links]))
        assert contents(listing("x.tar"))[3:] == [("x.tar::cc.jpg", b"c"), ("x.tar::aa.jpg", "missing")]

    @pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_long_names_in_every_format(self, here, form):
        names = ["d" * 60 + "/" + "e" * 90 + ".jpg", "short.jpg"]
        if form != tarfile.USTAR_FORMAT:
            names += ["f" * 300 + ".jpg", "ü" * 80 + ".jpg"]
        write("x.tar", tar_bytes([(name, name.encode()) for name in names], form))
        assert contents(listing("x.tar")) == [(f"x.tar::{name}", name.encode()) for name in names]

    def test_times_and_owners_in_pax_headers_change_nothing(self, here):
        info = tarfile.TarInfo("a.jpg")
        info.mtime, info.uid, info.size = 1.5, 1 << 40, 1
        info.pax_headers = {"comment": "a=b\nc", "SCHILY.xattr.user": "x" * 5000}
        write("x.tar", tar_bytes([(info, b"1"), ("b.jpg", b"2")], tarfile.PAX_FORMAT))
        assert contents(listing("x.tar")) == [("x.tar::a.jpg", b"1"), ("x.tar::b.jpg", b"2")]

    def test_v7_directories_and_numbers_in_base_256(self, here):
        folder = bytearray(header(b"d.jpg/", 0, b"\0"))
        wide = bytearray(header(b"a.jpg", 0))
        wide[124:136] = b"\x80" + (3).to_bytes(11, "big")
        blocks = [resum(folder), resum(wide), b"abc".ljust(512, b"\0"), bytes(1024)]
        write("x.tar", b"".join(blocks))
        assert contents(listing("x.tar")) == [("x.tar::a.jpg", b"abc")]

    def test_links_and_directories_have_no_data_whatever_their_size_says(self, here):
        blocks = [header(b"l.jpg", 512, kind) for kind in (b"1", b"2", b"3", b"4", b"5", b"6")]
        write("x.tar", b"".join(blocks) + tar_bytes([("a.jpg", b"a")]))
        found = listing("x.tar")
        assert contents(found) == [("x.tar::l.jpg", "missing"), ("x.tar::a.jpg", b"a")]
        assert found.skipped == {"link": 1, "special file": 3}

    def test_times_in_old_gnu_headers_are_no_directory(self, here):
        block = bytearray(header(b"a.jpg", 0))
        block[257:265] = b"ustar  \0"
        block[345:357] = b"14371573737\0"
        write("x.tar", resum(block) + bytes(1024))
        assert paths("x.tar") == ["x.tar::a.jpg"]

    def test_archives_joined_end_to_end_are_read_whole(self, here):
        write("x.tar", tar_bytes([("a.jpg", b"a")]) + tar_bytes([("b.jpg", b"b")]))
        write("y.tar.gz", gzip.compress(tar_bytes([("a.jpg", b"a")])) + gzip.compress(tar_bytes([("b.jpg", b"b")])))
        assert contents(listing("x.tar")) == [("x.tar::a.jpg", b"a"), ("x.tar::b.jpg", b"b")]
        assert contents(listing("y.tar.gz")) == [("y.tar.gz::a.jpg", b"a"), ("y.tar.gz::b.jpg", b"b")]

    def test_compression_is_told_from_the_content(self, here):
        write("x.tar", gzip.compress(tar_bytes(THREE)))
        write("y.tgz", tar_bytes(THREE))
        write("z.tar.gz", zstd(tar_bytes(THREE)))
        for name in ("x.tar", "y.tgz", "z.tar.gz"):
            assert [content for _, content in contents(listing(name))] == [content for _, content in THREE]

    def test_empty_archives_list_nothing(self, here):
        write("x.tar", tar_bytes([]))
        write("y.tar.gz", gzip.compress(bytes(1024)))
        write("z.tar", bytes(512))
        assert paths("x.tar", "y.tar.gz", "z.tar") == []

    def test_sparse_members_are_rows_and_the_next_member_is_found(self, here):
        old = bytearray(header(b"old.jpg", 512, b"S"))
        old[482] = 1  # one more block with the map of holes
        pax = record(b"GNU.sparse.major=1") + record(b"GNU.sparse.name=new.jpg") + record(b"path=GNUSparseFile.0/x.jpg")
        blocks = [
            resum(old), bytes(512), b"x" * 512,
            header(b"pax", len(pax), b"x"), pax.ljust(512, b"\0"), header(b"y.jpg", 512), b"x" * 512,
            header(b"z.jpg", 1), b"z".ljust(512, b"\0"), bytes(1024),
        ]  # fmt: skip
        write("x.tar", b"".join(blocks))
        assert contents(listing("x.tar")) == [
            ("x.tar::old.jpg", "unsupported"),
            ("x.tar::new.jpg", "unsupported"),
            ("x.tar::z.jpg", b"z"),
        ]

    def test_huge_members_are_rows_and_are_not_read(self, here):
        with open("x.tar", "wb") as file:
            file.write(header(b"big.jpg", MAX_FILE_BYTES + 1))
            file.seek(MAX_FILE_BYTES + 512, os.SEEK_CUR)  # a hole
            file.write(header(b"max.jpg", 5) + b"small".ljust(512, b"\0") + bytes(1024))
        first, second = listing("x.tar")
        assert str(first.error) == "too-large: a member of 1,073,741,825 bytes; the limit is 1,073,741,824"
        assert contents([second]) == [("x.tar::max.jpg", b"small")]
        with pytest.raises(ImageError, match="too-large: a member of 5 bytes; the limit is 4"):
            second.location.read(4)

    def test_a_nul_byte_in_a_name_is_escaped(self, here):
        pax = record(b"path=a\0b.jpg")
        write("x.tar", header(b"p", len(pax), b"x") + pax.ljust(512, b"\0") + header(b"a.jpg", 0) + bytes(1024))
        assert paths("x.tar") == ["x.tar::a\\x00b.jpg"]


class TestDamagedTar:
    def outcome(self, name="x.tar"):
        return [(ref.path, str(ref.error) if ref.error else None) for ref in listing(name)]

    def test_cut_off_anywhere_gives_the_whole_members_and_one_error(self, here):
        data = tar_bytes([(f"{number}.jpg", bytes([number]) * 700) for number in range(3)])
        member = 512 + 1024
        for cut in range(1, 3 * member + 1, 97):
            write("x.tar", data[:cut])
            *rows, last = listing("x.tar")
            assert last.path == "x.tar", cut
            assert last.error.reason == ("not-an-image" if cut < 512 else "truncated")
            whole = [number for number in range(3) if cut >= number * member + 512 + 700]
            assert contents(rows) == [(f"x.tar::{number}.jpg", bytes([number]) * 700) for number in whole]

    @pytest.mark.parametrize("kind", ["tar.gz", "tar.zst"])
    def test_compressed_and_cut_off(self, here, kind):
        noise = random.Random(3).randbytes
        entries = [(f"{number}.jpg", noise(100_000)) for number in range(6)]  # Zstandard gives 128 KiB or nothing
        with open(make(kind, entries), "rb") as file:
            data = file.read()
        seen = set()
        for cut in range(20, len(data), 7411):
            write(f"x.{kind}", data[:cut])
            *rows, last = listing(f"x.{kind}")
            assert (last.path, last.error.reason) == (f"x.{kind}", "truncated"), cut
            assert contents(rows) == [(f"x.{kind}::{n}", c) for n, c in entries[: len(rows)]]
            seen.add(len(rows))
        assert max(seen) >= 4

    def test_damage_in_the_middle_is_told_with_its_place(self, here):
        data = bytearray(tar_bytes([(f"{number}.jpg", b"x") for number in range(4)]))
        data[2048 + 10] ^= 1
        write("x.tar", data)
        message = "corrupt: the archive is damaged after 2 members: there is no header at byte 2,048"
        assert self.outcome() == [("x.tar::0.jpg", None), ("x.tar::1.jpg", None), ("x.tar", message)]

    def test_a_header_of_zeros_does_not_pass_for_the_end(self, here):
        data = bytearray(tar_bytes([(f"{number}.jpg", b"x") for number in range(4)]))
        data[2048:2560] = bytes(512)
        write("x.tar", data)
        (*_, (path, message)) = self.outcome()
        assert path == "x.tar"
        assert message.startswith("corrupt: the archive is damaged after 2 members: there is no header at byte 2,560")

    def test_without_the_end_marker(self, here):
        write("x.tar", tar_bytes([("a.jpg", b"x")])[:1024])
        message = (
            "truncated: the archive is damaged after 1 member: it is cut off: the end-of-archive marker is missing"
        )
        assert self.outcome() == [("x.tar::a.jpg", None), ("x.tar", message)]

    def test_damaged_compression(self, here):
        entries = [(f"{number}.jpg", random.Random(number).randbytes(5000)) for number in range(9)]
        data = bytearray(gzip.compress(tar_bytes(entries)))
        data[len(data) // 2] ^= 0x40
        write("x.tar.gz", data)
        write("x.tar.zst", zstd(tar_bytes(entries)) + b"and more")
        for name in ("x.tar.gz", "x.tar.zst"):
            *rows, last = listing(name)
            assert (last.path, last.error.reason) == (name, "corrupt"), name
            assert "archive is damaged" in str(last.error)
            assert rows
            assert all(ref.error is None for ref in rows)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "empty: the archive has zero bytes"),
            (b"\xff\xd8\xff" * 400, "not-an-image: it has the name of a tar archive, but its content is none"),
            (b"hello", "not-an-image: it has the name of a tar archive, but its content is none"),
            # Without a time in it: workers that collect the tests in different seconds must agree on their names.
            (
                gzip.compress(b"hello" * 500, mtime=0),
                "not-an-image: it has the name of a tar archive, but its content is none",
            ),
            (b"BZh91AY&SY", "truncated: the archive is cut off: its compressed data ends early"),
            (b"\xfd7zXZ\0\0\4", "truncated: the archive is cut off: its compressed data ends early"),
            (b"LZIP\1", "unsupported: it is packed with lzip; pack it with gzip or zstd, or unpack it"),
        ],
    )
    def test_what_is_no_archive_is_one_row(self, here, data, message):
        write("x.tar", data)
        assert self.outcome() == [("x.tar", message)]

    @pytest.mark.parametrize(
        ("blocks", "message"),
        [
            ([header(b"p", 1 << 30, b"x")], "an extended header of 1,073,741,824 bytes"),
            ([header(b"p", 1 << 31, b"L")], "an extended header of 2,147,483,648 bytes"),
            ([header(b"p", 600, b"x"), b"6 a=bc"], "it is cut off within a header"),
            ([header(b"p", 9, b"x"), b"12 path=x".ljust(512, b"\0")], "an extended header that cannot be read"),
            ([header(b"p", 9, b"x"), b"0 path=x\n".ljust(512, b"\0")], "an extended header that cannot be read"),
            ([header(b"p", 9, b"x"), b"-9 path=x".ljust(512, b"\0")], "an extended header that cannot be read"),
            ([header(b"p", 11, b"x"), b"11 size=-1\n".ljust(512, b"\0")], "an extended header with an impossible size"),
            ([header(b"p", 0, b"x"), bytes(1024)], "an extended header that belongs to no member"),
            ([resum(bytearray(header(b"a", 0)[:124] + b"\xff" * 12 + header(b"a", 0)[136:]))], "an impossible size"),
            ([resum(bytearray(header(b"a", 0)[:124] + b"99999999999\0" + header(b"a", 0)[136:]))], "impossible size"),
        ],
    )
    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    def test_hostile_headers(self, here, blocks, message, pack):
        write("x.tar", pack(header(b"a.jpg", 1) + bytes(512) + b"".join(blocks)))
        (first, last) = self.outcome()
        assert first == ("x.tar::a.jpg", None)
        assert last[0] == "x.tar"
        assert message in last[1]

    def test_a_size_beyond_the_archive(self, here):
        pax = record(b"size=%d" % (1 << 59))
        write("x.tar", header(b"p", len(pax), b"x") + pax.ljust(512, b"\0") + header(b"a.jpg", 0) + bytes(1024))
        assert [(path, message[:9]) for path, message in self.outcome()] == [
            ("x.tar::a.jpg", "too-large"),
            ("x.tar", "truncated"),
        ]

    def test_endless_zeros_come_to_an_end(self, here, monkeypatch):
        monkeypatch.setattr(tars, "_MAX_ZEROS", 100)
        write("x.tar", tar_bytes([("a.jpg", b"")]) + bytes(512 * 200))
        assert self.outcome()[1][1].endswith("nothing but zeros follows")
