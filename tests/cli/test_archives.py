"""Archives as sources of a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.archivefiles import make
from tests.cli.conftest import Invoke, save_photos

OPTIONS = ("--weights", "none", "--image-size", "71", "--precision", "float32", "--format", "csv")


def test_rows_of_archives_are_those_of_the_directory(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = save_photos(tmp_path / "photos", ["a.jpg", "b.jpg", "c.png"])
    damaged = tmp_path / "photos" / "z.jpg"
    damaged.write_bytes(b"damaged")
    names = [
        make(kind, [(photo.name, photo.read_bytes()) for photo in [*photos, damaged]])
        for kind in ("tar", "tar.gz", "tar.zst", "zip")
    ]
    result = invoke("features", "photos", *OPTIONS)
    assert result.code == 4
    head, *expected = result.text.splitlines()
    assert len(expected) == 4

    result = invoke("features", *names, *OPTIONS)
    assert result.code == 4
    first, *rows = result.text.splitlines()
    assert first == head
    assert rows == [row.replace("photos/", f"{name}::") for name in names for row in expected]

    (tmp_path / "d").mkdir()
    (tmp_path / "x.zip").rename(tmp_path / "d" / "x.zip")
    result = invoke("features", "d", *OPTIONS)
    assert (result.code, result.text.splitlines()) == (0, [head])
    assert "no images found (skipped: 1 not an image)" in result.err
    _, *rows = invoke("features", "d", "--archives", *OPTIONS).text.splitlines()
    assert rows == [row.replace("photos/", "d/x.zip::") for row in expected]
