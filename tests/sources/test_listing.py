"""Options, lists on standard input, limit, shards and the listing itself."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xcli.core.errors import ExitCode, SourceError, SourceNotFoundError, UsageError
from xcli.sources.listing import Listing, list_images, read_entries
from xcli.sources.options import SourceOptions, parse_shard
from xcli.sources.selection import shard_of


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


def touch(*names):
    for name in names:
        with open(name, "wb"):
            pass


def listed(text, *, sources=("-",), **options):
    return list_images(SourceOptions(sources, **options), stdin=io.BytesIO(text))


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"limit": -1}, "--limit must be 0 or more, not -1"),
            ({"shard": (0, 3)}, "not 0/3"),
            ({"shard": (4, 3)}, "not 4/3"),
            ({"shard": (1, 0)}, "not 1/0"),
            ({"sources": ("-", "a", "-")}, "'-' was given 2 times"),
            ({"sources": ("",)}, "a source is empty"),
            ({"sources": ("\ud800",)}, "no path can hold"),
            ({"sources": ("photos\udcff",), "manifest": "m.csv"}, r"both --manifest and a source \('photos\\xff'\)"),
            ({"missing_ok": True, "manifest": "m.csv"}, "--missing-ok was given without a source"),
            ({"null": True}, "--null was given without '-'"),
            ({"escaped_paths": True}, "--escaped-paths was given without --manifest"),
            ({"include": ("",)}, "--include was given an empty pattern"),
            ({"exclude": ("a", "")}, "--exclude was given an empty pattern"),
            ({"include": ("cats/",)}, r"write 'cats/\*\*'"),
        ],
    )
    def test_nonsense_is_refused_and_the_message_says_what_was_received(self, options, message):
        with pytest.raises(UsageError, match=message) as caught:
            SourceOptions(**options)
        assert caught.value.exit_code == ExitCode.USAGE

    def test_bounds_are_taken(self):
        SourceOptions(limit=0, shard=(1, 1))
        SourceOptions(("-",), null=True, shard=(3, 3))

    def test_parse_shard(self):
        assert parse_shard("3/8") == (3, 8)
        assert parse_shard("1/1") == (1, 1)

    @pytest.mark.parametrize(
        "text", ["", "3", "3/", "/8", "0/8", "9/8", "-1/8", "3/8/2", "3 / 8", "٣/٨", "3/8\n", "a/b"]
    )
    def test_parse_shard_refuses(self, text):
        with pytest.raises(UsageError, match="such as 3/8") as caught:
            parse_shard(text)
        assert repr(text) in str(caught.value)


class TestNamed:
    def test_files_are_taken_whatever_they_are_called(self, here):
        touch("a.txt", ".hidden", b"caf\xe9")
        refs = list(list_images(SourceOptions(("a.txt", "./.hidden", "caf\udce9"))))
        assert [(ref.path, ref.location.path, ref.key, ref.error) for ref in refs] == [
            ("a.txt", "a.txt", b"a.txt", None),
            ("./.hidden", "./.hidden", b"./.hidden", None),
            ("caf\\xe9", "caf\udce9", b"caf\xe9", None),
        ]

    def test_a_path_given_twice_is_two_refs(self, here):
        touch("a.jpg")
        found = list_images(SourceOptions(("a.jpg", "a.jpg", "."), limit=3))
        assert [ref.path for ref in found] == ["a.jpg", "a.jpg", "./a.jpg"]
        assert found.listed == 3

    @pytest.mark.parametrize(
        ("source", "error"),
        [
            ("gone.jpg", "missing: no such file or directory"),
            ("a.jpg/b.jpg", "missing: no such file or directory"),
            ("dangling.jpg", "missing: a dangling symbolic link"),
            ("fifo", "not-a-file: it is a FIFO, not a regular file"),
            ("/dev/null", "not-a-file: it is a character device, not a regular file"),
            ("nul\0.jpg", "missing: the path holds a NUL byte, which no file name can"),
            ("x" * 300, "unreadable: cannot look at the path: File name too long"),
        ],
    )
    def test_what_cannot_be_an_image_is_a_row_in_its_place(self, here, source, error):
        touch("a.jpg")
        os.symlink("nowhere", "dangling.jpg")
        os.mkfifo("fifo")
        before, ref, after = list_images(SourceOptions(("a.jpg", source, "a.jpg"), missing_ok=True))
        assert (before.error, after.error) == (None, None)
        assert (ref.path, str(ref.error)) == (source, error)

    def test_what_does_not_exist_is_refused_at_once_all_of_it(self, here):
        os.makedirs("photos/sub")
        touch("a.jpg", "photos/cats.jpg")
        os.symlink("nowhere", "dangling.jpg")
        made_of = {"a.jpg\r": "a.jpg", "A.jpg": "a.jpg", "'a.jpg'": "a.jpg", "phots/cat.jpg": "photos"}
        made_of |= {"photos/cat.jpg": "photos/cats.jpg", "photo/": "photos", "file://a.jpg": "a.jpg"}
        for source, meant in made_of.items():
            with pytest.raises(SourceNotFoundError) as caught:
                list_images(SourceOptions((source,)))
            expected = (
                f"1 source does not exist: '{source}' (did you mean '{meant}'?); --missing-ok makes it an error row"
            )
            assert str(caught.value) == expected
        sources = ("gone.png", "a.jpg", "*.gif", "dangling.jpg", "gone.png", "a.jpg/b.jpg", "nul\0.jpg")
        with pytest.raises(SourceNotFoundError) as caught:
            list_images(SourceOptions(sources, limit=0))
        assert str(caught.value) == (
            "5 sources do not exist: 'gone.png' (no such file or directory), '*.gif' (as a pattern it matches nothing),"
            " 'dangling.jpg' (a dangling symbolic link), 'a.jpg/b.jpg' (no such file or directory),"
            " 'nul\0.jpg' (the path holds a NUL byte, which no file name can); --missing-ok makes them error rows"
        )
        with pytest.raises(SourceNotFoundError, match=r"matches nothing\)$"):
            list_images(SourceOptions(("*.gif",), missing_ok=True))
        assert caught.value.exit_code == ExitCode.USAGE

    def test_what_is_missing_decides_no_row_of_the_others(self):
        assert SourceOptions(("a",), missing_ok=True).as_dict() == SourceOptions(("a",)).as_dict()


class TestList:
    def test_one_path_a_line_verbatim(self, here):
        names = [b"a.jpg", b" b.jpg ", b"c\r", b"*.jpg", b"caf\xe9", "🦊".encode()]
        touch(*names)
        refs = list(listed(b"\n".join([*names, b"", b"gone"])))
        assert [ref.key for ref in refs] == [*names, b"gone"]
        assert [os.fsencode(ref.location) for ref in refs] == [*names, b"gone"]
        assert [ref.error for ref in refs[:-1]] == [None] * 6
        assert refs[-1].error.reason == "missing"

    def test_nul_separated(self, here):
        touch("new\nline", "b")
        assert [ref.path for ref in listed(b"new\nline\0\0b\0", null=True)] == ["new\nline", "b"]

    def test_a_directory_in_the_list_is_a_source(self, here):
        os.makedirs("d/e")
        touch("d/e/a.jpg", "d/notes.txt", "z")
        found = listed(b"d\nz\n")
        assert [(ref.path, ref.key) for ref in found] == [("d/e/a.jpg", b"e/a.jpg"), ("z", b"z")]
        assert found.skipped == {"not an image": 1}

    def test_stands_among_other_sources(self, here):
        touch("a", "b", "c")
        assert [ref.path for ref in listed(b"b\n", sources=("a", "-", "c"))] == ["a", "b", "c"]

    def test_is_filtered(self, here):
        os.makedirs("thumbs")
        touch("a.jpg", "b.png", "thumbs/c.jpg", "d.img")
        found = listed(
            b"./a.jpg\n./b.png\n./thumbs/c.jpg\n./thumbs\n./d.img\n", include=("*.jpg", "*.i*"), exclude=("thumbs",)
        )
        assert [ref.path for ref in found] == ["./a.jpg", "./d.img"]
        assert found.skipped == {"not included": 1, "excluded": 2}

    @pytest.mark.parametrize(("null", "separator"), [(False, b"\n"), (True, b"\0")])
    def test_begins_before_the_list_ends(self, here, deadline, null, separator):
        touch("a", "b")
        read, write = os.pipe()
        with os.fdopen(read, "rb") as stdin, os.fdopen(write, "wb", buffering=0) as writer:
            refs = iter(list_images(SourceOptions(("-",), null=null), stdin=stdin))
            writer.write(b"a" + separator + b"b")
            assert next(refs).path == "a"
            writer.write(separator)
            assert next(refs).path == "b"
            writer.close()
            assert list(refs) == []

    def test_an_empty_list_lists_nothing(self):
        assert list(listed(b"")) == list(listed(b"\n\n")) == []

    def test_a_list_without_separators_does_not_fill_the_memory(self):
        class Endless(io.RawIOBase):
            chunks = 0

            def read1(self, size):
                self.chunks += 1
                return b"x" * size if self.chunks < 100 else b""

        entries = list(read_entries(Endless(), b"\n"))
        assert len(entries) == 1
        assert len(entries[0]) < 200_000

    def test_standard_input_that_cannot_be_read_is_a_row(self, here):
        (ref,) = list_images(SourceOptions(("-",)), stdin=_Broken())
        assert ref.path == "-"
        assert str(ref.error) == "unreadable: cannot read the list on standard input: Is a directory"

    def test_closed_standard_input_is_refused_at_once(self, monkeypatch):
        monkeypatch.setattr(sys, "stdin", None)
        with pytest.raises(SourceError, match="standard input, but it is closed"):
            list_images(SourceOptions(("-",)))

    @given(st.lists(st.binary(max_size=6)), st.integers(1, 7))
    def test_reading_in_pieces_gives_the_same_entries(self, entries, size):
        class Pieces(io.BytesIO):
            def read1(self, _=-1):
                return self.read(size)

        entries = [entry.replace(b"\0", b"") for entry in entries]
        found = list(read_entries(Pieces(b"\0".join(entries)), b"\0"))
        assert found == [entry for entry in entries if entry]


class _Broken(io.RawIOBase):
    def read(self, size=-1):
        raise IsADirectoryError(21, "Is a directory")


class TestShard:
    def test_the_rule_is_fixed_for_ever(self):
        keys = [b"a.jpg", b"train/n01440764/n01440764_10026.JPEG", b"caf\xe9.jpg", "🦊/1.png".encode(), b""]
        assert [shard_of(key, 8) for key in keys] == [2, 7, 8, 2, 5]
        assert [shard_of(key, 1000) for key in keys] == [450, 775, 432, 898, 877]

    def test_a_new_signature_of_a_url_does_not_change_its_shard(self):
        plain = [b"https://host/bucket/%d.jpg?width=9" % number for number in range(20)]
        assert [shard_of(key, 8) for key in plain[:6]] == [1, 8, 4, 1, 2, 5]
        for secret in (b"X-Amz-Signature=abc&X-Amz-Expires=9", b"sig=1&se=2030", b"token=x"):
            signed = [key.replace(b"host/", b"me:word@host/") + b"&" + secret for key in plain]
            assert [shard_of(key, 1000) for key in signed] == [shard_of(key, 1000) for key in plain]
        assert shard_of(b"s3://bucket/a?token=1", 1000) != shard_of(b"s3://bucket/a?token=2", 1000)

    @given(
        st.lists(st.binary(min_size=1, max_size=8).map(lambda name: name.replace(b"\0", b"_")), max_size=30),
        st.integers(1, 6),
        st.none() | st.integers(0, 20),
    )
    def test_shards_are_disjoint_and_complete_and_limit_comes_first(self, names, count, limit):
        text = b"\0".join(b"/nowhere/" + name for name in names)

        def numbered(shard):
            # A path may be listed more than once, so it is told apart by its place among all.
            found = listed(text, null=True, limit=limit, shard=shard)
            refs = list(found)
            assert found.listed == len(refs)
            total = len(names) if limit is None else min(limit, len(names))
            assert found.listed + found.skipped.get("other shard", 0) == total
            return [ref.key for ref in refs]

        whole = numbered(None)
        parts = [numbered((number, count)) for number in range(1, count + 1)]
        assert sorted(key for part in parts for key in part) == sorted(whole)
        for number, part in enumerate(parts, 1):
            assert part == [key for key in whole if shard_of(key, count) == number]  # in order

    def test_a_directory_is_cut_alike_wherever_it_lies(self, here):
        os.makedirs("one/d")
        names = [f"one/d/{number}.jpg" for number in range(40)]
        touch(*names)
        os.symlink("one", "two")
        first = [ref.key for ref in list_images(SourceOptions(("one",), shard=(2, 3)))]
        assert 0 < len(first) < 40
        assert first == [ref.key for ref in list_images(SourceOptions((f"{here}/two/",), shard=(2, 3)))]


class TestListing:
    def test_can_be_iterated_once(self, here):
        touch("a.jpg")
        found = list_images(SourceOptions(("a.jpg",)))
        assert isinstance(found, Listing)
        assert len(list(found)) == 1
        with pytest.raises(RuntimeError, match="once"):
            iter(found)

    def test_counts_while_it_goes(self, here):
        touch("a.jpg", "b.txt", "c.jpg", ".d")
        with list_images(SourceOptions((".",))) as found:
            refs = iter(found)
            assert found.listed == 0
            next(refs)
            assert (found.listed, found.skipped) == (1, {"hidden": 1})
            next(refs)
            assert (found.listed, found.skipped) == (2, {"hidden": 1, "not an image": 1})
            assert list(refs) == []

    def test_limit_zero_lists_nothing(self, here):
        touch("a.jpg")
        assert list(list_images(SourceOptions((".",), limit=0))) == []

    def test_has_no_extra_columns_without_manifest(self):
        assert list_images(SourceOptions(("a.jpg",), missing_ok=True)).extra_columns == ()

    def test_importing_is_light(self):
        code = (
            "import sys, xcli.sources.listing; print(*({'pyarrow', 'numpy', 'tensorflow', 'PIL'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == ""


class TestManifest:
    """How a manifest goes into a listing; its reading is tested in test_manifests."""

    @pytest.fixture
    def manifest(self, here):
        with open("m.csv", "w") as file:
            file.write("label,path\n" + "".join(f"l{number},d/{number}.jpg\n" for number in range(10)))
        return "m.csv"

    def test_refs_carry_the_other_columns(self, manifest):
        found = list_images(SourceOptions(manifest=manifest))
        assert [column.name for column in found.extra_columns] == ["label"]
        assert [(ref.path, ref.extra) for ref in found][:2] == [("d/0.jpg", ("l0",)), ("d/1.jpg", ("l1",))]
        assert found.listed == 10

    def test_limit_and_shard(self, manifest):
        parts = [list(list_images(SourceOptions(manifest=manifest, limit=9, shard=(i, 2)))) for i in (1, 2)]
        assert sorted(ref.path for part in parts for ref in part) == [f"d/{number}.jpg" for number in range(9)]

    def test_is_filtered_but_for_rows_without_path(self, here):
        with open("m.csv", "w") as file:
            file.write("path,n\nd/a.jpg,1\n,2\nd/b.png,3\nthumbs/c.jpg,4\n")
        found = list_images(SourceOptions(manifest="m.csv", include=("*.jpg",), exclude=("thumbs",)))
        assert [(ref.path, ref.extra) for ref in found] == [("d/a.jpg", ("1",)), ("", ("2",))]
        assert found.skipped == {"not included": 1, "excluded": 1}

    def test_on_standard_input_which_stays_open(self):
        stdin = io.BytesIO(b"path\na.jpg\n")
        with list_images(SourceOptions(manifest="-"), stdin=stdin) as found:
            assert [ref.path for ref in found] == ["a.jpg"]
        assert not stdin.closed

    def test_problems_are_raised_at_once(self, here):
        with pytest.raises(SourceError, match=r"cannot open the manifest 'gone\.csv'"):
            list_images(SourceOptions(manifest="gone.csv"))

    @pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files can be counted under Linux only")
    def test_file_is_closed_at_the_end_or_by_close(self, manifest):
        def open_files():
            links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
            return sum(os.path.lexists(link) and os.readlink(link).endswith("/m.csv") for link in links)

        found = list_images(SourceOptions(manifest=manifest))
        assert open_files() == 1
        list(found)
        assert open_files() == 0
        found = list_images(SourceOptions(manifest=manifest))
        next(iter(found))
        found.close()
        found.close()
        assert open_files() == 0


def test_options_that_are_newer_than_a_run_do_not_change_its_fingerprint():
    """Unfinished runs of the versions without these options go on; where they are used, the run is another one."""
    then = {"sources", "null", "manifest", "path_column", "escaped_paths", "archives", "include", "exclude", "limit"}
    assert SourceOptions(("a",)).as_dict().keys() == then | {"shard"}
    assert SourceOptions(("a",), include_system=True).as_dict()["include_system"] is True
    assert SourceOptions(manifest="m.csv", manifest_base="d").as_dict()["manifest_base"] == "d"
    with pytest.raises(UsageError, match="--manifest-base was given without --manifest"):
        SourceOptions(("a",), manifest_base="d")
