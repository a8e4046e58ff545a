"""The one module that changes the disk: what it does, and that no other module does it."""

from __future__ import annotations

import ast
import errno
import os
import re
from pathlib import Path

import pytest

import xcli
from xcli.storage import disk

FORBIDDEN = {
    "os": "open rename renames replace link symlink unlink remove mkdir makedirs rmdir removedirs fsync fdatasync "
    "truncate ftruncate write pwrite utime chmod chown mkfifo sendfile",
    "shutil": "rmtree move copy copy2 copyfile copytree copymode",
    "tempfile": "mkstemp mkdtemp mktemp TemporaryFile NamedTemporaryFile TemporaryDirectory SpooledTemporaryFile",
    "fcntl": "flock lockf",
    "pa": "memory_map OSFile create_memory_map",
}
METHODS = frozenset(
    "write_text write_bytes unlink mkdir rmdir touch rename symlink_to hardlink_to savetxt savez_compressed".split()
)

WRITING = re.compile("O_(WRONLY|RDWR|CREAT|TRUNC|APPEND)")

OWN = re.compile(r"^disk$|^self$|^folder$|_folder$|_store$|^open_writable_store|^super\(\)$|\.cache$")
"""Objects of ours with such methods, which end in the module or in an object store."""

ALLOWED = {
    # Null devices, descriptors, the current directory: nothing on a disk.
    ("cli/main.py", "os.open"),
    ("core/process.py", "open"),
    # Memory that is shared with the processes that decode; the file has no name, and on Linux is in no directory.
    ("inference/pixel_slots.py", "tempfile.TemporaryFile"),
    ("inference/pixel_slots.py", "os.ftruncate"),
}

OURS = Path(xcli.__file__).parent


def calls(path: Path) -> list[str]:
    """The calls in a file that may change a disk."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Attribute):
            owner = function.value.id if isinstance(function.value, ast.Name) else ""
            if f"{owner}.{function.attr}" == "os.open" and not WRITING.search(ast.unparse(node)):
                continue
            if function.attr in FORBIDDEN.get(owner, "").split():
                found.append(f"{owner}.{function.attr}")
            elif function.attr in METHODS and not OWN.search(ast.unparse(function.value)):
                found.append(ast.unparse(function))
        elif isinstance(function, ast.Name) and function.id == "open":
            mode = next(
                (one.value for one in node.keywords if one.arg == "mode"), node.args[1] if node.args[1:] else None
            )
            if mode is not None and not (isinstance(mode, ast.Constant) and mode.value in ("r", "rb")):
                found.append("open")
    return found


def test_no_other_module_changes_the_disk() -> None:
    others = sorted(set(OURS.rglob("*.py")) - {OURS / "storage" / "disk.py"})
    found = [(str(path.relative_to(OURS)), call) for path in others for call in calls(path)]
    assert [one for one in found if one not in ALLOWED] == []
    assert sorted(ALLOWED.difference(found)) == []


@pytest.mark.parametrize(
    "text",
    [
        "os.unlink(x)",
        "os.open(x, os.O_RDWR)",
        "open(x, 'wb')",
        "open(x, mode='a')",
        "path.write_text('')",
        "(folder / 'x').touch()",
        "shutil.rmtree(x)",
        "pa.memory_map(x)",
        "tempfile.mkdtemp()",
    ],
)
def test_such_a_call_is_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.py").write_text(text)
    assert len(calls(tmp_path / "x.py")) == 1
    (tmp_path / "x.py").write_text("open(x, 'rb'); open(x); os.open(x, os.O_RDONLY); disk.unlink(x); os.stat(x)")
    assert calls(tmp_path / "x.py") == []


def test_a_file_is_created_never_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with disk.create(path) as file:
        file.write(b"abc" * 500_000)
    assert disk.read_file(path) == b"abc" * 500_000
    with pytest.raises(FileExistsError):
        disk.create(path)
    victim = tmp_path / "victim"
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(FileExistsError):
        disk.create(tmp_path / "link")
    assert not victim.exists()


def test_every_call_goes_through_the_replaceable_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Recorder(disk.System):
        def __getattribute__(self, name: str) -> object:
            if not name.startswith("_"):  # isinstance, of whoever asks, reads __class__
                seen.append(name)
            return super().__getattribute__(name)

    monkeypatch.setattr(disk, "system", Recorder())
    with disk.create(tmp_path / "a") as file:
        file.write(b"x")
    disk.rename(tmp_path / "a", tmp_path / "b")
    disk.link(tmp_path / "b", tmp_path / "c")
    disk.sync_directory(tmp_path)
    disk.unlink(tmp_path / "c")
    disk.make_directories(tmp_path / "d" / "e")
    disk.remove_tree(tmp_path / "d")
    assert seen == "open write close rename link open fsync close unlink mkdir mkdir rmtree".split()


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(disk.System):
        def write(self, descriptor: int, data: bytes | memoryview) -> int:
            return os.write(descriptor, memoryview(data)[:7])

    monkeypatch.setattr(disk, "system", Short())
    with disk.create(tmp_path / "a") as file:
        file.write(b"0123456789" * 10)
    assert (tmp_path / "a").read_bytes() == b"0123456789" * 10


def test_a_directory_that_cannot_be_synced_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unable(disk.System):
        number = errno.EINVAL

        def fsync(self, descriptor: int) -> None:
            raise OSError(self.number, os.strerror(self.number))

    unable = Unable()
    monkeypatch.setattr(disk, "system", unable)
    disk.sync_directory(tmp_path)
    unable.number = errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        disk.sync_directory(tmp_path)
