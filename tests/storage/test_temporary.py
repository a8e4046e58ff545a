"""Directories that go with their process, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from xcli.core.errors import OutputError
from xcli.storage.temporary import TemporaryDirectory


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def age(path: str | Path) -> None:
    os.utime(path, (1, 1))


def test_it_goes_when_closed_or_forgotten(parent: Path) -> None:
    one, other = TemporaryDirectory("out"), TemporaryDirectory("out")
    Path(one.path, "file").write_text("x")
    one.close()
    one.close()
    assert os.listdir(parent) == [os.path.basename(other.path)]
    del other
    assert os.listdir(parent) == []


def test_what_a_killed_process_left_goes_with_the_next(parent: Path) -> None:
    code = (
        "import os; from xcli.storage.temporary import TemporaryDirectory; "
        "s = TemporaryDirectory('out'); open(s.path + '/file', 'w'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "TMPDIR": str(parent)})
    [left] = parent.iterdir()
    one = TemporaryDirectory("out")
    assert left.exists(), "it may be one that is just being made"
    age(left)
    (parent / "xception-else").mkdir()
    age(parent / "xception-else")
    age(one.path)
    other = TemporaryDirectory("out")
    assert not left.exists()
    assert {path.name for path in parent.iterdir()} == {
        os.path.basename(one.path),
        os.path.basename(other.path),
        "xception-else",
    }


def test_links_are_not_followed(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    precious = tmp_path_factory.mktemp("precious")
    (precious / "file").write_text("x")
    (parent / "xception-scratch-link").symlink_to(precious)
    os.utime(parent / "xception-scratch-link", (1, 1), follow_symlinks=False)
    TemporaryDirectory("out").close()
    assert (precious / "file").exists()


def test_nowhere_to_put_it(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", f"{parent}/missing")
    with pytest.raises(
        OutputError, match=r"cannot write a temporary directory in .*/missing for s3://b/out: No such file"
    ):
        TemporaryDirectory("s3://b/out")
