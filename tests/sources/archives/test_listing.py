"""Archives as sources, of every kind, on real files, through `list_images`."""

from __future__ import annotations

import gc
import gzip
import io
import lzma
import os
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import xcli
from tests.archivefiles import KINDS, THREE, contents, header, listing, make, paths, tar_bytes, write, zip_bytes
from tests.cli.conftest import save_photos
from xcli.core.errors import ImageError
from xcli.images.formats import MAX_FILE_BYTES
from xcli.images.preprocessing import Preprocessing, load_image
from xcli.inference.preflight import preflight
from xcli.sources.archives.listing import Archives
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.sources.patterns import PathFilter
from xcli.storage import readers
from xcli.storage.local import LocalFile


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
        # A tar tells directories by their type, so that `d/` is a file without an extension there.
        expected = {"hidden": 3, "not an image": 2, "without an extension": int(kind != "zip")}
        assert found.skipped == {reason: count for reason, count in expected.items() if count}

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


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice_is_two_rows_and_said_and_alone_it_is_the_last(here, kind, monkeypatch):
    entries = [("a.jpg", b"old"), ("b.jpg", b"b"), ("a.jpg", b"new"), ("notes.txt", b""), ("notes.txt", b"")]
    said = []
    monkeypatch.setattr("xcli.sources.archives.listing.log.warning", lambda text, *values: said.append(text % values))
    found = contents(listing(make(kind, entries)))
    assert found == [(f"x.{kind}::{name}", content) for name, content in entries[:3]]
    assert contents(listing(f"x.{kind}::a.jpg")) == [(f"x.{kind}::a.jpg", b"new")]
    assert said == [
        f"1 member has the name of an earlier one: x.{kind}::a.jpg. Each is a row; unpacked, or named alone, the last "
        "one counts"
    ]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_system_folders_in_archives_are_passed_over(here, kind):
    entries = [(name, b"x") for name in ("a/@eaDir/1.jpg", "__MACOSX/a/2.jpg", "a/3.jpg", "@eaDir.jpg")]
    found = listing(make(kind, entries))
    assert [ref.path for ref in found] == [f"x.{kind}::a/3.jpg", f"x.{kind}::@eaDir.jpg"]
    assert found.skipped == {"system folder": 2}
    assert len(paths(f"x.{kind}", include_system=True)) == 4


def test_an_xz_of_several_streams_and_one_that_wants_too_much_memory(here, monkeypatch):
    data = tar_bytes([("a.jpg", b"a" * 5000), ("b.jpg", b"b")])
    write("x.tar.xz", lzma.compress(data[:700]) + bytes(8) + lzma.compress(data[700:]) + bytes(4))
    assert contents(listing("x.tar.xz")) == [("x.tar.xz::a.jpg", b"a" * 5000), ("x.tar.xz::b.jpg", b"b")]
    write("x.tar.xz", lzma.compress(data)[:-40])
    assert contents(listing("x.tar.xz"))[-1] == ("x.tar.xz", "truncated")
    monkeypatch.setattr("xcli.sources.archives.tar_stream._MAX_XZ_MEMORY", 1000)
    write("x.tar.xz", lzma.compress(data))
    assert contents(listing("x.tar.xz")) == [("x.tar.xz", "too-large")]
