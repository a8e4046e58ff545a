"""What is kept of models from one run to the next: a file for each entry, and a limit for their total size.

A file begins with the SHA-256 of the rest, which is a line of JSON, with the key of the entry, and the content itself.
One that does not fit that, or its name, is made again. The directory may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.core.checked_json import parse_object
from xcli.core.levels import DETAIL
from xcli.core.text import one_line
from xcli.storage import disk
from xcli.storage.directories import is_of_another_user
from xcli.storage.locks import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from xcli.core.checked_json import Schema

log = logging.getLogger("xcli")

SUFFIX, LOCK = ".model", "lock"

_MAX_FACTS = 1 << 16
_DIGEST = hashlib.sha256().digest_size * 2
_NAME = re.compile(rf"[0-9a-f]{{64}}{re.escape(SUFFIX)}(\.tmp)?")


class CacheEntry(NamedTuple):
    """What is kept of a model.

    Attributes:
        content: of a format that its user knows.
        facts: what the user must know of it, as JSON can hold it.
    """

    content: bytes | memoryview
    facts: Mapping[str, Any]


def user_folder(name: str) -> Path | None:
    """Returns the directory of that name in this user's cache; None where there is no home directory."""
    from platformdirs import user_cache_path

    with suppress(RuntimeError):  # some releases raise it where there is no home directory
        folder = user_cache_path("xception") / name
        return folder if folder.is_absolute() else None
    return None


class ModelCache:
    """Entries in a directory.

    Args:
        folder: the directory, which is made if it does not exist. Where it cannot be used, or is None, entries are
            made each time, which is said once.
        noun: what an entry is called in messages.
        limit: bytes of all entries together; those used least recently are removed.
        quiet: say what is wrong with the directory, or an entry, only where details are asked for.
    """

    def __init__(self, folder: Path | None, noun: str, limit: int, *, quiet: bool = False) -> None:
        self._folder, self._noun, self._limit, self._quiet = folder, noun, limit, quiet

    def get(self, key: str, schema: Mapping[str, Schema], build: Callable[[], CacheEntry]) -> CacheEntry:
        """Returns the entry of a key, built by `build` if it is not there, or damaged.

        Of several processes that ask for an entry at once, one builds it and the others wait.

        Args:
            key: 64 hexadecimal digits, a digest of everything that the entry depends on.
            schema: of its facts.
            build: makes it.
        """
        found = self.find(key, schema)
        if found is not None or self._folder is None:
            return found or build()
        with self._exclusive(self._folder) as usable:
            # Another process may have made it while this one waited.
            found = self.find(key, schema, quiet=True) if usable else None
            if found is not None:
                return found
            made = build()
            if usable:
                self._write(self._folder, key, made)
            return made

    def find(self, key: str, schema: Mapping[str, Schema], *, quiet: bool = False) -> CacheEntry | None:
        """Returns the entry of a key; None if there is none, or none that can be used, which is said unless `quiet`."""
        if self._folder is None:
            return None
        path = self._folder / f"{key}{SUFFIX}"
        try:
            return _read(path, key, schema, self._limit)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            if not quiet:
                reason = getattr(error, "strerror", None) or error
                message = "not using the %s %s: %s; it is made again"
                log.log(self._level(logging.WARNING), message, self._noun, one_line(str(path)), reason)
            return None

    def keep(self, key: str, made: CacheEntry) -> None:
        """Keeps an entry that took so little time to make that other processes need not wait for it."""
        if self._folder is not None:
            with self._exclusive(self._folder) as usable:
                if usable:
                    self._write(self._folder, key, made)

    def remove(self, key: str) -> None:
        """Removes an entry, if it is there."""
        if self._folder is not None:
            with suppress(OSError):
                disk.unlink(self._folder / f"{key}{SUFFIX}")

    @contextmanager
    def _exclusive(self, folder: Path) -> Iterator[bool]:
        """Locks the directory, which is made if necessary; gives whether it can be used."""
        lock = FileLock(folder / LOCK)
        usable = self._acquire(lock, folder)
        try:
            yield usable
        finally:
            lock.release()

    def _acquire(self, lock: FileLock, folder: Path) -> bool:
        try:
            disk.make_directories(folder.parent)
            disk.make_directory(folder, 0o700)
            if folder.is_symlink() or is_of_another_user(str(folder)):
                raise PermissionError("it is a link, or belongs to another user")
            if not lock.acquire():
                log.log(self._level(logging.INFO), "waiting for another process that makes a %s", self._noun)
                lock.acquire(wait=True)
        except OSError as error:
            self._say_unusable(folder, error)
            return False
        return True

    def _write(self, folder: Path, key: str, made: CacheEntry) -> None:
        facts = json.dumps({**made.facts, "key": key}).encode() + b"\n"
        content = hashlib.sha256(facts)
        content.update(made.content)
        data = b"".join((content.hexdigest().encode(), b"\n", facts, made.content))
        try:
            if len(data) <= self._limit:
                self._trim(folder, self._limit - len(data))
                disk.replace_file(folder / f"{key}{SUFFIX}", data)
        except OSError as error:
            self._say_unusable(folder, error)

    def _say_unusable(self, folder: Path, error: OSError) -> None:
        message = "cannot keep %ss in %s (%s): they are made each time"
        reason = error.strerror or error
        log.log(self._level(logging.WARNING), message, self._noun, one_line(str(folder)), reason)

    def _level(self, level: int) -> int:
        return DETAIL if self._quiet else level

    def _trim(self, folder: Path, limit: int) -> None:
        """Removes what killed processes left, and the entries used least recently until the others fit into `limit`."""
        entries = []
        for name in disk.names(folder):
            if _NAME.fullmatch(name):
                found = os.lstat(folder / name)
                entries.append((not name.endswith(SUFFIX), found.st_mtime, found.st_size, name))
        total = sum(size for _, _, size, _ in entries)
        for is_left, _, size, name in sorted(entries, key=lambda one: (not one[0], one[1])):
            if is_left or total > limit:
                log.log(DETAIL, "removing %s, the least recently used %s", one_line(str(folder / name)), self._noun)
                disk.unlink(folder / name)
                total -= size


def _read(path: Path, key: str, schema: Mapping[str, Schema], most: int) -> CacheEntry:
    """Reads and checks an entry of at most so many bytes; raises OSError or ValueError if it cannot be used."""
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode) or is_of_another_user(str(path)):
        raise ValueError("it is not a regular file of this user")
    if found.st_size > most:
        raise ValueError(f"it has {found.st_size:,} bytes")
    data = memoryview(disk.read_file(path, most))
    head = bytes(data[: _DIGEST + 1 + _MAX_FACTS])
    begin, end = _DIGEST + 1, head.find(b"\n", _DIGEST + 1) + 1
    if not end or hashlib.sha256(data[begin:]).hexdigest().encode() + b"\n" != head[:begin]:
        raise ValueError("it is damaged")
    facts = parse_object(head[begin:end], {**schema, "key": str})
    if facts.get("key") != key:
        raise ValueError("it belongs to another model")
    with suppress(OSError):
        disk.touch(path)
    return CacheEntry(data[end:], facts)
