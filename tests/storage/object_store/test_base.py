"""What the client must do for every store that can be written to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.storage.backends import Backend, make_backend
from xcli.core.errors import ImageError, UsageError
from xcli.storage.object_store import open_store, open_writable_store
from xcli.storage.object_store.errors import StoreError
from xcli.storage.object_store.state import ByteRange

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["s3", "other"])
def backend(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backend:
    return make_backend(request.param, request, tmp_path, monkeypatch)


def test_what_is_written_can_be_read(backend: Backend, tmp_path: Path) -> None:
    store = open_writable_store(backend.target)
    store.write("a", b"older")
    store.write("a", b"0123456789")
    (tmp_path / "local").write_bytes(b"uploaded")
    assert store.upload(str(tmp_path / "local"), "b")
    assert (backend.get("a"), backend.get("b")) == (b"0123456789", b"uploaded")
    assert [store.read(name) for name in ("a", "b", "c")] == [b"0123456789", b"uploaded", None]
    assert (store.read("a", 3), store.read("a", 99)) == (b"789", b"0123456789")
    assert store.fetch("a", str(tmp_path / "copy"))
    assert not store.fetch("c", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == b"0123456789"


def test_what_is_there(backend: Backend) -> None:
    store = open_writable_store(backend.target)
    assert (store.has_below(), store.names()) == (False, [])
    for name in ("b", "[a]*", "b c+%20"):
        backend.put(name, b"")
    assert (store.has_below(), store.names()) == (True, ["[a]*", "b", "b c+%20"])
    exists = [open_writable_store(backend.target + name).exists() for name in ("b", "", "c", "[a]*")]
    assert exists == [True, False, False, True]


def test_what_is_removed(backend: Backend) -> None:
    store = open_writable_store(backend.target)
    for name in "abcd":
        backend.put(name, b"")
    store.unlink("a", "nothing", "c")
    store.unlink("b")
    store.unlink("nothing")
    assert store.names() == ["d"]
    for _ in range(2):
        open_writable_store(f"{backend.target}d").unlink("")
    assert not store.has_below()


def test_listing_state_and_content_agree(backend: Backend) -> None:
    backend.put("a.jpg", b"0123456789")
    (listed,) = [found for page in open_store(backend.target).pages() for found in page]
    store = open_store(f"{backend.target}a.jpg")
    assert listed.name == "a.jpg"
    assert listed.state is not None
    assert listed.state.size == 10
    assert listed.state == store.state() == store.get(10).state
    assert (store.get(10).data, store.get(3, ByteRange(2, 3)).data) == (b"0123456789", b"234")
    with pytest.raises(ImageError, match="too-large: an object of 10 bytes; the limit is 9"):
        store.get(9)


def test_what_is_not_there(backend: Backend) -> None:
    store = open_store(f"{backend.target}a.jpg")
    for call in (store.state, lambda: store.get(9)):
        with pytest.raises(StoreError, match="no such object") as caught:
            call()
        assert caught.value.reason == "missing"


def test_web_servers_take_nothing() -> None:
    with pytest.raises(UsageError, match=r"'https://h/out\.csv' cannot be written: web servers take no files"):
        open_writable_store("https://h/out.csv")
