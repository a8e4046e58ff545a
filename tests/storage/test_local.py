"""Reading files of this machine: whole, or with an error that says why not."""

from __future__ import annotations

import errno
import os
import random
import socket
import stat
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.imagefiles import (
    make_hostile_directory,
)
from tests.images.pixels import SOUND
from tests.memory import frugality
from xcli.core.errors import ImageError
from xcli.images.formats import MAX_FILE_BYTES
from xcli.images.preprocessing import Preprocessing, load_image
from xcli.storage import disk
from xcli.storage.local import LocalFile, file_kind, read_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def read_reason(path: str) -> tuple[str, str]:
    with pytest.raises(ImageError) as caught:
        read_file(path, MAX_FILE_BYTES)
    return caught.value.reason, caught.value.message


def test_reads_the_whole_file(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(3 << 20)
    (tmp_path / "file").write_bytes(data)
    assert read_file(str(tmp_path / "file"), MAX_FILE_BYTES) == data


@pytest.mark.parametrize(
    "name", [b"with space", b"quote'\"", b"new\nline", "🐈".encode(), b"latin-\xe9", b"-rf", b"%41", b"*?[", b"\\"]
)
def test_any_name(tmp_path: Path, name: bytes) -> None:
    path = os.fsdecode(os.path.join(os.fsencode(tmp_path), name))
    with open(path, "wb") as file:
        file.write(SOUND["rgb.png"])
    assert load_image(LocalFile(path), Preprocessing(size=8)).shape == (8, 8, 3)


def test_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("absent.jpg", "file/inside.jpg", "dangling", "nul\0byte", "\ud800"):
        what, message = read_reason(os.path.join(tmp_path, name))
        assert what == "missing", name
        assert len(message.splitlines()) == 1


def test_a_file_that_has_vanished(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(SOUND["rgb.png"])
    load_image(LocalFile(str(path)), Preprocessing())
    path.unlink()
    with pytest.raises(ImageError) as caught:
        load_image(LocalFile(str(path)), Preprocessing())
    assert caught.value.reason == "missing"


def test_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(b"x")
    path.chmod(0)
    if os.geteuid() == 0:

        def refuse(*_: Any, **__: Any) -> int:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

        monkeypatch.setattr(os, "open", refuse)
    assert read_reason(str(path)) == ("unreadable", "Permission denied")


def test_input_and_output_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(b"x")

    def fail(_: int) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", fail)
        assert read_reason(str(path)) == ("unreadable", "Input/output error")
    (tmp_path / "loop").symlink_to("loop")
    assert read_reason(str(tmp_path / "loop"))[0] == "unreadable"
    assert read_reason(str(tmp_path / ("x" * 300)))[0] == "unreadable"


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    expected = make_hostile_directory(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for name in [*expected, ".", "absent"]:
        with suppress(ImageError):
            read_file(os.path.join(tmp_path, name), MAX_FILE_BYTES)
    assert len(os.listdir("/proc/self/fd")) == before


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """The result of a call that must not hang."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert results, "it hangs"
    return results[0]


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    for path, kind in (
        (str(tmp_path), "a directory"),
        ("fifo", "a FIFO"),
        ("socket", "a socket"),
        ("/dev/zero", "a character device"),
        ("/dev/tty", None),
    ):
        if kind is None and not os.path.exists(path):
            continue
        what, message = within(5, lambda path=path: read_reason(path))
        assert what == "not-a-file"
        assert kind is None or message == f"it is {kind}, not a regular file"


def test_kinds_of_files() -> None:
    assert file_kind(stat.S_IFBLK) == "a block device"
    assert file_kind(0) == "a special file"


def test_files_beyond_the_limit_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tif"
    with open(path, "wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with frugality():
        assert read_reason(str(path))[0] == "too-large"


def test_a_small_file_needs_little_memory(tmp_path: Path) -> None:
    # Not the limit of one gigabyte, allocated in advance.
    (tmp_path / "small").write_bytes(b"small")
    with frugality():
        assert read_file(str(tmp_path / "small"), MAX_FILE_BYTES) == b"small"


def test_want_of_memory_for_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x")

    def greedy(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(disk, "read_descriptor", greedy)
    assert read_reason(str(tmp_path / "file"))[0] == "too-large"


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    assert read_reason(str(tmp_path / "empty.jpg"))[0] == "empty"
