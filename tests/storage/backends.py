"""A local directory, S3, and any other store, seen past the program: every test of a backend runs on each of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.objectstore import ObjectStore


class Backend(ABC):
    """A place with files or objects.

    Attributes:
        target: its path or URL, with a slash at the end.
    """

    target: str

    @abstractmethod
    def get(self, name: str) -> bytes:
        """Reads a file."""

    @abstractmethod
    def put(self, name: str, data: bytes) -> None:
        """Writes a file, as another program would."""

    @abstractmethod
    def names(self) -> list[str]:
        """Names of all files, sorted."""


class Disk(Backend):
    def __init__(self, root: Path, target: str | None = None) -> None:
        self.root = root
        self.target = f"{root}/" if target is None else target
        root.mkdir(parents=True, exist_ok=True)

    def get(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def put(self, name: str, data: bytes) -> None:
        (self.root / name).write_bytes(data)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.root.iterdir())


class Bucket(Backend):
    def __init__(self, store: ObjectStore) -> None:
        self.store, self.prefix = store, f"{store.prefix()}/"
        self.target = store.url(self.prefix)

    def get(self, name: str) -> bytes:
        return self.store.get(self.prefix + name)

    def put(self, name: str, data: bytes) -> None:
        self.store.put(self.prefix + name, data)

    def names(self) -> list[str]:
        return [key.removeprefix(self.prefix) for key in self.store.keys(self.prefix)]


def make_backend(kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Sets up a backend: `disk`, `s3`, or `other`, which is a file system of fsspec with nothing of S3."""
    if kind == "disk":
        return Disk(tmp_path / "disk")
    if kind == "s3":
        return Bucket(request.getfixturevalue("s3"))
    store_on_disk(tmp_path / "gs", monkeypatch)
    return Disk(tmp_path / "gs/bucket/some", "gs://bucket/some/")


def store_on_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a file system of fsspec's that has nothing of S3 behind every URL."""
    dirfs = pytest.importorskip("fsspec.implementations.dirfs")
    local = pytest.importorskip("fsspec.implementations.local")
    store = dirfs.DirFileSystem(str(root), local.LocalFileSystem(auto_mkdir=True))
    monkeypatch.setattr("xcli.storage.urls._file_system", lambda kind: store)
