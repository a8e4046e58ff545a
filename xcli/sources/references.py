"""Making `ImageRef`s of files and of objects in stores."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ImageError
from xcli.core.records import ImageRef
from xcli.core.text import escape_path
from xcli.sources.locations import RemoteObject
from xcli.storage.local import LocalFile
from xcli.storage.urls import open_url

if TYPE_CHECKING:
    from xcli.core.records import FileState


def file_ref(
    path: bytes, key: bytes | None = None, error: ImageError | None = None, extra: tuple[Any, ...] = ()
) -> ImageRef:
    """Makes the reference to a file of this machine, or to anything that has an error.

    Args:
        path: the path.
        key: the path relative to its source, if that is another one.
        error: what is wrong with it.
        extra: values of a manifest's other columns.
    """
    text = os.fsdecode(path)
    return ImageRef(escape_path(text), LocalFile(text), path if key is None else key, error, extra)


def object_ref(url: str, state: FileState | None, key: bytes | None = None) -> ImageRef:
    """Makes the reference to an object whose state its store has told; see `file_ref`."""
    return ImageRef(escape_path(url), RemoteObject(url, state), os.fsencode(url) if key is None else key)


def unlisted_object_ref(url: str) -> ImageRef:
    """Makes the reference to an object that is named, not listed. Its store is asked nothing.

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
