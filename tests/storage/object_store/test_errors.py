"""What errors of stores mean, and when a request is repeated; no server is needed."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import pytest

from xcli.storage.object_store import errors
from xcli.storage.object_store.errors import StoreError, explain, is_transient, retry

aiohttp = pytest.importorskip("aiohttp")
botocore = pytest.importorskip("botocore.exceptions")
gcsfs = pytest.importorskip("gcsfs.retry")
google = pytest.importorskip("google.auth.exceptions")
urllib3 = pytest.importorskip("urllib3.exceptions")


class Answer(Exception):
    """What botocore raises, as far as it is looked at."""

    def __init__(self, code: str) -> None:
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}}


def web_error(status: int) -> Exception:
    info = aiohttp.RequestInfo("http://h", "GET", {}, "http://h")
    return aiohttp.ClientResponseError(info, (), status=status)  # type: ignore[no-any-return]


def gcs_error(code: int) -> Exception:
    return gcsfs.HttpError({"code": code, "message": f"code {code}"})  # type: ignore[no-any-return]


def caused(error: Exception, cause: Exception) -> Exception:
    """As s3fs raises what botocore did."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason", "text", "again"),
    [
        (
            caused(FileNotFoundError("The specified bucket does not exist"), Answer("NoSuchBucket")),
            "missing",
            "there is no such bucket",
            False,
        ),
        (
            caused(FileNotFoundError("The specified key does not exist."), Answer("NoSuchKey")),
            "missing",
            "no such object",
            False,
        ),
        (FileNotFoundError("https://h/a.jpg"), "missing", "no such object", False),
        (
            caused(PermissionError("Access Denied"), Answer("AccessDenied")),
            "denied",
            "access is denied (Access Denied): check the credentials",
            False,
        ),
        (caused(PermissionError("expired"), Answer("ExpiredToken")), "denied", "check the credentials", False),
        (botocore.NoCredentialsError(), "denied", "set AWS_ACCESS_KEY_ID", False),
        (caused(OSError(16, "Please reduce your request rate."), Answer("SlowDown")), "unreadable", "reduce", True),
        (caused(OSError(5, "?"), Answer("503")), "unreadable", "?", True),
        (caused(OSError(22, "?"), Answer("InvalidRequest")), "unreadable", "?", False),
        (caused(OSError(22, "wrong region"), Answer("301")), "unreadable", "set AWS_DEFAULT_REGION", False),
        (web_error(403), "denied", "access is denied", False),
        (gcs_error(404), "missing", "no such object", False),
        (gcs_error(503), "unreadable", "code 503", True),
        (botocore.EndpointConnectionError(endpoint_url="http://h"), "unreadable", "cannot be reached", True),
        (TimeoutError(), "unreadable", "TimeoutError", True),
        (ConnectionResetError("reset\nby peer"), "unreadable", "reset by peer", True),
        (ValueError("a bug"), None, "", False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value)[:20],
)
def test_what_failures_mean(error: Exception, reason: str | None, text: str, again: bool) -> None:
    problem = explain(error)
    assert (problem and problem.reason) == reason
    assert problem is None or (text in problem.message and "\n" not in problem.message)
    assert is_transient(error) is again


def test_failures_of_the_packages_are_known_by_their_classes() -> None:
    unreachable = explain(botocore.EndpointConnectionError(endpoint_url="http://127.0.0.1:1"))
    assert unreachable is not None
    assert "is AWS_ENDPOINT_URL right?" in unreachable.message
    for status, reason, again in ((403, "denied", False), (429, "unreadable", True), (500, "unreadable", True)):
        problem = explain(web_error(status))
        assert problem is not None
        assert (problem.reason, is_transient(web_error(status))) == (reason, again)


BUGS = {"MissingServiceIdError", "UndefinedModelAttributeError", "WSMessageTypeError", "ProxySchemeUnsupported"}
"""Errors that say that a program uses a package wrongly."""


def made(kind: type[BaseException]) -> BaseException:
    """An error of a class, whatever arguments that class takes."""
    more = {"__init__": lambda self: None, "__str__": lambda self: "text"}
    return type(kind.__name__, (kind,), more)()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "module", [botocore, aiohttp.client_exceptions, gcsfs, google, urllib3], ids=lambda one: one.__name__
)
def test_every_error_of_the_packages_is_explained(module: ModuleType) -> None:
    kinds = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, Exception)]
    own = [one for one in kinds if one.__module__ == module.__name__ and not issubclass(one, Warning)]
    assert own
    assert {one.__name__ for one in own if explain(made(one)) is None} <= BUGS


def test_every_class_that_is_mapped_exists() -> None:
    tables = [names for text, names in vars(errors).items() if text.startswith("_") and isinstance(names, tuple)]
    classes = [name[0] if isinstance(name, tuple) else name for names in tables for name in names]
    assert len(classes) > 15
    for module, _, name in (one.rpartition(".") for one in classes):
        assert issubclass(getattr(import_module(module), name), Exception)


def test_what_may_pass_is_tried_again_later_and_later() -> None:
    waits: list[float] = []
    failures = [ConnectionResetError("reset")] * 3

    def call() -> str:
        if failures:
            raise failures.pop()
        return "here"

    assert retry(call, "s3://b/k", waits.append) == "here"
    assert len(waits) == 3
    for number, wait in enumerate(waits):
        assert 0.25 * 2**number <= wait <= 0.5 * 2**number


def test_what_does_not_pass_is_given_up_in_the_end() -> None:
    waits: list[float] = []

    def call() -> None:
        raise ConnectionResetError("reset")

    with pytest.raises(StoreError, match="reset"):
        retry(call, "s3://b/k", waits.append)
    assert len(waits) == errors.ATTEMPTS - 1
    with pytest.raises(StoreError, match="reset"):
        retry(call, "s3://b/k", waits.append, attempts=1)
    assert len(waits) == errors.ATTEMPTS - 1


@pytest.mark.parametrize(("error", "raised"), [(FileNotFoundError("k"), StoreError), (ZeroDivisionError(), None)])
def test_what_will_not_pass_is_not_tried_again(error: Exception, raised: type[Exception] | None) -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        raise error

    with pytest.raises(raised or type(error)):
        retry(call, "s3://b/k", lambda seconds: pytest.fail("it waited"))
    assert len(calls) == 1
