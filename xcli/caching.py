"""The cache of activations on the disk: one directory an entry, named by a fingerprint, bounded in size.

An entry is a directory of NumPy arrays and a description, `entry.json`, that appears last: without it an entry is one
that was being made when its process died, and is continued. Nothing in the cache is needed: deleting it costs time.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcli.errors import OutputError, UsageError
from xcli.tables import one_line

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

ENTRY, LOCK_SUFFIX = "entry.json", ".lock"

GIB = 1 << 30

_SPARE_BYTES = 256 << 20
"""Left free on the disk, for everybody else."""


def default_cache_dir() -> Path:
    """The directory of activations below the user's cache directory."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("xception")) / "activations"


def fingerprint(description: Mapping[str, Any]) -> str:
    """The name of an entry: a digest of everything that its values depend on."""
    return sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:32]


class Cache:
    """Entries in a directory.

    Args:
        folder: the directory; it is made where it is missing.
        limit: bytes that all entries together may take, those of the run in hand included.

    Raises:
        OutputError: the directory cannot be made.
    """

    def __init__(self, folder: str | Path, limit: int) -> None:
        self.folder, self.limit = Path(folder), limit
        self._kept: set[str] = set()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            shown = one_line(str(folder))
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
    def locked(self, key: str) -> Iterator[Path]:
        """The directory of an entry, for this process alone to write; another that wants it waits."""
        from filelock import FileLock

        self._kept.add(key)
        with FileLock(self.folder / f"{key}{LOCK_SUFFIX}"):
            path = self.folder / key
            path.mkdir(exist_ok=True)
            yield path

    def finish(self, key: str, description: Mapping[str, Any]) -> None:
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
        for path in self.folder.iterdir():
            if path.is_dir() and path.name not in self._kept:
                with suppress(OSError):
                    others.append((path.stat().st_mtime, _size(path), path))
        total = sum(size for _, size, _ in others)
        for _, size, path in sorted(others, key=lambda one: one[0]):
            if total <= limit:
                break
            self._drop(path)
            total -= size

    def _drop(self, path: Path) -> None:
        from filelock import FileLock, Timeout

        lock = path.with_name(f"{path.name}{LOCK_SUFFIX}")
        # One that another process is making right now is not old, whatever its date says.
        with suppress(Timeout, OSError), FileLock(lock, timeout=0):
            with suppress(OSError):
                (path / ENTRY).unlink()
            shutil.rmtree(path, ignore_errors=True)
            with suppress(OSError):
                lock.unlink()

    def size(self) -> int:
        """Bytes that all entries take."""
        return sum(_size(path) for path in self.folder.iterdir() if path.is_dir())


def _size(path: Path) -> int:
    """Bytes of the files in a directory, as the disk counts them: a file with holes takes less than it is long."""
    total = 0
    with suppress(OSError):
        for entry in os.scandir(path):
            total += entry.stat().st_blocks * 512
    return total
