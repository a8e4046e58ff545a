"""URLs of object stores: `s3://`, `gs://`, `https://`. Every path without one of these schemes is a local path."""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass
from typing import Any

from xcli.core.errors import UsageError

SCHEMES = ("s3", "gs", "gcs", "http", "https")

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_CONNECTIONS = 64  # to S3, simultaneous


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A URL and the file system of fsspec that serves it, which all threads of this process share."""

    url: str
    fs: Any
    path: str  # what `fs` calls it: the URL itself for web servers, else the URL without scheme and final slashes


def is_url(path: str) -> bool:
    """Says whether a path is the URL of an object store rather than a local path."""
    match = _URL.match(path)
    return match is not None and match[1].lower() in SCHEMES


def scheme_of(url: str) -> str:
    """Returns the kind of store: `s3`, `gs` (also for `gcs`) or `http` (also for `https`)."""
    scheme = url.partition("://")[0].lower()
    return {"gcs": "gs", "https": "http"}.get(scheme, scheme)


def open_url(url: str) -> StoreUrl:
    """Finds the file system for a URL, without a request; UsageError without its packages or the name of a bucket."""
    scheme, _, rest = url.partition("://")
    kind = scheme_of(url)
    if not rest.strip("/"):
        what = "host" if kind == "http" else "bucket"
        raise UsageError(f"{url!r} names no {what}; write {scheme}://{what.upper()}/...")
    try:
        fs = _file_system(kind)
    except ImportError:
        raise UsageError(
            f"{url!r} needs the packages for object stores; install them with: pip install s3fs gcsfs"
        ) from None
    return StoreUrl(url, fs, url if kind == "http" else rest.rstrip("/"))


_opened: dict[tuple[int, str], Any] = {}
_opening = threading.Lock()


def _file_system(kind: str) -> Any:
    # Some releases of fsspec keep one for each thread, each with its own connections, so this module keeps its own.
    with _opening:
        key = os.getpid(), kind
        if key not in _opened:
            _opened[key] = _open_file_system(kind)
        return _opened[key]


def _open_file_system(kind: str) -> Any:
    import fsspec
    from fsspec.config import conf

    from xcli.storage.object_store.web_client import new_client

    # Only `retry` repeats requests: with three layers that each try five times, a refusal would take minutes.
    ours: dict[str, dict[str, Any]] = {
        "s3": {"config_kwargs": {"max_pool_connections": _CONNECTIONS, "retries": {"total_max_attempts": 1}}},
        "http": {"client_kwargs": {"trust_env": True}, "get_client": new_client},
    }
    # The user's configuration of fsspec (FSSPEC_S3_..., its configuration files) takes precedence, key by key.
    given = conf.get(kind, {})
    settings = {
        name: {**value, **(given.get(name) or {})} if isinstance(value, dict) else value
        for name, value in ours.get(kind, {}).items()
    }
    # A cache of listings would show an outdated state.
    fs = fsspec.filesystem(kind, use_listings_cache=False, skip_instance_cache=True, **settings)
    if kind == "s3":
        fs.retries = 1
    return fs
