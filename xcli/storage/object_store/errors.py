"""Errors of object stores: what the errors of fsspec and the packages behind it mean, and which ones to retry."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from xcli.core.errors import ImageError, XcliError
from xcli.core.levels import DETAIL
from xcli.core.public_urls import public_url, without_secrets
from xcli.core.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Value = TypeVar("Value")

log = logging.getLogger("xcli")

ATTEMPTS = 6  # in all; the last attempt starts some 15 seconds after the first
_FIRST_WAIT = 0.5  # seconds before the second attempt; doubled with each further one

# Codes of S3 and of HTTP.
_DENIED = frozenset(
    "AccessDenied AllAccessDisabled Forbidden InvalidAccessKeyId InvalidToken ExpiredToken SignatureDoesNotMatch "
    "RequestTimeTooSkewed 401 403".split()
)
_TRANSIENT = frozenset(
    "SlowDown InternalError ServiceUnavailable RequestTimeout Throttling ThrottlingException TooManyRequests "
    "408 429 500 502 503 504".split()
)
_OTHER_REGION = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "301"})

# Classes of packages that are optional, so they are looked up among the modules that are imported.
_NO_CREDENTIALS = (
    "botocore.exceptions.NoCredentialsError",
    "botocore.exceptions.PartialCredentialsError",
    "botocore.exceptions.ProfileNotFound",
    "botocore.exceptions.CredentialRetrievalError",
    "google.auth.exceptions.DefaultCredentialsError",
)
_BAD_NAME = ("botocore.exceptions.ParamValidationError",)
_BAD_URL = ("aiohttp.client_exceptions.InvalidURL", "http.client.InvalidURL")
_REFUSED = ("gcsfs.retry.NonRetryableError",)
_NO_SERVER = ("aiohttp.client_exceptions.ClientConnectorError",)
_NO_ENDPOINT = ("botocore.exceptions.EndpointConnectionError", "botocore.exceptions.ConnectTimeoutError")
_CLIENT_ERRORS = (
    "botocore.exceptions.BotoCoreError",
    "botocore.exceptions.ClientError",
    "botocore.parsers.ResponseParserError",
    "aiohttp.client_exceptions.ClientError",
    "urllib3.exceptions.HTTPError",
    "google.auth.exceptions.GoogleAuthError",
    "gcsfs.retry.HttpError",
    "gcsfs.retry.ChecksumError",
    *_REFUSED,
)
# Classes with the HTTP status of an answer. Others may have numbers too, which no server sent.
_STATUS = (("aiohttp.client_exceptions.ClientResponseError", "status"), ("gcsfs.retry.HttpError", "code"))


class StoreError(Exception):
    """A request to an object store failed; `reason` is `missing`, `denied` or `unreadable`, `message` has no URL."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


class NoBucketError(StoreError):
    """The bucket does not exist, so nothing in it does."""

    def __init__(self) -> None:
        super().__init__("missing", "there is no such bucket")


def retry(
    call: Callable[[], Value], url: str, wait: Callable[[float], None] = time.sleep, attempts: int = ATTEMPTS
) -> Value:
    """Calls a function of fsspec up to `attempts` times, with growing delays, while its errors are transient.

    Raises:
        StoreError: the error is permanent, or the last attempt failed.
    """
    from random import uniform

    for number in range(1, attempts + 1):
        try:
            return call()
        except Exception as error:
            problem = explain(error)
            if problem is None:
                raise
            if number == attempts or not is_transient(error):
                raise problem from error
            # Random, so that many requests that failed together are not repeated together.
            seconds = _FIRST_WAIT * 2 ** (number - 1) * uniform(0.5, 1)  # noqa: S311
            log.log(DETAIL, "%s: %s; again in %.1f s", one_line(public_url(url)), problem.message, seconds)
            wait(seconds)
    raise AssertionError("unreachable")


def is_transient(error: BaseException) -> bool:
    """Says whether the same request may succeed later."""
    code = _code(error)
    if code is not None:
        return code in _TRANSIENT
    if isinstance(error, (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError)):
        return False
    return not _is_a(error, _NO_CREDENTIALS + _BAD_NAME + _BAD_URL + _REFUSED) and _is_external(error)


def explain(error: BaseException) -> StoreError | None:
    """Says what an error of fsspec or of the packages behind it means; returns None for bugs of this program."""
    code = _code(error)
    text = " ".join(one_line(without_secrets(str(error)).replace("\n", " ")).split()) or type(error).__name__
    if _is_a(error, _NO_CREDENTIALS):
        return StoreError(
            "denied",
            "no usable credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE (for gs:// "
            "GOOGLE_APPLICATION_CREDENTIALS), or, for public data, FSSPEC_S3_ANON=true",
        )
    if code == "NoSuchBucket" or (isinstance(error, FileNotFoundError) and "bucket does not exist" in text.lower()):
        return NoBucketError()
    if isinstance(error, FileNotFoundError) or code in ("NoSuchKey", "404", "410") or _is_a(error, _BAD_URL):
        return StoreError("missing", "no such object")
    # Python before 3.13 raises the plain class for a name that no server may have, such as a long one.
    if isinstance(error, UnicodeError) and not isinstance(error, UnicodeDecodeError):
        if isinstance(error, UnicodeEncodeError) and error.encoding == "utf-8":
            return StoreError("missing", "no object can have this name: it is not UTF-8")
        return StoreError("missing", "no server can have this name")
    if _is_a(error, _BAD_NAME):
        return StoreError("missing", "no bucket or object can have this name")
    if code in _OTHER_REGION:
        return StoreError("unreadable", f"the bucket is in another region ({text}): set AWS_DEFAULT_REGION")
    if isinstance(error, PermissionError) or code in _DENIED:
        return StoreError("denied", f"access is denied ({text}): check the credentials and their permissions")
    if _is_a(error, _NO_SERVER):
        return StoreError("unreadable", f"the server cannot be reached ({text})")
    if _is_a(error, _NO_ENDPOINT):
        return StoreError("unreadable", f"the server cannot be reached ({text}); is AWS_ENDPOINT_URL right?")
    return StoreError("unreadable", text) if _is_external(error) else None


def _is_external(error: BaseException) -> bool:
    """Says whether the cause is outside this program: the network, a server, or the system."""
    return isinstance(error, (OSError, TimeoutError)) or _is_a(error, _CLIENT_ERRORS)


def _is_a(error: BaseException | None, names: tuple[str, ...]) -> bool:
    """Says whether an error is of one of these classes; a class whose module is not imported has no instances."""
    parts = (name.rpartition(".") for name in names)
    return isinstance(error, tuple(getattr(sys.modules.get(module), name, ()) for module, _, name in parts))


def _code(error: BaseException) -> str | None:
    """Returns the code of S3 or HTTP in an error or in its cause, None if a server sent none."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        for kind, attribute in _STATUS:
            if _is_a(one, (kind,)) and getattr(one, attribute, None) is not None:
                return str(getattr(one, attribute))
    return None


@contextmanager
def image_errors() -> Iterator[None]:
    """A context in which all errors become an `ImageError`, except those of the whole run (`XcliError`)."""
    try:
        yield
    except (ImageError, XcliError):
        raise
    except StoreError as error:
        raise as_image_error(error) from error
    except MemoryError as error:
        raise ImageError("too-large", "not enough memory to read it") from error
    except Exception as error:
        text = " ".join(one_line(without_secrets(str(error))).split())
        raise ImageError("unreadable", f"{type(error).__name__}: {text}") from error


def as_image_error(error: StoreError) -> ImageError:
    """Returns the `ImageError` for an image that a store does not deliver."""
    return ImageError("missing" if error.reason == "missing" else "unreadable", error.message)
