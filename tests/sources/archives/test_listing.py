"""Archives as sources, on real files, through `list_images`."""

from __future__ import annotations

import gc
import gzip
import io
import os
import random
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import xcli
from tests.cli.conftest import save_photos
from xcli.core.errors import ImageError
from xcli.images.formats import MAX_FILE_BYTES
from xcli.images.preprocessing import Preprocessing, load_image
from xcli.inference.preflight import preflight
from xcli.sources.archives import tar as tars
from xcli.sources.archives import tar_stream as tarstreams
from xcli.sources.archives.listing import Archives
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.sources.patterns import PathFilter
from xcli.storage import readers
from xcli.storage.local import LocalFile

KINDS = ["tar", "tar.gz", "tgz", "tar.zst", "tzst", "zip"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tar_bytes(entries, form=tarfile.GNU_FORMAT):
    """A tar of (name, content) pairs, or of TarInfo objects where there is no content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogateescape") as tar:
        for entry in entries:
            info, content = entry if isinstance(entry, tuple) else (entry, b"")
            if isinstance(info, str):
                info = tarfile.TarInfo(info)
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return buffer.getvalue()


def zip_bytes(entries, method=zipfile.ZIP_DEFLATED, comment=b""):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
        archive.comment = comment
    return buffer.getvalue()


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def write(name, data):
    with open(name, "wb") as file:
        file.write(data)
    return name


def make(kind, entries, stem="x"):
    """Writes `x.KIND` with the entries and returns its name."""
    if kind == "zip":
        data = zip_bytes(entries)
    else:
        data = tar_bytes(entries)
        if kind in ("tar.gz", "tgz"):
            data = gzip.compress(data)
        elif kind in ("tar.zst", "tzst"):
            data = zstd(data)
    return write(f"{stem}.{kind}", data)


def listing(*sources, stdin=None, **options):
    return list_images(SourceOptions(sources, **options), stdin=stdin and io.BytesIO(stdin))


def paths(*sources, **options):
    return [ref.path for ref in listing(*sources, **options)]


def contents(refs):
    """(path, bytes) of refs, or (path, reason) of those that cannot be read."""
    found = []
    for ref in refs:
        try:
            found.append((ref.path, ref.error.reason if ref.error else ref.location.read(MAX_FILE_BYTES)))
        except ImageError as error:
            found.append((ref.path, error.reason))
    return found


THREE = [("b.jpg", b"bees" * 300), ("a/c.PNG", b"sea"), ("a.tif", b"tea" * 2000)]


@pytest.mark.parametrize("kind", [*KINDS, "TAR", "Tar.GZ"])
class TestEveryKind:
    def test_members_in_the_order_of_the_archive_and_their_bytes(self, here, kind):
        name = make(kind.lower(), THREE)
        os.rename(name, f"x.{kind}")
        refs = list(listing(f"x.{kind}"))
        assert contents(refs) == [(f"x.{kind}::{member}", content) for member, content in THREE]
        assert [ref.key for ref in refs] == [b"b.jpg", b"a/c.PNG", b"a.tif"]

    def test_bytes_can_be_read_twice_and_backwards(self, here, kind):
        name = make(kind.lower(), THREE, "y")
        os.rename(name, f"x.{kind}")
        refs = list(listing(f"x.{kind}"))
        for _ in range(2):
            assert contents(reversed(refs)) == [(f"x.{kind}::{member}", data) for member, data in reversed(THREE)]


@pytest.mark.parametrize("kind", KINDS)
class TestSelection:
    def test_only_visible_images_are_listed_and_the_rest_is_counted(self, here, kind):
        names = ["a.jpg", ".a.jpg", ".d/a.jpg", "./d/../b.jpg", "notes.txt", "inner.tar", "d/", "__MACOSX/._a.jpg"]
        found = listing(make(kind, [(name, b"") for name in names]))
        assert [ref.path for ref in found] == [f"x.{kind}::a.jpg", f"x.{kind}::./d/../b.jpg"]
        assert found.skipped == {"hidden": 3, "not an image": 2 + (kind != "zip")}  # a tar tells d/ by its type

    def test_filters_apply_to_paths_within(self, here, kind):
        names = ["a.jpg", "d/a.jpg", "d/thumbs/a.jpg", "./thumbs/b.jpg", "d/a.png", "d/a.img"]
        name = make(kind, [(name, b"") for name in names])
        found = listing(name, include=("d/*.jpg", "*.img"), exclude=("thumbs",))
        assert [ref.path for ref in found] == [f"{name}::d/a.jpg", f"{name}::d/a.img"]
        assert found.skipped == {"excluded": 2, "not included": 2}
        assert paths(name, include=("*.jpg",), exclude=("d/",)) == [f"{name}::a.jpg", f"{name}::./thumbs/b.jpg"]

    def test_limit_and_shards(self, here, kind):
        name = make(kind, [(f"d/{number}.jpg", str(number).encode()) for number in range(30)])
        whole = paths(name, limit=20)
        assert whole == [f"{name}::d/{number}.jpg" for number in range(20)]
        parts = [contents(listing(name, limit=20, shard=(i, 3))) for i in (1, 2, 3)]
        assert all(parts)
        assert sorted(path for part in parts for path, _ in part) == sorted(whole)
        assert all(path.endswith(f"/{content.decode()}.jpg") for part in parts for path, content in part)

    def test_shards_are_those_of_a_directory_with_the_same_files(self, here, kind):
        os.makedirs("d/e")
        names = [f"e/{number}.jpg" for number in range(30)]
        for name in names:
            write(f"d/{name}", b"")
        archive = make(kind, [(f"./{name}", b"") for name in names])
        inside = {path.removeprefix(f"{archive}::./") for path in paths(archive, shard=(2, 3))}
        assert inside == {path.removeprefix("d/") for path in paths("d", shard=(2, 3))}

    def test_names_of_any_bytes_are_escaped_reversibly(self, here, kind):
        names = ["caf\udce9.jpg", "back\\slash.jpg", "🦊.jpg", "new\nline.jpg"]
        if kind == "zip":
            names = names[1:]
        found = paths(make(kind, [(name, b"") for name in names]))
        expected = [r"caf\xe9.jpg", r"back\\slash.jpg", "🦊.jpg", "new\nline.jpg"]
        assert found == [f"x.{kind}::{name}" for name in expected[-len(names) :]]

    def test_duplicates_are_rows_of_their_own(self, here, kind):
        if kind == "zip":
            with pytest.warns(UserWarning, match="Duplicate"):
                name = make(kind, [("a.jpg", b"1"), ("a.jpg", b"2")])
        else:
            name = make(kind, [("a.jpg", b"1"), ("a.jpg", b"2")])
        assert contents(listing(name)) == [(f"{name}::a.jpg", b"1"), (f"{name}::a.jpg", b"2")]
        assert contents(listing(f"{name}::a.jpg")) == [(f"{name}::a.jpg", b"2")]

    def test_names_that_lead_out_are_only_names(self, here, kind):
        os.makedirs("in")
        os.chdir("in")
        names = ["/etc/a.jpg", "../b.jpg", "a/../../../c.jpg"]
        name = make(kind, [(member, member.encode()) for member in names])
        assert contents(listing(name)) == [(f"{name}::{member}", member.encode()) for member in names]
        assert os.listdir(".") == [name]
        assert os.listdir("..") == ["in"]


class TestWhere:
    """Where archives are found, and as what."""

    def test_in_directories_only_when_asked_for(self, here):
        os.makedirs("d/e")
        for stem in ("d/b", "d/e/y"):
            make("tar", [("s/1.jpg", b"1")], stem)
        make("zip", [("1.jpg", b"1")], "d/z")
        for name in ("d/a.jpg", "d/c.jpg"):
            write(name, b"")
        found = listing("d")
        assert [ref.path for ref in found] == ["d/a.jpg", "d/c.jpg"]
        assert found.skipped == {"not an image": 3}
        found = listing("d", archives=True)
        assert [(ref.path, ref.key) for ref in found] == [
            ("d/a.jpg", b"a.jpg"),
            ("d/b.tar::s/1.jpg", b"b.tar/s/1.jpg"),
            ("d/c.jpg", b"c.jpg"),
            ("d/e/y.tar::s/1.jpg", b"e/y.tar/s/1.jpg"),
            ("d/z.zip::1.jpg", b"z.zip/1.jpg"),
        ]
        assert found.skipped == {}
        os.chdir("d")
        assert paths(archives=True)[1] == "b.tar::s/1.jpg"

    def test_in_directories_they_are_filtered_like_directories(self, here):
        os.makedirs("d")
        make("tar", [("s/1.jpg", b""), ("2.png", b"")], "d/a")
        make("tar", [("1.jpg", b""), ("2.jpg", b"")], "d/b")
        found = listing("d", archives=True, exclude=("b.tar", "a.tar/s"))
        assert [ref.path for ref in found] == ["d/a.tar::2.png"]
        assert found.skipped == {"excluded": 2}
        assert paths("d", archives=True, include=("a.tar/**/*.jpg",)) == ["d/a.tar::s/1.jpg"]

    def test_what_has_the_name_of_an_archive_and_is_none(self, here):
        os.makedirs("d/dir.tar")
        write("d/dir.tar/a.jpg", b"")
        os.mkfifo("d/fifo.tar")
        os.symlink("nowhere", "d/link.zip")
        write("d/.hidden.tar", b"")
        found = listing("d", archives=True)
        assert [(ref.path, ref.error and ref.error.reason) for ref in found] == [
            ("d/dir.tar/a.jpg", None),
            ("d/fifo.tar", "not-a-file"),
            ("d/link.zip", "missing"),
        ]
        assert found.skipped == {"hidden": 1}

    def test_globs_list_the_archives_that_they_match(self, here):
        os.makedirs("d/e")
        make("tar", [("1.jpg", b"")], "d/a")
        make("tar", [("2.jpg", b"")], "d/e/b")
        assert [(ref.path, ref.key) for ref in listing("d/*.tar")] == [("d/a.tar::1.jpg", b"d/a.tar/1.jpg")]
        # e is matched as a directory, in which archives are found only when asked for.
        assert paths("d/*") == ["d/a.tar::1.jpg"]
        assert paths("d/*", archives=True) == ["d/a.tar::1.jpg", "d/e/b.tar::2.jpg"]

    def test_a_glob_whose_only_match_is_an_empty_archive_matches(self, here):
        make("tar", [], "a")
        assert paths("*.tar") == []

    def test_lists_take_archives_and_members(self, here):
        make("tar", [("1.jpg", b"one"), ("2.txt", b"two")], "a")
        found = listing("-", stdin=b"a.tar\na.tar::2.txt\na.tar::gone.jpg\n")
        assert contents(found) == [("a.tar::1.jpg", b"one"), ("a.tar::2.txt", b"two"), ("a.tar::gone.jpg", "missing")]
        found = listing("-", stdin=b"a.tar\na.tar::2.txt\n", exclude=("a.tar",), include=("*.jpg",))
        assert [ref.path for ref in found] == []
        assert found.skipped == {"excluded": 1, "not included": 1}
        assert paths("-", stdin=b"a.tar\n", include=("*.jpg",)) == ["a.tar::1.jpg"]

    def test_manifests_take_archives_and_members_with_the_other_columns(self, here):
        make("zip", [("1.jpg", b"one"), ("2.jpg", b"two"), ("back\\slash.jpg", b"three")], "a")
        os.makedirs("dir.zip")
        write("m.csv", b"path,n\na.zip,x\na.zip::2.jpg,y\na.zip::gone.jpg,z\ndir.zip,w\n")
        with list_images(SourceOptions(manifest="m.csv")) as found:
            refs = list(found)
        assert [ref.extra for ref in refs] == [("x",)] * 3 + [("y",), ("z",), ("w",)]
        assert contents(refs)[-3:] == [
            ("a.zip::2.jpg", b"two"),
            ("a.zip::gone.jpg", "missing"),
            ("dir.zip", "not-a-file"),
        ]
        write("again.csv", f"path\n{refs[2].path}\n".encode())
        again = list_images(SourceOptions(manifest="again.csv", escaped_paths=True))
        assert contents(again) == [(refs[2].path, b"three")]

    @pytest.mark.parametrize("kind", KINDS)
    def test_single_members(self, here, kind):
        name = make(kind, [*THREE, ("d/", b"")])
        for member, content in THREE:
            (ref,) = listing(f"./{name}::{member}")
            assert contents([ref]) == [(f"./{name}::{member}", content)]
            assert ref.key == f"./{name}::{member}".encode()
        assert contents(listing(f"{name}::d/", "y.tar::a", "x.jpg::a"))[1:] == [
            ("y.tar::a", "missing"),
            ("x.jpg::a", "missing"),
        ]

    def test_a_file_that_is_named_like_a_member_comes_first(self, here):
        make("tar", [("a.jpg", b"inner")])
        write("x.tar::a.jpg", b"outer")
        write("m.csv", b"path\nx.tar::a.jpg\nx.tar\n")
        assert contents(listing("x.tar::a.jpg")) == [("x.tar::a.jpg", b"outer")]
        found = list_images(SourceOptions(manifest="m.csv", include=("*.jpg",)))
        assert contents(found) == [("x.tar::a.jpg", b"outer"), ("x.tar::a.jpg", b"inner")]

    def test_of_many_archives_the_last_ones_are_remembered(self, here, monkeypatch):
        monkeypatch.setattr("xcli.sources.archives.listing._MAX_INDEXED", 5)
        archives = Archives(PathFilter(), Counter())
        for number in (1, 2, 1, 3):
            make("tar", [("a.jpg", b""), ("b.jpg", b"")], str(number))
            assert archives.member(b"%d.tar::a.jpg" % number).error is None
        assert list(archives._indexes) == [b"1.tar", b"3.tar"]


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
        assert contents(found) == [(f"x.{kind}::a.jpg", b"a"), (f"x.{kind}::z.jpg", b"z")]
        assert found.skipped == {"link": 3, "special file": 3}
        assert contents(listing(f"x.{kind}::soft.jpg", f"x.{kind}::null.jpg", f"x.{kind}::d.jpg/")) == [
            (f"x.{kind}::{name}", "not-a-file") for name in ("soft.jpg", "null.jpg", "d.jpg/")
        ]

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
        assert contents(found) == [("x.tar::a.jpg", b"a")]
        assert found.skipped == {"link": 2, "special file": 3}

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


def header(name, size, kind=b"0"):
    block = bytearray(512)
    block[: len(name)] = name
    block[124:136] = b"%011o\0" % size
    block[156:157] = kind
    block[257:263] = b"ustar\0"
    return resum(block)


def resum(block):
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def record(text):
    length = len(text) + 3
    while len(b"%d %s\n" % (length, text)) != length:
        length += 1
    return b"%d %s\n" % (length, text)


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
            (b"BZh91AY&SY", "unsupported: it is packed with bzip2; pack it with gzip or zstd, or unpack it"),
            (b"\xfd7zXZ\0\0\4", "unsupported: it is packed with xz; pack it with gzip or zstd, or unpack it"),
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


class TestCompressedTar:
    """Bytes that travel with their member."""

    def test_more_than_may_be_carried_is_unpacked_again(self, here, monkeypatch):
        monkeypatch.setattr(tarstreams, "MAX_CARRIED", 2000)
        entries = [(f"{number}.jpg", bytes([number]) * 900) for number in range(6)]
        refs = list(listing(make("tar.gz", entries)))
        assert [ref.location.carried._data is not None for ref in refs] == [True, True, False, False, False, False]
        assert contents(refs) == [(f"x.tar.gz::{name}", content) for name, content in entries]

    def test_room_is_had_again_when_members_are_read_or_given_up(self, here, monkeypatch):
        monkeypatch.setattr(tarstreams, "MAX_CARRIED", 2000)
        refs = iter(listing(make("tar.gz", [(f"{number}.jpg", bytes(900)) for number in range(6)])))
        first, second = next(refs), next(refs)
        assert len(first.location.read(900)) == 900
        third = next(refs)
        assert third.location.carried._data is not None
        del second
        assert next(refs).location.carried._data is not None

    def test_one_member_is_always_carried(self, here, monkeypatch):
        monkeypatch.setattr(tarstreams, "MAX_CARRIED", 10)
        refs = iter(listing(make("tar.gz", [("a.jpg", bytes(900)), ("b.jpg", bytes(900))])))
        assert next(refs).location.carried._data is not None

    def test_bytes_are_let_go_of_when_they_are_read(self, here):
        (ref,) = listing(make("tar.zst", [("a.jpg", b"x" * 900)]))
        assert ref.location.read(1000) == b"x" * 900
        assert ref.location.carried._data is None

    def test_members_that_lie_too_deep_are_not_unpacked_again(self, here, monkeypatch):
        (_, ref) = listing(make("tar.gz", [("a.jpg", bytes(2000)), ("b.jpg", b"b")]))
        monkeypatch.setattr(tarstreams, "MAX_AGAIN", 1000)
        assert ref.location.read(10) == b"b"
        with pytest.raises(ImageError, match="too-large: it lies 3,072 bytes deep in a compressed archive"):
            ref.location.read(10)

    def test_bombs_are_not_unpacked(self, here):
        block = header(b"bomb.jpg", MAX_FILE_BYTES + 512)
        with gzip.open("x.tgz", "wb", compresslevel=1) as file:
            file.write(header(b"a.jpg", 1) + bytes(512) + block + bytes(1 << 20))
        tracemalloc.start()
        found = contents(listing("x.tgz"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert [(path, reason) for path, reason in found[1:]] == [
            ("x.tgz::bomb.jpg", "too-large"),
            ("x.tgz", "truncated"),
        ]
        assert peak < 8 << 20


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
        one = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0) + b"a.jpg"
        end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 3, 3, len(one) * count, len(local), 0)
        write("x.zip", local + one * count + end)
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
            (24, MAX_FILE_BYTES + 1, "too-large: a member of 1,073,741,825 bytes; the limit is 1,073,741,824"),
            (24, 0xFFFFFFFF, "corrupt: the archive does not say how large it is"),
            (24, 10, "corrupt: the member unpacks to more than the 10 bytes it declares"),
            (24, 51, "truncated: the member ends after 50 of 51 bytes"),
            (42, 1, "corrupt: the archive has no member at byte 1"),
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


class TestTroubleOnTheWay:
    @pytest.mark.parametrize("kind", ["tar", "zip", "tar.gz"])
    def test_an_archive_that_changes_or_vanishes(self, here, kind):
        name = make(kind, THREE)
        refs = list(listing(name))
        for ref in refs:
            ref.location.read(MAX_FILE_BYTES)
        make(kind, [("b.jpg", b"other")])
        with pytest.raises(ImageError, match="unreadable: the archive has changed since it was listed"):
            refs[0].location.read(MAX_FILE_BYTES)
        os.remove(name)
        with pytest.raises(ImageError, match="missing: no such file"):
            refs[0].location.read(MAX_FILE_BYTES)

    def test_a_plain_tar_that_shrinks_while_it_is_read(self, here, monkeypatch):
        (ref, *_) = listing(make("tar", THREE))
        monkeypatch.setattr(readers.LocalReader, "read_at", lambda self, offset, count: b"bees")
        with pytest.raises(ImageError, match="truncated: the archive ends after 4 of the member's 1,200 bytes"):
            ref.location.read(MAX_FILE_BYTES)

    @pytest.mark.parametrize("kind", ["tar", "zip", "tar.gz", "tar.zst"])
    def test_an_archive_that_cannot_be_opened_or_read(self, here, monkeypatch, kind):
        name = make(kind, THREE)

        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            assert [(ref.path, str(ref.error)) for ref in listing(name)] == [(name, "unreadable: Permission denied")]
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", refuse)
            assert [(ref.path, str(ref.error)) for ref in listing(name)] == [(name, "unreadable: Permission denied")]

    def test_an_error_of_the_disk_while_unpacking(self, here, monkeypatch):
        make("tar.gz", THREE)

        def refuse(*_):
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(gzip.GzipFile, "read", refuse)
        assert [str(ref.error) for ref in listing("x.tar.gz")] == ["unreadable: Input/output error"]

    def test_the_error_row_of_an_archive_belongs_to_one_shard(self, here):
        write("x.tar", b"none")
        rows = [paths("x.tar", shard=(number, 3)) for number in (1, 2, 3)]
        assert sorted(rows) == [[], [], ["x.tar"]]
        assert [ref.key for ref in listing("./x.tar", ".", archives=True)] == [b"./x.tar", b"x.tar"]

    @pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files can be counted under Linux only")
    @pytest.mark.parametrize("kind", ["tar", "zip", "tar.gz", "tar.zst"])
    def test_files_are_closed(self, here, kind):
        name = make(kind, THREE)

        def open_files():
            gc.collect()
            links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
            return sum(os.path.lexists(link) and os.readlink(link).endswith(f"/{name}") for link in links)

        begun = iter(listing(name))
        ref = next(begun)
        assert open_files() >= 1
        del begun
        ref.location.read(MAX_FILE_BYTES)
        ref.location.read(MAX_FILE_BYTES)
        contents(listing(name, f"{name}::b.jpg"))
        assert open_files() == 0

    @pytest.mark.parametrize("kind", ["tar", "zip", "tar.gz"])
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=5))
    def test_random_damage_is_rows(self, here, kind, flips):
        with open(make(kind, THREE), "rb") as file:
            data = bytearray(file.read())
        for place, mask in flips:
            data[int(place * len(data))] ^= mask
        write(f"x.{kind}", data)
        refs = list(listing(f"x.{kind}"))
        contents(refs)
        assert sum(ref.path == f"x.{kind}" for ref in refs) <= 1


class TestMemory:
    COUNT = 20_000

    @pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
    def test_many_members_are_listed_lazily(self, here, kind):
        if kind == "zip":
            write("x.zip", zip_bytes((f"d/{number:07}.jpg", b"x") for number in range(self.COUNT)))
        else:
            blocks = b"".join(header(b"d/%07d.jpg" % number, 0) for number in range(self.COUNT)) + bytes(1024)
            write(f"x.{kind}", blocks if kind == "tar" else gzip.compress(blocks, 1))
        tracemalloc.start()
        count = sum(1 for _ in listing(f"x.{kind}"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == self.COUNT
        assert peak < 3 << 20


class TestPixels:
    @pytest.fixture
    def photos(self, here):
        return save_photos(here / "photos", ["a.jpg", "b.jpg", "c.png"])

    @pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
    def test_pixels_are_those_of_the_files(self, photos, kind):
        p = Preprocessing(size=64)
        refs = list(listing(make(kind, [(photo.name, photo.read_bytes()) for photo in photos])))
        for ref, photo in zip(refs, photos, strict=True):
            assert np.array_equal(load_image(ref.location, p), load_image(LocalFile(str(photo)), p))

    @pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
    def test_preflight_reads_headers_within(self, photos, kind):
        entries = [(f"{number}.jpg", photos[0].read_bytes()) for number in range(300)]
        name = make(kind, [*entries, ("bad.jpg", b"bad"), ("empty.jpg", b"")])
        found = preflight(listing(name))
        assert (found.listed, found.formats, found.widths) == (302, {"JPEG": 300}, (96, 96, 96))
        assert [path for path, _ in found.unreadable] == [f"{name}::bad.jpg", f"{name}::empty.jpg"]


def test_listing_imports_no_image_library(here):
    """Listing archives must stay as light as listing directories."""
    import subprocess
    import sys

    make("zip", THREE)
    code = (
        "import sys; from xcli.sources.listing import *; print(len(list(list_images(SourceOptions(('x.zip',))))),"
        " *({'pyarrow', 'numpy', 'tensorflow', 'PIL'} & set(sys.modules)))"
    )
    root = os.path.dirname(os.path.dirname(os.path.abspath(xcli.__file__)))
    environment = os.environ | {"PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "3"


def test_image_saved_in_memory_is_read_from_a_tar(here):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (10, 20, 30)).save(buffer, "PNG")
    (ref,) = listing(make("tar", [("a.png", buffer.getvalue())]))
    assert load_image(ref.location, Preprocessing(size=8, resize="squash"))[0, 0].tolist() == [10, 20, 30]
