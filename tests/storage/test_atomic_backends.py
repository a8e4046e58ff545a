"""What every kind of file that appears whole must do, on a disk and in every store."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.storage.backends import Backend, make_backend
from xcli.core.errors import OutputError
from xcli.storage.atomic import commit, open_output

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from xcli.storage.streams import WritableFile


@pytest.fixture(params=["disk", "s3", "other"])
def backend(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    yield make_backend(request.param, request, tmp_path, monkeypatch)
    assert list((tmp_path / "temporary").iterdir()) == []


def opened(backend: Backend, name: str = "out.csv", data: bytes = b"mine", overwrite: bool = False) -> WritableFile:
    file = open_output(backend.target + name, overwrite)
    file.stream.write(data)
    return file


def shown(backend: Backend) -> list[str]:
    """The names without those of private directories."""
    return [name for name in backend.names() if not name.endswith(".partial")]


def test_nothing_shows_before_the_end(backend: Backend) -> None:
    file = opened(backend)
    file.prepare()
    assert shown(backend) == []
    file.publish()
    assert backend.names() == ["out.csv"]
    assert backend.get("out.csv") == b"mine"


def test_discard_leaves_nothing(backend: Backend) -> None:
    file = opened(backend, data=b"x" * 100_000)
    file.discard()
    file.discard()
    assert backend.names() == []


def test_what_exists_needs_overwrite(backend: Backend) -> None:
    backend.put("out.csv", b"old")
    with pytest.raises(OutputError, match=r"out\.csv exists; pass --overwrite to replace it"):
        opened(backend)
    file = opened(backend, data=b"new", overwrite=True)
    assert backend.get("out.csv") == b"old"
    commit([file])
    assert backend.get("out.csv") == b"new"
    assert backend.names() == ["out.csv"]


def race(backend: Backend, name: str, file: WritableFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets another process be first, after the last check."""
    check, calls = file.check, []

    def check_then_lose_the_race() -> None:
        check()
        if not calls:
            backend.put(name, b"theirs")
        calls.append(1)

    monkeypatch.setattr(file, "check", check_then_lose_the_race)


@pytest.mark.parametrize("backend", ["disk", "s3"], indirect=True)
def test_what_appears_meanwhile_is_not_replaced(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    file = opened(backend)
    race(backend, "out.csv", file, monkeypatch)
    with pytest.raises(OutputError, match="exists; pass --overwrite"):
        commit([file])
    file.discard()
    assert backend.get("out.csv") == b"theirs"
    assert backend.names() == ["out.csv"]


@pytest.mark.parametrize("backend", ["disk", "s3"], indirect=True)
def test_files_that_belong_together_appear_in_order_or_not_at_all(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [opened(backend, name) for name in ("1", "2")]
    race(backend, "2", files[1], monkeypatch)
    with pytest.raises(OutputError, match=r"2 exists"):
        commit(files)
    for file in files:
        file.discard()
    assert backend.names() == ["2"]
    assert backend.get("2") == b"theirs"
    commit([opened(backend, name) for name in ("3", "4")])
    assert backend.names() == ["2", "3", "4"]


def test_what_was_replaced_is_not_taken_away(backend: Backend) -> None:
    backend.put("old", b"old")
    files = [opened(backend, "old", b"new", overwrite=True), opened(backend, "new")]
    commit(files)
    for file in files:
        file.withdraw()
    assert backend.names() == ["old"]
    assert backend.get("old") == b"new"
