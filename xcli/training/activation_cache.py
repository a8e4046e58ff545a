"""The cache of activations on disk: a directory for each entry, and a limit for their total size.

The cache has a sub-folder of its own, which holds nothing else. An entry is a directory of NumPy arrays and a
description, `entry.json`, which is written last: an entry without it was not finished, and is continued. The cache may
be deleted at any time; the activations are then computed again. Directories without the marker file of this program are
never removed or written to, whatever their names are.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcli.core.checked_json import MAX_BYTES, Schema, parse_object
from xcli.core.digests import json_digest
from xcli.core.errors import OutputError, UsageError
from xcli.core.levels import DETAIL
from xcli.core.text import one_line
from xcli.storage import disk
from xcli.storage.atomic import write_atomically
from xcli.storage.directories import is_of_another_user
from xcli.storage.locks import FileLock

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

SUBFOLDER = "xception-activations"
ENTRY, MARKER, LOCK_SUFFIX = "entry.json", ".xception-cache-entry", ".lock"

log = logging.getLogger("xcli")

_DESCRIPTION: Schema = {"images": range(1 << 40), "errors": {str: str}}
_KEY = re.compile(r"[0-9a-f]{32}")
_CACHE_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# Activations that `xception finetune` computed; the directory may be deleted. See https://bford.info/cachedir/\n"
)

GIB = 1 << 30
DEFAULT_CACHE_BYTES = 20 * GIB

_SPARE_BYTES = 256 << 20
"""Left free on the disk for other programs."""


def entry_key(description: Mapping[str, Any]) -> str:
    """Returns the name of an entry: a digest of everything that its values depend on."""
    return json_digest(description)[:32]


class ActivationCache:
    """Entries in a directory.

    Args:
        parent: the directory in which the cache has its sub-folder, `folder`; None is the user's cache directory of
            this program. Both are made if they do not exist.
        limit: bytes that all entries together may take, including those of this run.

    Raises:
        OutputError: the directory cannot be made, or the sub-folder is a link.
    """

    def __init__(self, parent: str | Path | None, limit: int) -> None:
        import platformdirs

        self.folder, self.limit = Path(parent or platformdirs.user_cache_dir("xception"), SUBFOLDER), limit
        self._kept: set[str] = set()
        try:
            disk.make_directories(self.folder.parent)
            disk.make_directory(self.folder, 0o700)
            if self.folder.is_symlink():
                raise OSError(errno.ELOOP, "it is a symbolic link")
            if is_of_another_user(str(self.folder)):
                raise OSError(errno.EPERM, "it belongs to another user")
            with suppress(FileExistsError), disk.create(self.folder / "CACHEDIR.TAG") as file:
                file.write(_CACHE_TAG.encode())
        except OSError as error:
            shown = one_line(str(self.folder))
            raise OutputError(f"cannot use the cache {shown}: {error.strerror}; choose another --cache-dir") from error

    def description(self, key: str) -> dict[str, Any] | None:
        """Returns the description of a complete entry, or None if there is none."""
        try:
            return parse_object(disk.read_file(self.folder / key / ENTRY, MAX_BYTES + 1), _DESCRIPTION, free="errors")
        except (OSError, ValueError):
            return None

    def touch(self, key: str) -> None:
        """Marks an entry as used now, and as needed by this run, which therefore does not evict it."""
        self._kept.add(key)
        with suppress(OSError):
            disk.touch(self.folder / key)

    @contextmanager
    def exclusive(self, key: str) -> Iterator[Path]:
        """Locks an entry for this process to write, and gives its directory; other processes wait for the lock.

        Raises:
            OutputError: there is a directory of that name which this program did not make.
        """
        self._kept.add(key)
        with FileLock(self.folder / f"{key}{LOCK_SUFFIX}"):
            path = self.folder / key
            disk.make_directory(path)
            # An empty directory may be an entry whose process was killed before it wrote the marker.
            if not _is_entry(path) and (path.is_symlink() or any(path.iterdir())):
                raise OutputError(f"{one_line(str(path))} was not made by this program; choose another --cache-dir")
            with suppress(FileExistsError), disk.create(path / MARKER):
                pass
            yield path

    def mark_complete(self, key: str, description: Mapping[str, Any]) -> None:
        """Writes the description of an entry, whose other files must be on disk."""
        text = json.dumps(description, indent=1)
        write_atomically(str(self.folder / key / ENTRY), text.encode())

    def reserve(self, keys: Collection[str], size: int) -> None:
        """Makes room for the `size` bytes of all entries of this run by evicting those used least recently.

        Raises:
            UsageError: they take more than the limit.
            OutputError: the disk has no room for those that do not exist yet.
        """
        if size > self.limit:
            raise UsageError(
                f"the activations take {size / GIB:.2f} GiB, but --cache-size allows {self.limit / GIB:.2f} GiB: allow "
                "more, or take fewer --views or a smaller --unfreeze"
            )
        self._kept.update(keys)
        self.trim(self.limit - size)
        missing = size - sum(_size(self.folder / key) for key in keys)
        free = shutil.disk_usage(self.folder).free - _SPARE_BYTES
        if missing > free:
            raise OutputError(
                f"the activations take {missing / GIB:.2f} GiB more, but {one_line(str(self.folder))} has only "
                f"{max(0, free) / GIB:.2f} GiB free: choose another --cache-dir, or take fewer --views"
            )

    def trim(self, limit: int) -> None:
        """Evicts the least recently used entries, except those of this run, until all others fit into `limit` bytes."""
        others = []
        for path in self._entries():
            if path.name not in self._kept:
                with suppress(OSError):
                    others.append((path.stat().st_mtime, _size(path), path))
        total = sum(size for _, size, _ in others)
        for _, size, path in sorted(others, key=lambda one: one[0]):
            if total > limit:
                self._evict(path)
                total -= size

    def _evict(self, path: Path) -> None:
        lock = FileLock(path.with_name(f"{path.name}{LOCK_SUFFIX}"))
        with suppress(OSError):
            try:
                # An entry that is locked is being written by another process, whatever its date says.
                if lock.acquire() and _is_entry(path):
                    log.log(DETAIL, "cache: removing %s, the least recently used entry", one_line(str(path)))
                    disk.unlink(path / ENTRY)
                    disk.remove_tree(path)
                    disk.unlink(lock.path)
            finally:
                lock.release()

    def size(self) -> int:
        """Returns the bytes that all entries take."""
        return sum(map(_size, self._entries()))

    def _entries(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if _is_entry(path)]


def _is_entry(path: Path) -> bool:
    """Tells by its name and its marker file whether a directory is an entry that this program has made."""
    return _KEY.fullmatch(path.name) is not None and not path.is_symlink() and (path / MARKER).is_file()


def _size(path: Path) -> int:
    """Returns the bytes that the files of a directory take on disk; a file with holes takes less than its length."""
    with suppress(OSError):
        return sum(entry.stat().st_blocks * 512 for entry in os.scandir(path))
    return 0
