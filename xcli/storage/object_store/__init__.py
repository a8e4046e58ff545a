"""The client for object stores, for reading and for writing, through fsspec: one class for each kind of store.

In: URLs.
Out: an `ObjectStore`; errors of reading as `StoreError`, of writing as OutputError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xcli.core.errors import UsageError
from xcli.storage.urls import open_url, scheme_of

if TYPE_CHECKING:
    from xcli.storage.object_store.base import ObjectStore


def open_store(url: str) -> ObjectStore:
    """Returns the client for a URL; makes no request yet.

    Raises:
        UsageError: the packages for it are not installed, or the URL names no bucket.
    """
    from xcli.storage.object_store.base import ObjectStore
    from xcli.storage.object_store.s3 import S3Store
    from xcli.storage.object_store.web import WebStore

    return {"s3": S3Store, "http": WebStore}.get(scheme_of(url), ObjectStore)(open_url(url))


def open_writable_store(url: str) -> ObjectStore:
    """Returns the client for a URL below which objects are to be written; makes no request yet.

    Raises:
        UsageError: nothing can be written there; see also `open_store`.
    """
    if scheme_of(url) == "http":
        raise UsageError(f"{url!r} cannot be written: web servers take no files; give s3://BUCKET/... or a file")
    return open_store(url)
