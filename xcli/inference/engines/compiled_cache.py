"""Compiled models on disk: one file for each, and a limit for their total size.

A file begins with the SHA-256 of the rest, which is a line of JSON, with the key of the model, and the model itself.
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

SUBFOLDER, SUFFIX, LOCK = "openvino", ".model", "lock"
DEFAULT_LIMIT = 1 << 30
"""Bytes of all models together: some ten of Xception, of 83 MB each."""

_MAX_FACTS = 1 << 16
_DIGEST = hashlib.sha256().digest_size * 2
_NAME = re.compile(rf"[0-9a-f]{{64}}{re.escape(SUFFIX)}(\.tmp)?")


class CompiledModel(NamedTuple):
    """A compiled model.

    Attributes:
        content: of its engine's own format.
        facts: what the engine must know of it, as JSON can hold it.
    """

    content: bytes | memoryview
    facts: Mapping[str, Any]


def default_folder() -> Path | None:
    """Returns the directory of the models of this user; None where there is no home directory."""
    from platformdirs import user_cache_path

    with suppress(RuntimeError):  # some releases raise it where there is no home directory
        folder = user_cache_path("xception") / SUBFOLDER
        return folder if folder.is_absolute() else None
    return None


class CompiledCache:
    """Compiled models in a directory.

    Args:
        folder: the directory, which is made if it does not exist. Where it cannot be used, or is None, models are
            compiled each time, which is said once.
        limit: bytes of all models together; those used least recently are removed.
    """

    def __init__(self, folder: Path | None, limit: int = DEFAULT_LIMIT) -> None:
        self._folder, self._limit = folder, limit

    def get(self, key: str, schema: Mapping[str, Schema], build: Callable[[], CompiledModel]) -> CompiledModel:
        """Returns the model of a key, built by `build` if it is not there, or damaged.

        Of several processes that ask for a model at once, one builds it and the others wait.

        Args:
            key: 64 hexadecimal digits, a digest of everything that the model depends on.
            schema: of its facts.
            build: makes it.
        """
        path = None if self._folder is None else self._folder / f"{key}{SUFFIX}"
        if path is None:
            return build()
        found = _read(path, key, schema, self._limit)
        if found is not None:
            return found
        with self._exclusive(path.parent) as usable:
            # Another process may have made it while this one waited.
            found = _read(path, key, schema, self._limit, quiet=True) if usable else None
            if found is not None:
                return found
            made = build()
            if usable:
                self._write(path, key, made)
            return made

    def remove(self, key: str) -> None:
        """Removes a model, if it is there."""
        if self._folder is not None:
            with suppress(OSError):
                disk.unlink(self._folder / f"{key}{SUFFIX}")

    @contextmanager
    def _exclusive(self, folder: Path) -> Iterator[bool]:
        """Locks the directory, which is made if necessary; gives whether it can be used."""
        lock = FileLock(folder / LOCK)
        usable = _acquire(lock, folder)
        try:
            yield usable
        finally:
            lock.release()

    def _write(self, path: Path, key: str, made: CompiledModel) -> None:
        facts = json.dumps({**made.facts, "key": key}).encode() + b"\n"
        content = hashlib.sha256(facts)
        content.update(made.content)
        data = b"".join((content.hexdigest().encode(), b"\n", facts, made.content))
        try:
            if len(data) <= self._limit:
                self._trim(path.parent, self._limit - len(data))
                disk.replace_file(path, data)
        except OSError as error:
            _say_unusable(path.parent, error)

    def _trim(self, folder: Path, limit: int) -> None:
        """Removes what killed processes left, and the models used least recently until the others fit into `limit`."""
        models = []
        for name in disk.names(folder):
            if _NAME.fullmatch(name):
                found = os.lstat(folder / name)
                models.append((not name.endswith(SUFFIX), found.st_mtime, found.st_size, name))
        total = sum(size for _, _, size, _ in models)
        for is_left, _, size, name in sorted(models, key=lambda one: (not one[0], one[1])):
            if is_left or total > limit:
                log.log(DETAIL, "removing %s, the least recently used compiled model", one_line(str(folder / name)))
                disk.unlink(folder / name)
                total -= size


def _acquire(lock: FileLock, folder: Path) -> bool:
    """Makes the directory if necessary, and locks it; returns whether it can be used."""
    try:
        disk.make_directories(folder.parent)
        disk.make_directory(folder, 0o700)
        if folder.is_symlink() or is_of_another_user(str(folder)):
            raise PermissionError("it is a link, or belongs to another user")
        if not lock.acquire():
            log.info("waiting for another process that compiles a model")
            lock.acquire(wait=True)
    except OSError as error:
        _say_unusable(folder, error)
        return False
    return True


def _read(
    path: Path, key: str, schema: Mapping[str, Schema], most: int, *, quiet: bool = False
) -> CompiledModel | None:
    """Reads and checks a model of at most so many bytes; returns None if there is none, or none that can be used."""
    try:
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
            raise ValueError("it holds another model")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        if not quiet:
            reason = getattr(error, "strerror", None) or error
            log.warning("not using the compiled model %s: %s; it is made again", one_line(str(path)), reason)
        return None
    with suppress(OSError):
        disk.touch(path)
    return CompiledModel(data[end:], facts)


def _say_unusable(folder: Path, error: OSError) -> None:
    reason = error.strerror or error
    log.warning("cannot keep compiled models in %s (%s): they are compiled each time", one_line(str(folder)), reason)
