"""Directories and globs on real files, through `list_images`."""

from __future__ import annotations

import errno
import glob
import os
import random
import socket
import subprocess
import time
import tracemalloc

import pytest

from xcli.core.errors import SourceError
from xcli.sources.directories import _Names
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.storage.local import LocalFile


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*names):
    """Makes empty files, and directories for names that end in a slash, relative to the current directory."""
    for name in names:
        name = os.fsencode(name)
        directory, _, base = name.rpartition(b"/")
        if directory:
            os.makedirs(directory, exist_ok=True)
        if base:
            with open(name, "wb"):
                pass


def listing(*sources, **options):
    return list_images(SourceOptions(sources, missing_ok=bool(sources), **options))


def paths(*sources, **options):
    return [ref.path for ref in listing(*sources, **options)]


def outcome(*sources, **options):
    """Refs as (path, reason of the error or None), and what was skipped."""
    found = listing(*sources, **options)
    return [(ref.path, ref.error and ref.error.reason) for ref in found], found.skipped


def forbid(monkeypatch, forbidden, number=errno.EACCES):
    """Makes one directory refuse to be listed; the tests may run as root, whom no mode stops."""
    scandir = os.scandir

    def refuse(path):
        if path == forbidden:
            raise OSError(number, os.strerror(number), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


class TestDirectory:
    def test_depth_first_in_byte_order_with_subdirectories_in_place(self, here):
        make("d/b.jpg", "d/a/z.jpg", "d/a.jpg", "d/B.jpg", "d/c/x/1.jpg", "d/c/x.jpg", "d/é.jpg", "d/z.jpg")
        assert paths("d") == [
            "d/B.jpg",
            "d/a/z.jpg",
            "d/a.jpg",
            "d/b.jpg",
            "d/c/x/1.jpg",
            "d/c/x.jpg",
            "d/z.jpg",
            "d/é.jpg",
        ]

    @pytest.mark.parametrize(
        ("source", "expected"),
        [("d", "d/a.jpg"), ("d/", "d/a.jpg"), ("./d/", "./d/a.jpg"), ("d//", "d//a.jpg"), (".", "./d/a.jpg")],
    )
    def test_paths_are_as_given_and_keys_relative_to_the_source(self, here, source, expected):
        make("d/a.jpg")
        (ref,) = listing(source)
        assert (ref.path, ref.location) == (expected, LocalFile(expected))
        assert ref.key == (b"d/a.jpg" if source == "." else b"a.jpg")

    def test_without_sources_the_current_directory_is_listed_without_prefix(self, here, caplog):
        caplog.set_level("INFO", "xcli")
        make("d/a.jpg", "b.jpg")
        found = listing()
        assert [(ref.path, ref.key) for ref in found] == [("b.jpg", b"b.jpg"), ("d/a.jpg", b"d/a.jpg")]
        listing(".")
        assert caplog.messages == ["no SOURCE given: taking the current directory"]

    def test_every_image_extension_in_any_case_counts_and_the_rest_is_skipped(self, here):
        images = [
            "a.jpg",
            "b.JPEG",
            "c.jpe",
            "d.jfif",
            "e.PnG",
            "f.gif",
            "g.bmp",
            "h.dib",
            "i.webp",
            "j.tif",
            "k.tiff",
            "l.heic",
            "m.heif",
            "n.AVIF",
        ]
        make(*images, "notes.txt", "jpg", "x.jpg.bak", "no_extension", "a.jpgx", "a.")
        assert outcome() == ([(name, None) for name in images], {"not an image": 4, "without an extension": 2})

    def test_hidden_entries_are_skipped_and_a_hidden_directory_counts_once(self, here):
        make(".a.jpg", ".git/1.jpg", ".git/2.jpg", "b.jpg", "c/.d.jpg")
        assert outcome() == ([("b.jpg", None)], {"hidden": 3})

    def test_a_hidden_directory_named_explicitly_is_listed(self, here):
        make(".photos/a.jpg")
        assert paths(".photos") == [".photos/a.jpg"]

    def test_a_directory_named_like_an_image_is_a_directory(self, here):
        make("x.jpg/a.jpg", "x.jpg/b.txt")
        assert outcome(".") == ([("./x.jpg/a.jpg", None)], {"not an image": 1})

    def test_an_empty_directory_lists_nothing(self, here):
        make("d/")
        assert outcome("d") == ([], {})

    def test_names_that_are_not_text(self, here):
        make(b"d/caf\xe9.jpg", "d/new\nline.jpg", "d/🦊.jpg", "d/back\\slash.jpg")
        refs = list(listing("d"))
        assert [ref.path for ref in refs] == [
            r"d/back\\slash.jpg",
            r"d/caf\xe9.jpg",
            "d/new\nline.jpg",
            "d/🦊.jpg",
        ]
        assert refs[1].key == b"caf\xe9.jpg"
        assert all(os.path.exists(ref.location) for ref in refs)

    def test_sockets_and_fifos_are_rows_if_named_like_images_and_never_opened(self, here):
        os.mkfifo("fifo.jpg")
        os.mkfifo("pipe")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket.png")
            found = listing()
            refs = {ref.path: str(ref.error) for ref in found}
        assert refs == {
            "fifo.jpg": "not-a-file: it is a FIFO, not a regular file",
            "socket.png": "not-a-file: it is a socket, not a regular file",
        }
        assert found.skipped == {"without an extension": 1}

    @pytest.mark.parametrize("name", ["@eaDir", "@EADIR", "#recycle", "$Recycle.Bin", "found.001", "__MACOSX", "CVS"])
    def test_system_folders_are_passed_over_in_every_walk(self, here, name):
        make(f"d/a/{name}/1.jpg", "d/a/2.jpg", f"d/{name}/b/3.jpg", f"{name}.jpg")
        inside, outside = [f"d/{name}/b/3.jpg", f"d/a/{name}/1.jpg"], ["d/a/2.jpg"]
        assert outcome("d") == ([(path, None) for path in outside], {"system folder": 2})
        assert outcome("d/*") == ([(path, None) for path in outside], {"system folder": 2})
        assert outcome("d/**/*.jpg") == ([(path, None) for path in outside], {"system folder": 2})
        assert sorted(paths("d", include_system=True)) == sorted(inside + outside)
        assert sorted(paths("d/**/*.jpg", include_system=True)) == sorted(inside + outside)
        # What is named is taken.
        assert paths(f"d/{name}") == inside[:1]
        assert paths(f"d/*/{name}/*.jpg") == inside[1:]
        assert paths(f"{name}.jpg") == [f"{name}.jpg"]

    @pytest.mark.parametrize("name", ["cvs", "recycler", "recycled", "eaDir", "found.1", "thumbs"])
    def test_names_that_classes_may_have_are_no_system_folders(self, here, name):
        make(f"d/{name}/1.jpg")
        assert paths("d") == [f"d/{name}/1.jpg"]

    def test_a_missing_top_is_a_row(self, here):
        (ref,) = listing("nowhere")
        assert (ref.path, ref.key, str(ref.error)) == ("nowhere", b"nowhere", "missing: no such file or directory")

    @pytest.mark.parametrize(
        ("number", "error"),
        [
            (errno.EACCES, "unreadable: cannot list the directory: Permission denied"),
            (errno.EIO, "unreadable: cannot list the directory: Input/output error"),
            (errno.ENOENT, "missing: cannot list the directory: it is gone since it was found"),
        ],
    )
    def test_a_directory_that_cannot_be_listed_is_a_row_in_its_place(self, here, monkeypatch, number, error):
        make("d/a.jpg", "d/b/secret.jpg", "d/c.jpg")
        forbid(monkeypatch, b"d/b", number)
        refs = list(listing("d"))
        assert [ref.path for ref in refs] == ["d/a.jpg", "d/b", "d/c.jpg"]
        assert str(refs[1].error) == error
        assert refs[1].key == b"b"

    def test_a_named_directory_that_cannot_be_listed_is_a_row(self, here, monkeypatch):
        make("d/a.jpg")
        forbid(monkeypatch, b"d")
        (ref,) = listing("d")
        assert (ref.path, ref.key) == ("d", b"d")
        assert str(ref.error) == "unreadable: cannot list the directory: Permission denied"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root lists every directory")
    def test_a_directory_without_permission_is_a_row(self, here):
        make("d/b/secret.jpg")
        os.chmod("d/b", 0)
        try:
            assert outcome("d")[0] == [("d/b", "unreadable")]
        finally:
            os.chmod("d/b", 0o700)

    def test_thousands_of_levels(self, here):
        # Twice the recursion limit, and a path longer than the system takes: 4,096 bytes.
        directory = os.open(".", os.O_RDONLY)
        for depth in range(2100):
            os.mkdir("d", dir_fd=directory)
            below = os.open("d", os.O_RDONLY, dir_fd=directory)
            os.close(directory)
            directory = below
            if depth == 1999:
                os.close(os.open("deep.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
        os.close(directory)
        try:
            first, second = listing()
        finally:
            subprocess.run(["rm", "-rf", "d"], check=True)
        too_long, image = sorted((first, second), key=lambda ref: ref.error is None)
        assert image.path == "d/" * 2000 + "deep.jpg"
        assert too_long.error.reason == "unreadable"
        assert "File name too long" in str(too_long.error)


class TestLinks:
    def test_links_to_files_and_directories_are_followed(self, here):
        make("real/a.jpg", "d/")
        os.symlink("../real", "d/linked")
        os.symlink("../real/a.jpg", "d/z.jpg")
        assert paths("d") == ["d/linked/a.jpg", "d/z.jpg"]

    def test_a_link_to_a_sibling_is_no_loop(self, here):
        make("a/1.jpg")
        os.symlink("a", "b")
        assert outcome() == ([("a/1.jpg", None), ("b/1.jpg", None)], {})

    def test_a_link_named_as_source_is_followed(self, here):
        make("real/a.jpg")
        os.symlink("real", "link")
        assert paths("link") == ["link/a.jpg"]

    @pytest.mark.parametrize("target", [".", "..", "../..", "../../d/e"])
    def test_a_link_to_an_ancestor_is_a_loop(self, here, target):
        make("d/e/a.jpg")
        os.symlink(target, "d/e/up")
        assert outcome() == ([("d/e/a.jpg", None)], {"symlink loop": 1})

    def test_a_loop_through_two_links_ends(self, here):
        make("a/1.jpg", "b/2.jpg")
        os.symlink("../b", "a/to_b")
        os.symlink("../a", "b/to_a")
        assert outcome("a") == ([("a/1.jpg", None), ("a/to_b/2.jpg", None)], {"symlink loop": 1})

    def test_a_link_above_the_source_does_not_come_back_into_it(self, here):
        make("top/d/a.jpg", "top/z.jpg")
        os.symlink("..", "top/d/up")
        # d is a plain directory below top, but we are in it already.
        assert outcome("top/d") == ([("top/d/a.jpg", None), ("top/d/up/z.jpg", None)], {"symlink loop": 1})

    def test_dangling_links(self, here):
        make("d/")
        os.symlink("nowhere", "d/a.jpg")
        os.symlink("nowhere", "d/album")
        os.symlink("self.png", "d/self.png")
        found = listing("d")
        assert {ref.path: str(ref.error) for ref in found} == {
            "d/a.jpg": "missing: a dangling symbolic link",
            "d/self.png": "unreadable: cannot look at the path: Too many levels of symbolic links",
        }
        assert found.skipped == {"broken symlink": 1}

    def test_a_link_to_a_fifo_is_not_opened(self, here):
        make("d/")
        os.mkfifo("fifo")
        os.symlink("../fifo", "d/a.jpg")
        assert outcome("d") == ([("d/a.jpg", "not-a-file")], {})


class TestLaziness:
    @pytest.fixture
    def listed(self, monkeypatch):
        """The directories listed so far."""
        directories = []
        scandir = os.scandir
        monkeypatch.setattr(os, "scandir", lambda path: directories.append(path) or scandir(path))
        return directories

    def test_a_directory_is_listed_when_its_turn_comes(self, here, listed):
        make("a/1.jpg", "b/2.jpg", "c/3.jpg")
        refs = iter(listing("a", "."))
        assert listed == []
        assert next(refs).path == "a/1.jpg"
        assert listed == [b"a"]
        assert next(refs).path == "./a/1.jpg"
        assert listed == [b"a", b".", b"./a"]
        assert next(refs).path == "./b/2.jpg"
        assert listed == [b"a", b".", b"./a", b"./b"]

    def test_a_glob_is_looked_at_up_to_its_first_match(self, here, listed):
        make("a/1.jpg", "b/2.jpg", "c/3.jpg")
        found = listing("*/*.jpg")
        assert listed == [b".", b"a"]
        assert [ref.path for ref in found] == ["a/1.jpg", "b/2.jpg", "c/3.jpg"]
        assert listed == [b".", b"a", b"b", b"c"]  # nothing twice

    def test_a_fixed_name_within_a_glob_is_looked_up_not_searched(self, here, listed):
        make("a/raw/1.jpg", "b/2.jpg", "c/raw/3.jpg")
        os.symlink("nowhere", "d")
        assert paths("*/raw/*.jpg") == ["a/raw/1.jpg", "c/raw/3.jpg"]
        assert listed == [b".", b"a/raw", b"c/raw"]

    def test_limit_ends_the_walk(self, here, listed):
        make("a/1.jpg", "a/2.jpg", "b/3.jpg")
        assert paths(".", limit=2) == ["./a/1.jpg", "./a/2.jpg"]
        assert listed == [b".", b"./a"]

    def test_regular_files_are_not_stated(self, here, monkeypatch):
        make(*(f"d/{number}.jpg" for number in range(10)))
        stated = []
        stat = os.stat
        monkeypatch.setattr(os, "stat", lambda path, **options: stated.append(path) or stat(path, **options))
        assert len(paths("d")) == 10
        assert stated == [b"d", b"d"]  # whether it exists, and what it is when it is listed

    def test_a_large_directory_starts_and_ends_soon(self, here):
        make("d/")
        directory = os.open("d", os.O_RDONLY)
        for number in range(20_000):
            os.mknod(f"{number:05}.jpg", dir_fd=directory)
        os.close(directory)
        began = time.process_time()
        refs = iter(listing("d"))
        assert next(refs).path == "d/00000.jpg"
        first = time.process_time() - began
        assert sum(1 for _ in refs) == 19_999
        assert first < 0.5  # of the processor's time, whatever else the machine does; about 0.02 s
        assert time.process_time() - began < 2  # about 0.1 s


class TestGlob:
    TREE = (
        "a.jpg",
        "b.txt",
        "d/1.jpg",
        "d/2.png",
        "d/e/1.jpg",
        "d/e/f/1.jpg",
        "d/e/f/10.jpg",
        "d.e/1.jpg",
        "g[1]/1.jpg",
        ".h/1.jpg",
        "d/.h.jpg",
        "d/.i/1.jpg",
    )

    @pytest.mark.parametrize(
        "pattern",
        [
            "*.jpg",
            "*/1.jpg",
            "*/*.*",
            "**/1.jpg",
            "**/*.jpg",
            "**/*.*g",
            "d/**/1*.jpg",
            "d/**/f/*.jpg",
            "**/e/**/1.jpg",
            "?/?/*.jpg",
            "[dx]/*.jpg",
            "g[[]1]/*.jpg",
            "./d/*.jpg",
            ".h/*.jpg",
            ".*/*.jpg",
            "*/.h.jpg",
            "*/.*/*.jpg",
            "d/e/../*.jpg",
        ],
    )
    def test_files_as_the_standard_library_finds_them_but_in_order(self, here, pattern):
        make(*self.TREE)
        expected = glob.glob(pattern, recursive=True)
        assert expected
        found = [ref.location.path for ref in listing(pattern)]
        assert len(found) == len(set(found))
        assert set(found) == set(expected)
        assert found == sorted(found, key=lambda path: path.encode().split(b"/"))
        assert [ref.key for ref in listing(pattern)] == [path.encode() for path in found]

    def test_the_fixed_part_is_kept_as_given(self, here):
        make("d/1.jpg")
        assert paths(f"{here}/*/1.jpg") == [f"{here}/d/1.jpg"]
        assert paths("d//*.jpg", "./d/./*.jpg") == ["d//1.jpg", "./d/./1.jpg"]

    def test_matched_files_need_no_image_extension_but_what_is_in_matched_directories_does(self, here):
        make("x/a.txt", "x/b.jpg", "x/sub/c.txt", "x/sub/d.jpg", "x/.e.jpg")
        assert outcome("x/*") == (
            [("x/a.txt", None), ("x/b.jpg", None), ("x/sub/d.jpg", None)],
            {"not an image": 1},
        )

    def test_everything_below_each_once(self, here):
        make("x/a.txt", "x/b.jpg", "x/sub/c.txt", "x/sub/d.jpg", "x/.e.jpg")
        everything = ["x/a.txt", "x/b.jpg", "x/sub/c.txt", "x/sub/d.jpg"]
        assert paths("x/**") == paths("x/**/*") == everything

    def test_a_slash_at_the_end_keeps_to_directories(self, here):
        make("x/a.jpg", "x/sub/c.txt", "x/sub/d.jpg")
        assert paths("x/*/") == ["x/sub/d.jpg"]

    def test_nested_matching_directories_are_listed_once(self, here):
        make("x/1.jpg", "x/x/2.jpg", "x/x/x/3.jpg")
        assert paths("**/x") == ["x/1.jpg", "x/x/2.jpg", "x/x/x/3.jpg"]

    @pytest.mark.parametrize("pattern", ["*.gif", "nowhere/*.jpg", "a.jpg/*", "d/**/x", "[", "*/", "a\0*"])
    def test_no_match_is_an_error_at_once(self, here, pattern):
        make("a.jpg")
        with pytest.raises(SourceError, match="as a pattern it matches nothing"):
            listing("a.jpg", pattern)

    @pytest.mark.parametrize(
        ("pattern", "options"), [("d/*", {}), ("d/**", {}), ("d/e/**", {}), ("*/", {}), ("*.jpg", {"exclude": ("*",)})]
    )
    def test_a_match_without_images_is_no_error(self, here, pattern, options):
        make("a.jpg", "d/e/")
        assert paths(pattern, **options) == []

    def test_a_name_that_exists_is_no_pattern(self, here):
        make("photo[1].jpg", "photo1.jpg", "what?/a.jpg")
        assert paths("photo[1].jpg", "what?") == ["photo[1].jpg", "what?/a.jpg"]

    def test_names_that_are_not_text(self, here):
        make(b"caf\xe9/1.jpg", "🦊/1.jpg")
        assert paths("*/1.jpg") == [r"caf\xe9/1.jpg", "🦊/1.jpg"]
        assert paths("caf\udce9/?.jpg") == [r"caf\xe9/1.jpg"]

    def test_dotdot_after_a_wildcard_is_refused(self, here):
        make("d/a.jpg")
        with pytest.raises(SourceError, match=r"has '\.\.' after a wildcard"):
            listing("*/../*")

    def test_links(self, here):
        make("d/x.jpg")
        os.symlink(".", "d/self")
        os.symlink("nowhere", "d/gone.jpg")
        # A fixed depth cannot run in circles; any depth can.
        assert outcome("d/*/x.jpg") == ([("d/self/x.jpg", None)], {})
        assert outcome("d/**/*.jpg") == ([("d/gone.jpg", "missing"), ("d/x.jpg", None)], {"symlink loop": 1})
        assert outcome("*/gone.jpg") == ([("d/gone.jpg", "missing")], {})

    def test_what_cannot_be_looked_at_on_the_way_is_a_row(self, here):
        make("a/raw/1.jpg", "b/")
        os.symlink("raw", "b/raw")  # a link to itself: it may have been a directory, and is no match by itself
        assert outcome("*/raw/*.jpg") == ([("a/raw/1.jpg", None), ("b/raw", "unreadable")], {})

    def test_directories_that_cannot_be_listed_are_rows(self, here, monkeypatch):
        make("d/a.jpg", "e/b.jpg")
        forbid(monkeypatch, b"d")
        assert outcome("*/*.jpg") == ([("d", "unreadable"), ("e/b.jpg", None)], {})
        forbid(monkeypatch, b"d/")
        assert outcome("d/*.jpg") == ([("d/", "unreadable")], {})


class TestFilter:
    def test_in_directories(self, here):
        make("d/a.jpg", "d/a.png", "d/a.img", "d/thumbs/b.jpg", "d/x/thumbs/c.jpg", "d/x/d.jpg", "d/x/e.txt")
        assert outcome("d", exclude=("thumbs",)) == (
            [("d/a.jpg", None), ("d/a.png", None), ("d/x/d.jpg", None)],
            {"excluded": 2, "not an image": 2},
        )
        assert paths("d", include=("*.img",)) == ["d/a.img"]
        assert paths("d", include=("x/**",)) == ["d/x/d.jpg", "d/x/thumbs/c.jpg"]
        assert paths("d", include=("x/*",)) == ["d/x/d.jpg"]
        assert paths("d", include=("*.jpg",), exclude=("x/thumbs", "/thumbs/")) == ["d/a.jpg", "d/x/d.jpg"]

    def test_an_excluded_directory_is_not_even_listed(self, here, monkeypatch):
        make("d/a.jpg", "d/thumbs/b.jpg")
        forbid(monkeypatch, b"d/thumbs")
        assert outcome("d", exclude=("thumbs",)) == ([("d/a.jpg", None)], {"excluded": 1})

    def test_in_globs(self, here):
        make("d/a.jpg", "d/b.png", "d/thumbs/c.jpg")
        assert paths("d/**", exclude=("thumbs",), include=("*.jpg",)) == ["d/a.jpg"]
        assert paths("d/*.*", exclude=("d/a.*",)) == ["d/b.png"]

    def test_named_files_are_never_filtered(self, here):
        make("a.txt", ".b.jpg")
        assert paths("a.txt", ".b.jpg", exclude=("*",), include=("*.png",)) == ["a.txt", ".b.jpg"]

    def test_fifos_are_filtered_like_files(self, here):
        os.mkfifo("a.jpg")
        assert outcome(".", exclude=("a.*",)) == ([], {"excluded": 1})


@pytest.mark.parametrize("count", [7, 8, 9, 100])
def test_a_large_directory_is_in_the_order_of_bytes_too(here, monkeypatch, count):
    monkeypatch.setattr("xcli.sources.directories._RUN", 8)
    monkeypatch.setattr("xcli.sources.directories._JOINED", 3)
    names = [f"{end}{number:02}.jpg" for number in range(count // 2) for end in ("a", "a-", "\udcff", "é")][:count]
    make(*(f"d/{name}" for name in random.Random(1).sample(names, count)))
    make("d/a07/b.jpg", "d/no image")
    with listing("d") as found:
        expected = sorted(map(os.fsencode, [*names, "a07"]))
        assert [os.fsencode(ref.location.path)[2:].removesuffix(b"/b.jpg") for ref in found] == expected
        assert found.skipped == {"without an extension": 1}


def test_the_names_in_a_large_directory_take_little_more_than_their_length():
    count = 200_000
    tracemalloc.start()
    try:
        names = _Names()
        for number in range(count):
            names.add(b"%08x.jpg" % (number * 2_654_435_761 % (1 << 32)))
        kept, _ = tracemalloc.get_traced_memory()
        found = names.sorted()
        assert next(found) < next(found)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 14 * count + (6 << 20)
    assert peak < kept + (6 << 20)
