"""Whatever files are called and however they lie: each ends as a row, a sample of one class, or a counted skip."""

from __future__ import annotations

import csv
import io
import os
import tempfile
import unicodedata
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from xcli.core.errors import SourceError
from xcli.core.text import escape_path, valid_text
from xcli.sources.labelled import read_labelled
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.sources.system_folders import is_system_folder

bounded = settings(max_examples=80, deadline=None)

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=12)
_LOOK_ALIKE = ("café", "cafe\u0301", "Cat", "cat", "CAT", " a ", "a", "A")
_MARKED = ("a\r", "a\n", '"a"', "a,b", "a;b", "~", "a\\b", "\\x41", "%20", "\ufeffa", "-", "*")
_FOLDERS = ("@eaDir", "#recycle", "CVS", ".hidden", "train", "Valid", "test_1", "runs", "a.tar", "x.zip")
_ODD = st.sampled_from((*_LOOK_ALIKE, *_MARKED, *_FOLDERS))
_BYTES = st.binary(min_size=1, max_size=8).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))
_NAMES = (_TEXT | _ODD).map(str.encode) | _BYTES
_NAMES = _NAMES.filter(lambda name: name not in (b".", b".."))
_FILES = st.tuples(_NAMES, st.sampled_from([b".jpg", b".PNG", b".txt", b""])).map(b"".join)
_FILES = _FILES.filter(lambda name: name not in (b".", b".."))
_PATHS = st.lists(_NAMES, max_size=2).flatmap(lambda above: _FILES.map(lambda name: (*above, name)))
_TREES = st.lists(_PATHS, min_size=1, max_size=8)


def build(top: bytes, paths: list[tuple[bytes, ...]]) -> list[tuple[bytes, ...]]:
    """Makes empty files, except where a name is taken already; returns those made."""
    made = []
    for path in paths:
        try:
            os.makedirs(os.path.join(top, *path[:-1]), exist_ok=True)
            with open(os.path.join(top, *path), "xb"):
                made.append(path)
        except OSError:
            continue
    return made


def skipped_once(paths: list[tuple[bytes, ...]]) -> int:
    """How many files are beyond the one that is counted for each hidden or system folder."""
    closed = [next((at for at, name in enumerate(path[:-1], 1) if _is_closed(name)), None) for path in paths]
    folders = {path[:at] for path, at in zip(paths, closed, strict=True) if at is not None}
    return sum(at is not None for at in closed) - len(folders)


def _is_closed(name: bytes) -> bool:
    return name.startswith(b".") or is_system_folder(name)


@bounded
@given(_TREES)
def test_directories(paths: list[tuple[bytes, ...]]) -> None:
    with tempfile.TemporaryDirectory() as top:
        made = build(os.fsencode(top), paths)
        listing = list_images(SourceOptions((top,)))
        rows = [ref.path for ref in listing]
        assert len(set(rows)) == len(rows)
        assert len(rows) + sum(listing.skipped.values()) + skipped_once(made) == len(made)


@bounded
@given(_TREES)
def test_lists_and_manifests(paths: list[tuple[bytes, ...]]) -> None:
    with tempfile.TemporaryDirectory() as top:
        made = [b"/".join((os.fsencode(top), *path)) for path in build(os.fsencode(top), paths)]
        made = [path for path in made if not path.endswith((b".tar", b".zip"))]  # these are the images within
        refs = list(list_images(SourceOptions(("-",), null=True), stdin=io.BytesIO(b"\0".join(made))))
        assert [(ref.key, ref.error) for ref in refs] == [(path, None) for path in made]
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerows([("n", "path"), *((number, os.fsdecode(path)) for number, path in enumerate(made))])
        manifest = Path(top, "the manifest.csv")
        manifest.write_bytes(os.fsencode(text.getvalue()))
        refs = list(list_images(SourceOptions(manifest=str(manifest))))
        assert [(ref.key, ref.extra) for ref in refs] == [(path, (str(at),)) for at, path in enumerate(made)]
        assert len({ref.path for ref in refs}) == len(made)


@bounded
@given(_TREES)
def test_class_folders(paths: list[tuple[bytes, ...]]) -> None:
    with tempfile.TemporaryDirectory() as top:
        made = build(os.fsencode(top), paths)
        try:
            images = read_labelled(top)
        except SourceError as error:
            refusal: str | None = str(error)
        else:
            refusal = None
        if refusal is not None:
            names = [os.fsdecode(path[0]) for path in made]
            folders = {*map(escape_path, names), *map(repr, names)}
            assert "has no class folders" in refusal or any(folder in refusal for folder in folders)
            return
        assert len(images.samples) + sum(images.skipped.values()) + skipped_once(made) == len(made)
        if images.splits:
            return
        for sample in images.samples:
            folder = sample.ref.key.split(b"/")[0]
            assert sample.label == unicodedata.normalize("NFC", valid_text(os.fsdecode(folder))).strip()
        assert len({label.casefold() for label in images.labels if len(label) > 1}) == sum(
            len(label) > 1 for label in images.labels
        )
