"""Places for parts: a directory and a prefix of an object store do the same."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.storage.backends import make_backend
from xcli.core.errors import OutputError, UsageError
from xcli.storage.directories import Folder, LocalFolder, RemoteFolder, open_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.objectstore import ObjectStore


@pytest.fixture(params=["disk", "s3", "other"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    folder = open_folder(make_backend(request.param, request, tmp_path, monkeypatch).target + "parts/")
    folder.make()
    yield folder
    folder.close()
    assert list((tmp_path / "temporary").iterdir()) == []


def fill(folder: Folder, name: str, content: bytes, *, keep: bool = False) -> None:
    scratch = folder.scratch(name)
    with open(scratch, "wb") as file:
        file.write(content)
    folder.publish(scratch, name, keep=keep)
    assert not os.path.exists(scratch)


def content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def test_nothing_shows_before_it_is_published(folder: Folder) -> None:
    scratch = folder.scratch("a")
    with open(scratch, "wb") as file:
        file.write(b"half")
    assert "a" not in folder.names()
    assert folder.read("a") is None
    folder.publish(scratch, "a")
    assert folder.names() == ["a"]
    assert folder.read("a") == content(folder.local("a")) == b"half"


@pytest.mark.parametrize("keep", [False, True])
def test_the_newer_of_two_counts(folder: Folder, keep: bool) -> None:
    fill(folder, "a", b"older", keep=keep)
    assert content(folder.local("a")) == b"older"
    fill(folder, "a", b"newer", keep=keep)
    assert folder.read("a") == content(folder.local("a")) == b"newer"


def test_small_files(folder: Folder) -> None:
    folder.write("b.json", b"{}")
    folder.write("a.json", b"")
    folder.write("b.json", b"[]")
    assert folder.names() == ["a.json", "b.json"]
    assert [folder.read(name) for name in ("a.json", "b.json", "c.json")] == [b"", b"[]", None]


def test_the_end_of_a_file(folder: Folder) -> None:
    fill(folder, "a", b"0123456789")
    assert (folder.tail("a", 3), folder.tail("a", 10), folder.tail("a", 100)) == (b"789", b"0123456789", b"0123456789")
    with pytest.raises(FileNotFoundError):
        folder.tail("b", 3)


def test_what_is_removed_is_gone(folder: Folder) -> None:
    for name in "abc":
        fill(folder, name, b"x", keep=True)
    folder.unlink("a", "nothing", "c")
    assert folder.names() == ["b"]
    with pytest.raises(FileNotFoundError):
        content(folder.local("a"))
    folder.remove()
    assert folder.names() == ["b"]
    folder.unlink("b")
    folder.remove()
    assert folder.make(), "it was not there, or was empty"


def test_names_that_look_like_patterns(folder: Folder) -> None:
    for name in ("[a]*", "b c+%20"):
        fill(folder, name, name.encode())
    assert folder.names() == ["[a]*", "b c+%20"]
    assert folder.read("[a]*") == content(folder.local("[a]*")) == b"[a]*"
    folder.unlink("[a]*")
    assert folder.names() == ["b c+%20"]


def test_every_name_gets_its_answer(folder: Folder) -> None:
    names = [str(number) for number in range(40)]
    assert list(folder.each(lambda name: name * 2, names)) == [name * 2 for name in names]


def test_a_second_look_from_elsewhere(folder: Folder) -> None:
    other = open_folder(folder.name)
    assert other.names() == []
    fill(folder, "a", b"x")
    assert other.names() == ["a"]
    assert not other.make()
    assert content(other.local("a")) == b"x"
    other.unlink("a")
    assert folder.read("a") is None
    other.close()


def test_a_lock_keeps_others_out_of_a_directory(tmp_path: Path) -> None:
    one, other = LocalFolder(f"{tmp_path}/parts"), LocalFolder(f"{tmp_path}/parts")
    one.lock("lock", "out.csv")
    with pytest.raises(OutputError, match=rf"out\.csv is being written by process {os.getpid()} on "):
        other.lock("lock", "out.csv")
    one.close()
    other.lock("lock", "out.csv")
    other.close()


def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "parts").symlink_to(tmp_path / "missing")
    with pytest.raises(OutputError, match=r"cannot write .*/parts: No such file"):
        LocalFolder(f"{tmp_path}/parts").lock("lock", "out.csv")


def test_an_object_store_says_that_it_has_no_lock(s3: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DETAIL", "xcli")
    folder = open_folder(s3.url(s3.prefix()))
    folder.lock("lock", "out.csv")
    assert "has no locks; make sure that one process writes it" in caplog.text
    assert folder.names() == []


def test_uploads_that_were_not_finished_are_dropped(s3: ObjectStore) -> None:
    prefix = s3.prefix()
    for key in (f"{prefix}/part", f"{prefix}-other/part"):
        s3.client.create_multipart_upload(Bucket=s3.bucket, Key=key)
    open_folder(s3.url(prefix)).lock("lock", "out.csv")
    assert s3.uploads() == [f"{prefix}-other/part"]
    open_folder(s3.url(f"{prefix}-other/")).lock("lock", "out.csv")
    assert s3.uploads() == []


def test_a_listing_of_several_pages(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = s3.prefix()
    for number in range(7):
        s3.put(f"{prefix}/{number}", b"")
    s3.put(f"{prefix}/deeper/1", b"")
    s3.put(f"{prefix}/", b"")
    monkeypatch.setattr("xcli.storage.object_store.s3.PAGE", 3)
    folder = open_folder(s3.url(prefix))
    assert folder.names() == [*"0123456", "deeper"]
    folder.unlink(*"012345")
    assert folder.names() == ["6", "deeper"]


def test_a_bucket_that_is_not_there(s3: ObjectStore) -> None:
    folder = open_folder("s3://no-such-bucket/parts")
    for call in (folder.names, folder.make, lambda: folder.write("a", b""), lambda: fill(folder, "a", b"x")):
        with pytest.raises(OutputError, match=r"cannot \w+ s3://no-such-bucket/parts(/a)?: there is no such bucket$"):
            call()
    folder.close()


def test_a_store_that_refuses(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = RemoteFolder(s3.url(s3.prefix()))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("Access Denied")

    for name in ("call_s3", "put_file", "pipe_file", "cat_file", "get_file", "rm_file"):
        monkeypatch.setattr(folder._store.fs, name, refuse)
    (tmp_path / "a").write_bytes(b"")
    calls = [
        folder.names,
        lambda: folder.read("a"),
        lambda: folder.local("a"),
        lambda: folder.write("a", b""),
        lambda: folder.publish(str(tmp_path / "a"), "a"),
        lambda: folder.unlink("a"),
    ]
    for call in calls:
        with pytest.raises(OutputError, match=r"^cannot \w+ s3://.*: access is denied \(Access Denied\): check"):
            call()
    folder.lock("lock", "out.csv")  # tidying up is no reason to stop
    folder.remove()
    folder.close()


def test_one_of_many_that_cannot_be_removed(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RemoteFolder(s3.url(s3.prefix()))
    answer = {"Errors": [{"Key": "b", "Code": "AccessDenied", "Message": "Access Denied"}]}
    monkeypatch.setattr(folder._store.fs, "call_s3", lambda *_, **__: answer)
    with pytest.raises(OutputError, match=r"cannot remove s3://.*: access is denied \(AccessDenied: Access Denied\)"):
        folder.unlink("a", "b")


def test_what_passes_is_tried_again(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RemoteFolder(s3.url(s3.prefix()))
    put_file, failures = folder._store.fs.put_file, [TimeoutError("slow"), ConnectionError("broken")]

    def put(*args: object, **options: object) -> None:
        if failures:
            raise failures.pop()
        put_file(*args, **options)

    monkeypatch.setattr(folder._store.fs, "put_file", put)
    monkeypatch.setattr("xcli.storage.object_store.errors._FIRST_WAIT", 0)
    fill(folder, "a", b"x")
    assert failures == []
    assert folder.read("a") == b"x"
    folder.close()


def test_places_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="web servers take no files"):
        open_folder("https://example.org/out/")

    def refuse(*_: object, **__: object) -> None:
        raise ImportError("fsspec")

    monkeypatch.setattr("xcli.storage.urls._file_system", refuse)
    with pytest.raises(UsageError, match="pip install s3fs gcsfs"):
        open_folder("s3://bucket/out/")


def test_a_bug_is_not_taken_for_a_refusal(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RemoteFolder(s3.url(s3.prefix()))

    def stumble(*_: object, **__: object) -> None:
        raise AttributeError("a typing error")

    monkeypatch.setattr(folder._store.fs, "call_s3", stumble)
    with pytest.raises(AttributeError):
        folder.names()


def test_many_write_one_small_file_at_once(tmp_path: Path) -> None:
    contents = [bytes([65 + number]) * 100_000 for number in range(8)]

    def write(content: bytes) -> None:
        for _ in range(20):
            LocalFolder(str(tmp_path)).write("_run.json", content)
            assert LocalFolder(str(tmp_path)).read("_run.json") in contents

    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(write, contents))
    assert os.listdir(tmp_path) == ["_run.json"]


def test_a_directory_that_cannot_be_read(tmp_path: Path) -> None:
    folder = LocalFolder(str(tmp_path))
    (tmp_path / "run.json").mkdir()
    with pytest.raises(OutputError, match=r"cannot read .*run\.json: Is a directory"):
        folder.read("run.json")
    with pytest.raises(OutputError, match=r"cannot write .*missing: No such file"):
        LocalFolder(f"{tmp_path}/missing").names()
