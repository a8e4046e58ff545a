"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from xcli.core.errors import OutputError
from xcli.storage.atomic import AtomicFile, commit
from xcli.storage.staging import Staging


def write(target: str, data: bytes, overwrite: bool = False) -> None:
    file = AtomicFile(target, overwrite)
    try:
        file.stream.write(data)
        commit([file])
    except BaseException:
        file.discard()
        raise


def test_nothing_shows_before_the_end(tmp_path) -> None:
    target = tmp_path / "out.csv"
    file = AtomicFile(str(target))
    file.stream.write(b"rows")
    assert os.listdir(tmp_path) == ["out.csv.partial"]
    file.prepare()
    assert not target.exists()
    file.publish()
    assert os.listdir(tmp_path) == ["out.csv"]
    assert target.read_bytes() == b"rows"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask


def test_content_is_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch) -> None:
    synced = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), (tmp_path / "out").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    write(str(tmp_path / "out"), b"x")
    begin = [named for _, named in synced].index(True)
    assert (False, False) in synced[:begin]
    assert synced[begin:] == [(True, True), (True, True)], "its directory, then the private one's"


@pytest.mark.parametrize("late", ["before the check", "after the check"])
@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path, monkeypatch, late: str, links: bool) -> None:
    target = tmp_path / "out"
    if not links:

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "no hard links here")

        monkeypatch.setattr(os, "link", refuse)
    file = AtomicFile(str(target))
    file.stream.write(b"mine")
    if late == "before the check":
        target.write_bytes(b"theirs")
    else:
        check, calls = file.check, []

        def check_then_lose_the_race() -> None:
            check()
            if not calls:
                target.write_bytes(b"theirs")
            calls.append(1)

        monkeypatch.setattr(file, "check", check_then_lose_the_race)
    with pytest.raises(OutputError, match="exists; pass --overwrite"):
        commit([file])
    file.discard()
    assert target.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_system_without_hard_links(tmp_path, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    write(str(tmp_path / "out"), b"x")
    assert (tmp_path / "out").read_bytes() == b"x"
    assert os.listdir(tmp_path) == ["out"]


def test_files_that_belong_together_appear_in_order_or_not_at_all(tmp_path, monkeypatch) -> None:
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    files = [AtomicFile(first), AtomicFile(second)]
    names: list[str] = []
    link = os.link

    def record(source: str, target: str) -> None:
        names.append(os.path.basename(target))
        if len(names) == 4:
            raise _full()
        link(source, target)

    monkeypatch.setattr(os, "link", record)
    commit(files)
    assert names == ["a", "b"]
    os.unlink(first)
    os.unlink(second)
    files = [AtomicFile(first), AtomicFile(second)]
    with pytest.raises(OutputError, match="No space"):
        commit(files)
    for file in files:
        file.discard()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", r"it is a directory; give the name of a file$"),
        ("missing/out", r"no such directory: .*/missing, create it first$"),
        ("file/out", r"/file is not a directory$"),
        ("x" * 300, r"File name too long$"),
    ],
)
def test_targets_that_cannot_be(tmp_path, name: str, message: str) -> None:
    (tmp_path / "file").touch()
    target = os.path.join(tmp_path, name) if name else str(tmp_path)
    with pytest.raises(OutputError, match=message) as caught:
        write(target, b"x", overwrite=True)
    assert str(caught.value).startswith(f"cannot write {target}: ")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127])
def test_a_name_of_the_greatest_length(tmp_path, name: str) -> None:
    write(str(tmp_path / name), b"x")
    assert os.listdir(tmp_path) == [name]


def test_a_bare_name_goes_to_the_current_directory(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("out", b"x")
    assert os.listdir(tmp_path) == ["out"]


def test_a_message_is_one_line_whatever_the_name(tmp_path) -> None:
    with pytest.raises(OutputError) as caught:
        AtomicFile(str(tmp_path / "a\n\udcff" / "out"))
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


def test_a_directory_without_permission(tmp_path, monkeypatch) -> None:
    def refuse(path: str, *_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(OutputError, match=r"cannot write .*out: Permission denied$"):
        AtomicFile(str(tmp_path / "out"))


def _full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("moment", ["write", "flush", "fsync", "close", "directory"])
def test_a_full_disk_at_any_moment(tmp_path, monkeypatch, moment: str) -> None:
    target = tmp_path / "out"
    file = AtomicFile(str(target))
    raw = file.stream._stream

    class Full:
        def __getattr__(self, name: str) -> object:
            def fail(*_: object) -> None:
                if name == "close":
                    raw.close()
                raise _full()

            return fail if name == moment else getattr(raw, name)

    file.stream._stream = Full()
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == (moment == "directory"):
            raise _full()
        fsync(descriptor)

    if moment in ("fsync", "directory"):
        monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=rf"^cannot write {target}: No space left on device$"):  # noqa: PT012
        file.stream.write(b"x")
        commit([file])
    file.discard()
    assert os.listdir(tmp_path) == []


def test_a_directory_that_cannot_be_synced_is_no_failure(tmp_path, monkeypatch) -> None:
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not on this file system")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    write(str(tmp_path / "out"), b"x")
    assert (tmp_path / "out").read_bytes() == b"x"


def test_a_companion_on_another_disk_is_refused_at_the_start(tmp_path) -> None:
    elsewhere = "/dev/shm"
    if not os.path.isdir(elsewhere) or os.stat(elsewhere).st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    target, companion = str(tmp_path / "f.npy"), tmp_path / "f.npy.csv"
    companion.symlink_to(f"{elsewhere}/xception-test-{os.getpid()}.csv")
    staging = Staging(target)
    with pytest.raises(
        OutputError, match=r"cannot write .*f\.npy\.csv: the symbolic link leads to /dev/shm, on another"
    ):
        AtomicFile(str(companion), staging=staging)
    staging.close()
    assert os.listdir(tmp_path) == ["f.npy.csv"]
    write(str(companion), b"an output of its own")
    assert companion.read_bytes() == b"an output of its own"
    os.unlink(companion.resolve())


def test_a_symbolic_link_stays_one(tmp_path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real = tmp_path / "elsewhere" / "real"
    link = tmp_path / "link"
    link.symlink_to(real)
    write(str(link), b"first")
    with pytest.raises(OutputError, match="link exists"):
        AtomicFile(str(link))
    write(str(link), b"second", overwrite=True)
    assert link.is_symlink()
    assert real.read_bytes() == b"second"
