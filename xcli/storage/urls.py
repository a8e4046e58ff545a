"""Access to object stores through fsspec: `s3://`, `gs://`, `https://`.

A URL is any path with one of these schemes; everything else is a path of this machine. What fsspec and the packages
behind it raise becomes one `CloudError`, which says what is wrong and what to do. Failures that may pass (a busy
server, a broken connection) are tried again, later and later.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from xcli.core.errors import ImageError, UsageError, XcliError
from xcli.core.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Value = TypeVar("Value")

SCHEMES = ("s3", "gs", "gcs", "http", "https")

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

ATTEMPTS = 6
"""Times that a request is tried in all: the last after some 15 seconds of waiting."""

_FIRST_WAIT = 0.5

CONNECTIONS = 64
"""Requests to one kind of store that may be under way at a time."""

_CONNECT_SECONDS, _READ_SECONDS = 5, 15
"""Seconds that a web server may take to answer, and between two pieces of what it sends."""

_DENIED = frozenset(
    "AccessDenied AllAccessDisabled Forbidden InvalidAccessKeyId InvalidToken ExpiredToken SignatureDoesNotMatch "
    "RequestTimeTooSkewed 401 403".split()
)
_PASSING = frozenset(
    "SlowDown InternalError ServiceUnavailable RequestTimeout Throttling ThrottlingException TooManyRequests "
    "408 429 500 502 503 504".split()
)
_ELSEWHERE = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "301"})
_WITHOUT_CREDENTIALS = frozenset(
    "NoCredentialsError PartialCredentialsError ProfileNotFound CredentialRetrievalError "
    "DefaultCredentialsError".split()
)
_HOPELESS = _WITHOUT_CREDENTIALS | {"ParamValidationError", "InvalidURL"}
_OF_PACKAGES = frozenset("BotoCoreError ClientError ResponseParserError HTTPError GoogleAuthError HttpError".split())
_UNREACHABLE = frozenset({"EndpointConnectionError", "ClientConnectorError", "ConnectTimeoutError"})


log = logging.getLogger("xcli")


class CloudError(Exception):
    """Something is wrong with a URL.

    Attributes:
        reason: `missing`, `denied` or `unreadable`.
        message: what is wrong and what to do, in one line, without the URL.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


class NoBucket(CloudError):
    """There is no such bucket, so nothing in it can be there either."""

    def __init__(self) -> None:
        super().__init__("missing", "there is no such bucket")


@dataclass(frozen=True, slots=True)
class Place:
    """A URL taken apart.

    Attributes:
        url: as the user gave it.
        fs: the file system of fsspec, shared by all of this process's threads.
        path: what `fs` calls it: without the scheme, where that is `s3` or `gs`.
    """

    url: str
    fs: Any
    path: str


def is_url(path: str) -> bool:
    """Whether a path names something in an object store, and nothing of this machine."""
    match = _URL.match(path)
    return match is not None and match[1].lower() in SCHEMES


def scheme_of(url: str) -> str:
    """`s3`, `gs` or `http`, for the two that each has."""
    scheme = url.partition("://")[0].lower()
    return {"gcs": "gs", "https": "http"}.get(scheme, scheme)


def open_place(url: str) -> Place:
    """Finds the file system for a URL; asks it nothing yet.

    Raises:
        UsageError: the packages for it are not installed, or the URL names no bucket.
    """
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
    return Place(url, fs, url if kind == "http" else rest.rstrip("/"))


_opened: dict[tuple[int, str], Any] = {}
_opening = threading.Lock()


def _file_system(kind: str) -> Any:
    """The file system of this process for a kind of store.

    fsspec keeps one for every thread in some of its releases, each with connections of its own, so they are kept here.
    """
    with _opening:
        key = os.getpid(), kind
        if key not in _opened:
            _opened[key] = _open_file_system(kind)
        return _opened[key]


def _open_file_system(kind: str) -> Any:
    import fsspec
    from fsspec.config import conf

    # Trying again is `attempt`'s business alone: three layers that each do it five times make minutes of a refusal.
    ours: dict[str, dict[str, Any]] = {
        "s3": {"config_kwargs": {"max_pool_connections": CONNECTIONS, "retries": {"total_max_attempts": 1}}},
        "http": {"client_kwargs": {"trust_env": True}},
    }
    # What is configured for fsspec (FSSPEC_S3_..., its configuration files) wins, setting by setting.
    settings = {name: {**values, **(conf.get(kind, {}).get(name) or {})} for name, values in ours.get(kind, {}).items()}
    # Its cache of listings would show what was there before.
    fs = fsspec.filesystem(kind, use_listings_cache=False, skip_instance_cache=True, **settings)
    if kind == "s3":
        fs.retries = 1
    return fs


def close_all() -> None:
    """Forgets the file systems, so that the next URL opens one with what the environment says then."""
    with _opening:
        _opened.clear()


def attempt(
    call: Callable[[], Value], url: str, wait: Callable[[float], None] = time.sleep, attempts: int = ATTEMPTS
) -> Value:
    """Calls a function of fsspec, again and again while what goes wrong may pass.

    Args:
        call: what to do; done once or several times it must come to the same.
        url: for the log.
        wait: sleeps so many seconds (for tests).
        attempts: how often to try.

    Raises:
        CloudError: it failed for good, or `attempts` times.
    """
    from random import uniform

    for number in range(1, attempts + 1):
        try:
            return call()
        except Exception as error:
            problem = explain(error)
            if problem is None:
                raise
            if number == attempts or not passes(error):
                raise problem from error
            # By chance sooner or later, so that many who failed together do not come back together.
            seconds = _FIRST_WAIT * 2 ** (number - 1) * uniform(0.5, 1)  # noqa: S311
            log.info("%s: %s; again in %.1f s", one_line(url), problem.message, seconds)
            wait(seconds)
    raise AssertionError("unreachable")


def passes(error: BaseException) -> bool:
    """Whether a failure may be gone when the request is made again."""
    code = _code(error)
    if code is not None:
        return code in _PASSING
    if isinstance(error, (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError)):
        return False
    names = _names(error)
    return not names & _HOPELESS and (isinstance(error, (OSError, TimeoutError)) or bool(names & _OF_PACKAGES))


def explain(error: BaseException) -> CloudError | None:
    """Says in a line what a failure of fsspec or of the packages behind it means; None for what is a bug of ours."""
    names, code = _names(error), _code(error)
    text = " ".join(one_line(str(error).replace("\n", " ")).split()) or type(error).__name__
    if names & _WITHOUT_CREDENTIALS:
        return CloudError(
            "denied",
            "no usable credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE (for gs:// "
            "GOOGLE_APPLICATION_CREDENTIALS), or, for what is public, FSSPEC_S3_ANON=true",
        )
    if code == "NoSuchBucket" or (isinstance(error, FileNotFoundError) and "bucket does not exist" in text.lower()):
        return NoBucket()
    if isinstance(error, FileNotFoundError) or code in ("NoSuchKey", "404", "410") or "InvalidURL" in names:
        return CloudError("missing", "no such object")
    if isinstance(error, UnicodeEncodeError):
        return CloudError("missing", "no object can have this name: it is not UTF-8")
    if "ParamValidationError" in names:
        return CloudError("missing", "no bucket or object can have this name")
    if code in _ELSEWHERE:
        return CloudError("unreadable", f"the bucket is in another region ({text}): set AWS_DEFAULT_REGION")
    if isinstance(error, PermissionError) or code in _DENIED:
        return CloudError("denied", f"access is denied ({text}): check the credentials and what they may do")
    if names & _UNREACHABLE:
        hint = "" if "ClientConnectorError" in names else "; is AWS_ENDPOINT_URL right?"
        return CloudError("unreadable", f"the server cannot be reached ({text}){hint}")
    if isinstance(error, (OSError, TimeoutError)) or names & _OF_PACKAGES:
        return CloudError("unreadable", text)
    return None


def _names(error: BaseException) -> set[str]:
    """Names of an error's classes: those of packages that may not be installed cannot be imported to compare."""
    return {kind.__name__ for kind in type(error).__mro__}


def _code(error: BaseException) -> str | None:
    """The code that an S3 or HTTP server gave, of an error or of what it was made from."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        # Other errors have numbers too that no server gave: that of an answer which broke off says "bad request".
        for kind, name in (("ClientResponseError", "status"), ("HttpError", "code")):  # of aiohttp; of gcsfs
            if one is not None and kind in _names(one) and getattr(one, name, None) is not None:
                return str(getattr(one, name))
    return None


@contextmanager
def image_errors() -> Iterator[None]:
    """A context in which a `CloudError` is an `ImageError`, and so is whatever else a package may raise for one object.

    What is wrong with the whole run, such as a package that is missing, stays as it is.
    """
    try:
        yield
    except (ImageError, XcliError):
        raise
    except CloudError as error:
        raise as_image_error(error) from error
    except MemoryError as error:
        raise ImageError("too-large", "not enough memory to read it") from error
    except Exception as error:
        raise ImageError("unreadable", f"{type(error).__name__}: {' '.join(one_line(str(error)).split())}") from error


def as_image_error(error: CloudError) -> ImageError:
    """What a `CloudError` means for an image."""
    return ImageError("missing" if error.reason == "missing" else "unreadable", error.message)
