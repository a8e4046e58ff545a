"""`--no-follow`: links in directories and globs are passed over, whatever they become between listing and reading."""

from __future__ import annotations

import io
import os
import zipfile

import pytest

from xcli.core.errors import ImageError, SourceNotFoundError
from xcli.sources.archives.listing import WholeArchives
from xcli.sources.labelled import read_labelled
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.storage import disk


@pytest.fixture
def upload(tmp_path, monkeypatch):
    """A directory `up` with links of all sorts beside `secret`, which is not part of it."""
    monkeypatch.chdir(tmp_path)
    for name, content in (("secret/s.jpg", b"secret"), ("up/a/1.jpg", b"1"), ("up/b.jpg", b"b"), ("up/z/é.jpg", b"z")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(content)
    for name, target in (
        ("c.jpg", "../secret/s.jpg"),
        ("d", "../secret"),
        ("e.jpg", "b.jpg"),
        ("f", "a"),
        ("g.jpg", "nothing"),
        ("h", "."),
        ("a/2.jpg", str(tmp_path / "secret/s.jpg")),
    ):
        (tmp_path / "up" / name).symlink_to(target)
    return tmp_path / "up"


def listing(*sources, **options):
    return list_images(SourceOptions(sources, no_follow=True, **options))


def read(refs):
    found = []
    for ref in refs:
        try:
            found.append((ref.path, ref.error.reason if ref.error else ref.location.read(99)))
        except ImageError as error:
            found.append((ref.path, str(error)))
    return found


def test_no_link_in_a_directory_is_followed_and_all_are_counted(upload):
    kept = [("a/1.jpg", b"1"), ("b.jpg", b"b"), ("z/é.jpg", b"z")]
    for source, before in (("up", "up/"), ("up/", "up/"), (str(upload), f"{upload}/"), ("up/../up", "up/../up/")):
        found = listing(source)
        assert read(found) == [(before + path, content) for path, content in kept]
        assert found.skipped == {"link": 7}
    os.chdir(upload)
    assert read(listing()) == kept
    assert read(listing(".")) == [("./" + path, content) for path, content in kept]


def test_without_the_option_they_are_followed(upload):
    found = list_images(SourceOptions(("up",)))
    assert {"up/c.jpg", "up/d/s.jpg", "up/e.jpg", "up/f/1.jpg", "up/a/2.jpg"} <= {ref.path for ref in found}
    assert "link" not in found.skipped


def test_what_the_user_names_may_be_a_link(upload):
    (upload.parent / "link").symlink_to("up")
    assert [path for path, _ in read(listing("link"))] == ["link/a/1.jpg", "link/b.jpg", "link/z/é.jpg"]
    assert read(listing("link/c.jpg")) == [("link/c.jpg", b"secret")]
    assert read(listing("link/d")) == [("link/d/s.jpg", b"secret")]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("up/*", ["up/a/1.jpg", "up/b.jpg", "up/z/é.jpg"]),
        ("up/*.jpg", ["up/b.jpg"]),
        ("up/*/1.jpg", ["up/a/1.jpg"]),
        ("u*/**/*.jpg", ["up/a/1.jpg", "up/b.jpg", "up/z/é.jpg"]),
        ("up/d/*.jpg", ["up/d/s.jpg"]),  # the link comes before the first wildcard
    ],
)
def test_globs(upload, pattern, expected):
    assert [path for path, _ in read(listing(pattern))] == expected
    with pytest.raises(SourceNotFoundError, match="matches nothing"):
        listing("up/[d]/*.jpg")


def test_lists_are_followed_and_directories_in_them_are_not(upload):
    lines = io.BytesIO(b"up/c.jpg\nup\n")
    refs = list_images(SourceOptions(("-",), no_follow=True), stdin=lines)
    assert read(refs) == [("up/c.jpg", b"secret"), ("up/a/1.jpg", b"1"), ("up/b.jpg", b"b"), ("up/z/é.jpg", b"z")]


def swap(path, target):
    os.rename(path, f"{path}.old")
    os.symlink(target, path)


def test_a_file_that_becomes_a_link_after_the_listing(upload):
    refs = list(listing("up"))
    swap("up/b.jpg", "../secret/s.jpg")
    assert read(refs)[1] == ("up/b.jpg", "not-a-file: it has become a symbolic link, which is not followed")
    assert refs[1].location.state() is not None


def test_a_directory_that_becomes_a_link_after_the_listing(upload):
    (upload.parent / "secret/1.jpg").write_bytes(b"secret")
    refs = list(listing("up"))
    swap("up/a", "../secret")
    assert read(refs)[0] == ("up/a/1.jpg", "missing: no such file")


def test_a_directory_that_becomes_a_link_before_it_is_entered(upload, monkeypatch):
    scandir, seen = disk.system.scandir, []

    def late(path):
        seen.append(path)
        if len(seen) == 2:
            swap("up/z", "../secret")
        return scandir(path)

    monkeypatch.setattr(disk.system, "scandir", late)
    assert read(listing("up"))[2:] == [("up/z", "unreadable")]


def test_archives(upload):
    for name in ("up/x.zip", "secret/y.zip"):
        with zipfile.ZipFile(name, "w") as file:
            file.writestr("i.jpg", name)
    os.symlink("../secret/y.zip", "up/y.zip")
    found = listing("up", archives=True)
    assert ("up/x.zip::i.jpg", b"up/x.zip") in read(found)
    assert found.skipped["link"] == 8
    whole = list_images(found.options, archives=WholeArchives)
    assert [ref.location.trusted for ref in whole if ref.path == "up/x.zip"] == [len("up/")]
    refs = iter(listing("up", archives=True))
    assert [next(refs).path for _ in range(2)] == ["up/a/1.jpg", "up/b.jpg"]
    swap("up/x.zip", "../secret/y.zip")
    assert read(refs)[0] == ("up/x.zip", "not-a-file")


def test_class_folders(upload):
    for source in ("up", "up/", str(upload)):
        found = read_labelled(source, no_follow=True)
        assert found.labels == ("a", "z")
        assert found.skipped["link"] == 7
    (upload.parent / "secret/1.jpg").write_bytes(b"secret")
    swap("up/a", "../secret")
    assert read(sample.ref for sample in found.samples)[0][1] == "missing: no such file"
    assert read_labelled("up").labels == ("a", "a.old", "d", "f", "h", "z")


def test_it_is_part_of_the_settings_only_where_it_is_given():
    assert "no_follow" not in SourceOptions(("a",)).as_dict()
    assert SourceOptions(("a",), no_follow=True).as_dict()["no_follow"] is True
