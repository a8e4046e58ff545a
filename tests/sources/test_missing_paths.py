"""Lists and manifests whose paths do not exist: what is wrong with them is named, and no row changes."""

from __future__ import annotations

import io
import unicodedata
from typing import TYPE_CHECKING

import pytest

from xcli.core.errors import SourceError
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xcli.core.records import ImageRef

NFD = unicodedata.normalize("NFD", "photos/café.jpg")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr("xcli.sources.missing_paths.log.warning", lambda text, *values: texts.append(text % values))
    return texts


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b c.jpg", "café.jpg"):
        (tmp_path / "photos" / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def from_list(text: bytes) -> list[ImageRef]:
    return list(list_images(SourceOptions(("-",)), stdin=io.BytesIO(text)))


def from_manifest(text: bytes, name: str = "m.csv", **options: str) -> list[ImageRef]:
    with open(name, "wb") as file:
        file.write(text)
    return list(list_images(SourceOptions(manifest=name, **options)))  # type: ignore[arg-type]


CAUSES = {
    "photos/a.jpg\r": "carriage return",
    "photos/a.jpg  ": "blanks around them",
    "\tphotos/a.jpg": "blanks around them",
    '"photos/a.jpg"': "in quotes",
    "'photos/b c.jpg'": "in quotes",
    r"photos\a.jpg": "backslashes, as on Windows",
    "photos/b%20c.jpg": "percent-encoded",
    "photos/A.JPG": "other upper and lower case",
    NFD: "another normal form",
    r"photos/caf\xc3\xa9.jpg": "escaped as in the path column",
    "/mnt/nas/photos/a.jpg": "they begin with '/mnt/nas/', and are found without that",
    "photos/cafÃ©.jpg": "opened as Windows-1252",
    "~/a.jpg": "replaced only by a shell",
}


@pytest.mark.parametrize("path", CAUSES, ids=ascii)
def test_the_cause_is_named_in_lists_and_manifests(
    here: Path, said: list[str], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(here / "photos"))
    refs = from_list(f"{path}\n{path}".encode())
    assert [str(ref.error).partition(":")[0] for ref in refs] == ["missing", "missing"]
    refs = from_manifest(b"path\n" + b'"' + path.replace('"', '""').encode() + b'"\n')
    assert [ref.key for ref in refs] == [path.encode()]
    assert len(said) == 2
    assert said[0].startswith("2 of the first 2 paths of the list on standard input do not exist: ")
    assert said[1].startswith("1 of the first 1 paths of the manifest 'm.csv' do not exist: ")
    assert all(CAUSES[path] in text for text in said)


def test_another_separator(here: Path, said: list[str]) -> None:
    from_list(b"photos/a.jpg\0photos/b c.jpg\0")
    list(list_images(SourceOptions(("-",), null=True), stdin=io.BytesIO(b"photos/a.jpg\nphotos/b c.jpg\n")))
    assert ["add -0" in said[0], "leave -0 out" in said[1], len(said)] == [True, True, 2]


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("list.txt", b"photos/a.jpg\nphotos/b c.jpg\n", "'list.txt' lists images, and is none itself: - < list.txt"),
        ("list", b"photos/a, b.JPG\r\n", "- < list takes them"),
        ("list.lst", b"photos/a.jpg\0photos/b c.jpg\0", "- -0 < list.lst takes them"),
        ("t.csv", b"path,label\nphotos/a.jpg,x\n", "'t.csv' is a table, not an image: --manifest t.csv"),
        ("t.tsv", b'id\tfile\n7\t"photos/a.jpg"\n', "--manifest t.tsv"),
        ("t.parquet", b"PAR1\x15\0", "--manifest t.parquet"),
        ("notes.txt", b"photos of cats\n", None),
        ("empty.csv", b"", None),
        ("a.jpg", b"photos/a.jpg\n", None),
    ],
)
def test_a_list_or_table_that_is_named_as_a_source(
    here: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, hint: str | None
) -> None:
    (here / name).write_bytes(content)
    said: list[str] = []
    monkeypatch.setattr("xcli.sources.listing.log.warning", lambda text, *values: said.append(text % values))
    (ref,) = list_images(SourceOptions((name,)))
    assert (ref.path, ref.error) == (name, None)
    assert [hint is not None and hint in text for text in said] == [True] * (hint is not None)


def test_a_source_without_images_among_others_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "empty").mkdir()
    said: list[str] = []
    monkeypatch.setattr("xcli.sources.listing.log.warning", lambda text, *values: said.append(text % values))
    assert len(list(list_images(SourceOptions(("photos", "empty"))))) == 3
    list(list_images(SourceOptions(("empty",))))
    assert said == ["'empty' holds no images"]


def test_windows_1252_and_file_urls(here: Path, said: list[str]) -> None:
    from_list("photos/café.jpg".encode("cp1252"))
    from_list(b"file://" + bytes(here) + b"/photos/b%20c.jpg\nFILE://localhost" + bytes(here) + b"/photos/a.jpg\n")
    assert ["WINDOWS-1252" in said[0], "file:// URLs" in said[1], len(said)] == [True, True, 2]


def test_lists_whose_paths_exist_say_nothing(here: Path, said: list[str]) -> None:
    odd = b" a \r"
    (here / odd.decode()).touch()
    assert [ref.error for ref in from_list(b"photos/a.jpg\n" + odd + b"\nphotos")] == [None] * 5
    from_list(b"photos/a.jpg\nphotos/a.jpg\nphotos/a.jpg\r\n")  # one of three has another cause
    from_list(b"gone.jpg\n")
    from_list(b"s3://bucket/a.jpg\n")
    assert said == []


def test_when_no_cause_is_found_the_place_is_named(here: Path, said: list[str]) -> None:
    from_list(b"x/1.jpg\nx/2.jpg\nx/3.jpg\n")
    assert said == [
        f"3 of the first 3 paths of the list on standard input do not exist: the first would be '{here}/x/1.jpg'"
    ]


def test_only_the_first_paths_are_looked_at(here: Path, said: list[str]) -> None:
    refs = from_manifest(b"path\n" + b"photos\\a.jpg\n" * 500)
    assert len(refs) == 500
    assert [text[:33] for text in said] == ["100 of the first 100 paths of the"]


@pytest.mark.parametrize("path", ["a.jpg", r".\a.jpg", "a.jpg "])
def test_a_manifest_relative_to_its_folder(here: Path, said: list[str], path: str) -> None:
    text = f"path\n{path}\n".encode()
    (ref,) = from_manifest(text, "photos/m.csv")
    assert "relative to the manifest's folder: add --manifest-base photos" in said[0]
    (ref,) = from_manifest(b"path\na.jpg\n", "photos/m.csv", manifest_base="photos")
    assert (ref.path, ref.location.file, ref.key) == ("photos/a.jpg", "photos/a.jpg", b"a.jpg")
    assert ref.location.state() is not None
    assert len(said) == 1


def test_a_base_leaves_absolute_paths_and_urls_alone_and_may_be_a_url(here: Path) -> None:
    text = f"path\na.jpg\n{here}/photos/a.jpg\ns3://b/c.jpg\n".encode()
    assert [ref.path for ref in from_manifest(text, manifest_base="photos/")] == [
        "photos/a.jpg",
        f"{here}/photos/a.jpg",
        "s3://b/c.jpg",
    ]
    (first, *_) = from_manifest(text, manifest_base="s3://b/photos")
    assert (first.path, first.key, first.location.remote) == ("s3://b/photos/a.jpg", b"a.jpg", True)


@pytest.mark.parametrize(
    "convert",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace(",", ";"),
        lambda text: text.replace(",", "\t"),
        lambda text: "sep=;\r\n" + text.replace(",", ";"),
        lambda text: "\ufeff" + "".join(f'"{line}"\r\n'.replace(",", '";"') for line in text.splitlines()),
        lambda text: "\n\n" + text,
    ],
)
def test_manifests_of_windows_and_spreadsheets_are_read(here: Path, convert: Callable[[str], str]) -> None:
    refs = from_manifest(convert("id,path,note\n1,photos/a.jpg,x\n2,photos/café.jpg,y\n").encode())
    assert [(ref.path, ref.extra) for ref in refs] == [("photos/a.jpg", ("1", "x")), ("photos/café.jpg", ("2", "y"))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path\na.jpg\n".encode("utf-16"), "UTF-16; save it as UTF-8"),
        ("path\na.jpg\n".encode("utf-16-le"), "UTF-16; save it as UTF-8"),
        ("path\na.jpg\n".encode("utf-16-be"), "UTF-16; save it as UTF-8"),
        (b"PK\3\4 and so on", "a spreadsheet or a zip archive"),
        (b'{"path": "a.jpg"}\n', "JSON; convert it"),
    ],
)
def test_manifests_of_other_kinds_are_refused_by_name(here: Path, content: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        from_manifest(content)


def test_a_list_with_a_byte_order_mark_or_in_utf_16(here: Path) -> None:
    assert [ref.error for ref in from_list(b"\xef\xbb\xbfphotos/a.jpg\nphotos/a.jpg\n")] == [None, None]
    (here / "\ufeffx.jpg").touch()
    assert [ref.path for ref in from_list("\ufeffx.jpg\n".encode())] == ["\ufeffx.jpg"]
    for encoding in ("utf-16-le", "utf-16-be"):
        (ref,) = from_list("\ufeffphotos/a.jpg\nphotos/a.jpg\n".encode(encoding))
        assert "it is UTF-16; convert it" in str(ref.error)


@pytest.mark.parametrize(
    ("path", "causes"),
    [
        ("photos\\a.jpg\r", ("carriage return", "backslashes")),
        ('"photos\\b c.jpg"', ("in quotes", "backslashes")),
        ("photos\\A.JPG", ("backslashes", "other upper and lower case")),
        ("C:\\Users\\me\\photos\\a.jpg", ("begin with 'C:/Users/me/'", "backslashes")),
        ("D:\\photos\\a.jpg\r", ("begin with 'D:/'", "backslashes", "carriage returns")),
    ],
)
def test_two_causes_at_once(here: Path, said: list[str], path: str, causes: tuple[str, ...]) -> None:
    from_list(f"{path}\n{path}\n".encode())
    assert all(cause in said[0] for cause in causes), said
