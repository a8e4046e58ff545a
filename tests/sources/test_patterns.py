"""Globs and the filter, without a file system."""

from __future__ import annotations

import pytest

from xcli.sources.patterns import PathFilter, PathPattern, has_magic, path_parts


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.jpg", "a.jpg", True),
        ("*.jpg", "a.JPG", False),
        ("*.jpg", "b/a.jpg", False),
        ("?.jpg", "🦊.jpg", True),
        ("?.jpg", "\udcff.jpg", True),
        ("[ab].jpg", "b.jpg", True),
        ("[!ab].jpg", "b.jpg", False),
        ("[[]1].jpg", "[1].jpg", True),
        ("*", "new\nline", True),
        ("a/*/c", "a/b/c", True),
        ("a/*/c", "a/b/b/c", False),
        ("a/**/c", "a/c", True),
        ("a/**/c", "a/b/b/c", True),
        ("a/**/c", "a/b/b/d", False),
        ("**/c", "c", True),
        ("**/**/c", "a/b/c", True),
        ("a/**", "a", True),
        ("a/**", "a/b/c", True),
        ("a/**", "b", False),
        ("**/b/**/d", "a/b/b/c/d", True),
        ("**/b/**/d", "a/c/d", False),
        ("a**", "ab", True),
        ("a**", "a/b", False),
    ],
)
def test_pattern(pattern, path, expected):
    assert PathPattern(pattern.split("/"), hidden=True).matches(path.split("/")) is expected


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*", ".a", False),
        ("?a", ".a", False),
        ("[.]a", ".a", False),
        (".*", ".a", True),
        (".a", ".a", True),
        ("**/a", ".b/a", False),
        ("**/.b/a", "c/.b/a", True),
    ],
)
def test_hidden_names_must_be_asked_for_by_a_dot(pattern, path, expected):
    assert PathPattern(pattern.split("/"), hidden=False).matches(path.split("/")) is expected


def test_following_a_pattern_says_where_it_can_lead():
    pattern = PathPattern(["*", "raw", "**", "x.jpg"], hidden=False)
    start = pattern.start()
    assert pattern.only_name(start) is None
    assert not pattern.unbounded(start)
    album = pattern.step(start, "album")
    assert pattern.only_name(album) == "raw"
    assert pattern.step(album, "other") == ()
    raw = pattern.step(album, "raw")
    assert pattern.unbounded(raw)
    assert pattern.only_name(raw) is None
    found = pattern.step(raw, "x.jpg")
    assert pattern.matched(found)
    assert pattern.can_continue(found)  # x.jpg may be a directory with another x.jpg in it


def test_has_magic():
    assert [has_magic(text) for text in ("a.jpg", "a*", "a?", "[a", "a]", "\\")] == [
        False,
        True,
        True,
        True,
        False,
        False,
    ]


def test_path_parts_leaves_out_what_names_nothing():
    assert path_parts("/./a//b/./c/") == ["a", "b", "c"]


def refused(key, include=(), exclude=(), looks_like_image=True):
    return PathFilter(include, exclude).refuses_file(key, looks_like_image=looks_like_image)


@pytest.mark.parametrize(
    ("include", "key", "looks_like_image", "reason"),
    [
        ((), b"a.jpg", True, None),
        ((), b"a.txt", False, "not an image"),
        (("*.png",), b"x/a.png", True, None),
        (("*.png",), b"x/a.jpg", True, "not included"),
        (("*.png", "*.jpg"), b"x/a.jpg", True, None),
        (("x/*",), b"x/a.jpg", True, None),
        (("x/*",), b"x/y/a.jpg", True, "not included"),
        (("x/*",), b"y/x/a.jpg", True, "not included"),
        (("/x/*",), b"x/a.jpg", True, None),
        (("/a.jpg",), b"x/a.jpg", True, "not included"),
        (("x/*",), b"./x/a.jpg", True, None),
        (("**/x/*",), b"/data/x/a.jpg", True, None),
        (("*",), b".hidden.jpg", True, None),
        # Only a pattern that names an extension, or a whole name, makes images of files with other extensions.
        (("*.img",), b"x/a.img", False, None),
        (("*.im?",), b"x/a.img", False, None),
        (("scan",), b"x/scan", False, None),
        (("x/*",), b"x/notes.txt", False, "not an image"),
        (("x/**",), b"x/notes.txt", False, "not an image"),
        (("scan*",), b"scan.txt", False, "not an image"),
        (("*.*",), b"scan.txt", False, "not an image"),
    ],
)
def test_include(include, key, looks_like_image, reason):
    assert refused(key, include, (), looks_like_image) == reason


@pytest.mark.parametrize(
    ("exclude", "key", "reason"),
    [
        ("*.png", b"x/a.png", "excluded"),
        ("*.png", b"x/a.jpg", None),
        ("x/*.png", b"x/a.png", "excluded"),
        ("x/*.png", b"y/a.png", None),
        ("thumbs/", b"x/thumbs", None),  # a file of that name
        ("caf\udce9*", b"caf\xe9.jpg", "excluded"),
    ],
)
def test_exclude_file(exclude, key, reason):
    assert refused(key, ("*",), (exclude,)) == reason


def test_exclude_wins_over_include():
    assert refused(b"a.jpg", ("a.jpg",), ("*.jpg",)) == "excluded"


@pytest.mark.parametrize(
    ("exclude", "expected"),
    [
        ("thumbs", True),
        ("thumbs/", True),
        ("x/thumbs", True),
        ("/thumbs", False),
        ("**/thumbs/**", True),
        ("y/*", False),
    ],
)
def test_exclude_directory(exclude, expected):
    assert PathFilter((), (exclude,)).refuses_directory(b"x/thumbs") is expected


def test_a_path_out_of_a_list_is_excluded_by_the_directories_that_lead_to_it():
    path_filter = PathFilter((), ("thumbs",))
    assert path_filter.refuses_listed(b"/data/thumbs/a.jpg", directory=False)
    assert path_filter.refuses_listed(b"/data/thumbs", directory=True)
    assert not path_filter.refuses_listed(b"/data/a.jpg", directory=False)
    assert not PathFilter().refuses_listed(b"/data/thumbs/a.jpg", directory=False)
