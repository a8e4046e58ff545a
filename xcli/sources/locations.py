"""Making `ImageRef`s of local files and of objects in a store, and the `Location` of the latter."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, ClassVar

from xcli.core.errors import ImageError, UsageError
from xcli.core.public_urls import public_url
from xcli.core.records import FileState, ImageRef
from xcli.core.text import escape_path
from xcli.storage.local import LocalFile
from xcli.storage.object_store import open_store
from xcli.storage.object_store.errors import StoreError, image_errors
from xcli.storage.urls import open_url


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """An object of a store; small, and the same on every machine.

    Attributes:
        file: its URL, as the user gave it.
        listed_state: its state when it was listed; None if it was named without being listed.
    """

    file: str
    listed_state: FileState | None = None

    offset: ClassVar[None] = None
    remote: ClassVar[bool] = True

    @property
    def size(self) -> int | None:
        return None if self.listed_state is None else self.listed_state.size

    def fetch(self, max_bytes: int) -> tuple[bytes, FileState | None]:
        """Reads all bytes of the object, with its state at that time.

        Raises:
            ImageError: `missing`, `unreadable`, `empty`, or `too-large` for more than `max_bytes`.
        """
        from xcli.storage.object_store.state import too_large

        if self.size is not None and self.size > max_bytes:
            raise too_large(self.size, max_bytes)
        with image_errors():
            content = open_store(self.file).get(max_bytes)
        if not content.data:
            raise ImageError("empty", "the object has zero bytes")
        return content.data, content.state

    def read(self, max_bytes: int) -> bytes:
        return self.fetch(max_bytes)[0]

    def state(self) -> FileState | None:
        """Returns its state in the listing, or else requests it from the store; None if it cannot be determined."""
        if self.listed_state is not None:
            return self.listed_state
        try:
            return open_store(self.file).state()
        except (StoreError, UsageError):
            return None


def file_ref(
    path: bytes,
    key: bytes | None = None,
    error: ImageError | None = None,
    extra: tuple[Any, ...] = (),
    trusted: int | None = None,
) -> ImageRef:
    """Makes the reference to a local file, or to anything that has an error; `key` is the path where it is None.

    Links are followed in the first `trusted` characters of the path only, unless that is None.
    """
    text = os.fsdecode(path)
    location = LocalFile(text, trusted=trusted)
    return ImageRef(escape_path(public_url(text)), location, path if key is None else key, error, extra)


def object_ref(url: str, state: FileState | None, key: bytes | None = None) -> ImageRef:
    """Makes the reference to an object; `state` is None unless its store has told it."""
    return ImageRef(escape_path(public_url(url)), RemoteObject(url, state), os.fsencode(url) if key is None else key)


def unlisted_object_ref(url: str) -> ImageRef:
    """Makes the reference to an object that is named, not listed. No request is made to its store.

    Raises:
        UsageError: packages are missing.
    """
    problem = url_problem(url)
    if problem is not None:
        return file_ref(os.fsencode(url), error=problem)
    open_url(url)
    return object_ref(url, None)


def url_problem(url: str) -> ImageError | None:
    """Returns what is wrong with a URL by itself, or None."""
    if not url.partition("://")[2].strip("/"):
        return ImageError("missing", "the URL names nothing but a kind of store")
    return None
