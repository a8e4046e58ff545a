"""Objects that appear whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from typing import TYPE_CHECKING, Any

import pytest

from xcli.core.errors import OutputError, UsageError
from xcli.storage.atomic import ObjectFile, commit, open_output
from xcli.storage.object_store import open_writable_store
from xcli.storage.streams import WritableFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.objectstore import ObjectStore


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory for temporary files, where nothing may be left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def key(s3: ObjectStore) -> str:
    return s3.prefix() + "/out.csv"


def opened(url: str, data: bytes = b"mine", overwrite: bool = False) -> WritableFile:
    file = open_output(url, overwrite)
    file.stream.write(data)
    return file


def patch_put(monkeypatch: pytest.MonkeyPatch, act: Callable[[Callable[[], None], dict[str, Any]], None]) -> None:
    """Puts something in the way of uploads: `act` is called with the upload, and the options that it has."""
    fs = open_writable_store("s3://any").fs
    put_file = fs.put_file

    def put(local: str, path: str, *, mode: str = "overwrite") -> None:
        act(lambda: put_file(local, path, mode=mode), {"mode": mode})

    monkeypatch.setattr(fs, "put_file", put)
    monkeypatch.setattr("xcli.storage.object_store.errors._FIRST_WAIT", 0)


@pytest.mark.parametrize("theirs", [None, b"other", b"mine, but longer"])
def test_an_upload_whose_answer_got_lost(
    s3: ObjectStore, key: str, monkeypatch: pytest.MonkeyPatch, theirs: bytes | None
) -> None:
    calls = []

    def lose(upload: Callable[[], None], _: dict[str, Any]) -> None:
        calls.append(1)
        if len(calls) > 1:
            upload()
        elif theirs is None:
            upload()
            raise ConnectionError("broken")
        else:
            s3.put(key, theirs)
            raise ConnectionError("broken")

    file = opened(s3.url(key))
    patch_put(monkeypatch, lose)
    if theirs is None:
        commit([file])
    else:
        with pytest.raises(OutputError, match="exists"):
            commit([file])
    file.discard()
    assert len(calls) == 2
    assert s3.get(key) == (theirs or b"mine")


def test_a_store_that_cannot_refuse_to_replace(s3: ObjectStore, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []

    def refuse(upload: Callable[[], None], options: dict[str, Any]) -> None:
        modes.append(options["mode"])
        if options["mode"] == "create":
            raise OSError("A header you provided implies functionality that is not implemented: NotImplemented")
        upload()

    file = opened(s3.url(key))
    patch_put(monkeypatch, refuse)
    commit([file])
    assert modes == ["create", "overwrite"]
    assert s3.get(key) == b"mine"


def test_what_a_killed_upload_has_left_goes(s3: ObjectStore, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (key, f"{key}.meta.json"):
        s3.client.create_multipart_upload(Bucket=s3.bucket, Key=name)
    commit([opened(s3.url(key))])
    assert s3.uploads() == [key, f"{key}.meta.json"], "a small object comes in one piece"
    monkeypatch.setattr("xcli.storage.atomic._MULTIPART_BYTES", 4)
    commit([opened(s3.url(key), overwrite=True)])
    assert s3.uploads() == [f"{key}.meta.json"]
    open_writable_store(s3.url(f"{key}.meta.json")).abort_uploads("")


def test_a_bucket_that_is_not_there(s3: ObjectStore) -> None:
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"s3://no-such-bucket/out\.csv: there is no such bucket$"):
            open_output("s3://no-such-bucket/out.csv", overwrite)


def test_a_full_disk_is_named(s3: ObjectStore, key: str) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = ObjectFile(s3.url(key))
    file.stream.close()
    file.stream._stream = Full()
    with pytest.raises(OutputError, match=r"s3://.*out\.csv \(in .*/xception-.* until it is whole\): No space left"):
        file.stream.write(b"x")
    file.discard()


def test_web_servers_take_nothing() -> None:
    with pytest.raises(UsageError, match=r"'https://example\.org/out\.csv' cannot be written: web servers take no"):
        open_output("https://example.org/out.csv", overwrite=True)
