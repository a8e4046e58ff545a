"""The cache of activations on the disk: one directory an entry, named by a fingerprint, bounded in size.

The cache is a sub-folder of its own, so that nothing else is in it. An entry is a directory of NumPy arrays and a
description, `entry.json`, that appears last: without it an entry is one that was being made when its process died, and
is continued. Nothing in the cache is needed: deleting it costs time. What carries no marker of this program is never
removed and never written to, whatever its name is.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcli.core.errors import OutputError, UsageError
from xcli.core.text import one_line
from xcli.storage.locks import FileLock

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

SUBFOLDER = "xception-activations"
ENTRY, MARKER, LOCK_SUFFIX = "entry.json", ".xception-cache-entry", ".lock"

log = logging.getLogger("xcli")

_KEY = re.compile(r"[0-9a-f]{32}")
_CACHE_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# Activations that `xception finetune` computed; the directory may be deleted. See https://bford.info/cachedir/\n"
)

GIB = 1 << 30

_SPARE_BYTES = 256 << 20
"""Left free on the disk, for everybody else."""


def default_cache_dir() -> Path:
    """The user's cache directory of this program; activations get a sub-folder of it."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("xception"))


def fingerprint(description: Mapping[str, Any]) -> str:
    """The name of an entry: a digest of everything that its values depend on."""
    return sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:32]


class ActivationCache:
    """Entries in a directory.

    Args:
        parent: the directory in which the cache has its sub-folder; both are made where they are missing.
        limit: bytes that all entries together may take, those of the run in hand included.

    Attributes:
        folder: the sub-folder.

    Raises:
        OutputError: the directory cannot be made, or the sub-folder is a link.
    """

    def __init__(self, parent: str | Path, limit: int) -> None:
        self.folder, self.limit = Path(parent) / SUBFOLDER, limit
        self._kept: set[str] = set()
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            if self.folder.is_symlink():
                raise OSError(errno.ELOOP, "it is a symbolic link")
            with suppress(FileExistsError), open(self.folder / "CACHEDIR.TAG", "x", encoding="ascii") as file:
                file.write(_CACHE_TAG)
        except OSError as error:
            shown = one_line(str(self.folder))
            raise OutputError(f"cannot use the cache {shown}: {error.strerror}; choose another --cache-dir") from error

    def description(self, key: str) -> dict[str, Any] | None:
        """What a finished entry says of itself; None where there is none."""
        try:
            value = json.loads((self.folder / key / ENTRY).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def touch(self, key: str) -> None:
        """Marks an entry as used now, and as one that this run needs: it is not dropped to make room."""
        self._kept.add(key)
        with suppress(OSError):
            os.utime(self.folder / key)

    @contextmanager
    def exclusive(self, key: str) -> Iterator[Path]:
        """The directory of an entry, for this process alone to write; another that wants it waits.

        Raises:
            OutputError: there is a directory of that name which this program has not made.
        """
        self._kept.add(key)
        with FileLock(self.folder / f"{key}{LOCK_SUFFIX}"):
            path = self.folder / key
            with suppress(FileExistsError):
                path.mkdir()
            # An empty directory may be one of ours whose process died before the marker was there.
            if not _is_entry(path) and (path.is_symlink() or any(path.iterdir())):
                raise OutputError(f"{one_line(str(path))} was not made by this program; choose another --cache-dir")
            (path / MARKER).touch()
            yield path

    def mark_complete(self, key: str, description: Mapping[str, Any]) -> None:
        """Declares an entry whole; its files must be on the disk."""
        path = self.folder / key
        temporary = path / f".{ENTRY}.{os.getpid()}"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(description, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path / ENTRY)

    def reserve(self, keys: Collection[str], size: int) -> None:
        """Makes room for entries that are to come: drops those that were used longest ago.

        Args:
            keys: the entries that this run needs, whether they are there or not.
            size: bytes of all of them together.

        Raises:
            UsageError: they take more than the cache may have.
            OutputError: the disk has no room for those that are still missing.
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
        """Drops the entries used longest ago until the others take at most `limit` bytes; those of this run stay."""
        others = []
        for path in self._entries():
            if path.name not in self._kept:
                with suppress(OSError):
                    others.append((path.stat().st_mtime, _size(path), path))
        total = sum(size for _, size, _ in others)
        for _, size, path in sorted(others, key=lambda one: one[0]):
            if total <= limit:
                break
            self._drop(path)
            total -= size

    def _drop(self, path: Path) -> None:
        lock = FileLock(path.with_name(f"{path.name}{LOCK_SUFFIX}"))
        # An entry that another process is computing now is in use, however old it looks.
        with suppress(OSError):
            try:
                if lock.acquire() and _is_entry(path):
                    log.info("cache: removing %s, which was used longest ago", one_line(str(path)))
                    with suppress(OSError):
                        (path / ENTRY).unlink()
                    shutil.rmtree(path, ignore_errors=True)
                    os.unlink(lock.path)
            finally:
                lock.release()

    def size(self) -> int:
        """Bytes that all entries take."""
        return sum(map(_size, self._entries()))

    def _entries(self) -> list[Path]:
        """The directories of all entries that this program has made."""
        return [path for path in self.folder.iterdir() if _is_entry(path)]


def _is_entry(path: Path) -> bool:
    """Whether a directory is an entry that this program has made: by its name and by the marker in it."""
    named = _KEY.fullmatch(path.name) is not None
    return named and not path.is_symlink() and path.is_dir() and (path / MARKER).is_file()


def _size(path: Path) -> int:
    """Bytes of the files in a directory, as the disk counts them: a file with holes takes less than it is long."""
    total = 0
    with suppress(OSError):
        for entry in os.scandir(path):
            total += entry.stat().st_blocks * 512
    return total
