"""URLs, retries and what failures mean; no server is needed for them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from xcli.core.errors import UsageError
from xcli.storage import urls as cloud
from xcli.storage.urls import CloudError, attempt, explain, is_url, open_place, passes, scheme_of


@pytest.mark.parametrize("url", ["s3://b/a.jpg", "S3://b", "gs://b/x/", "gcs://b/x", "http://h/x", "https://h/x.jpg"])
def test_urls(url: str) -> None:
    assert is_url(url)


@pytest.mark.parametrize(
    "path", ["", "-", "a.jpg", "s3:/b/a.jpg", "/data/s3://b", "file:///a.jpg", "ftp://h/x", "C://a", "s3", "://b"]
)
def test_paths_of_this_machine(path: str) -> None:
    assert not is_url(path)


def test_kinds_of_stores() -> None:
    assert [scheme_of(f"{name}://b/k") for name in ("s3", "S3", "gs", "gcs", "http", "https")] == [
        "s3",
        "s3",
        "gs",
        "gs",
        "http",
        "http",
    ]


@pytest.mark.parametrize(("url", "what"), [("s3://", "bucket"), ("s3:///", "bucket"), ("https://", "host")])
def test_a_url_of_nothing_is_refused(url: str, what: str) -> None:
    with pytest.raises(UsageError, match=f"names no {what}"):
        open_place(url)


def test_without_the_extra_a_url_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['fsspec'] = None\n"
        "from xcli.core.errors import UsageError\n"
        "from xcli.sources.listing import SourceOptions, list_images\n"
        "try: list_images(SourceOptions(('s3://b/photos/',)))\n"
        "except UsageError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == (
        "'s3://b/photos/' needs the packages for object stores; install them with: pip install s3fs gcsfs\n"
    )


def test_listing_without_urls_imports_no_package_for_stores(tmp_path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    code = (
        "import sys\n"
        "from xcli.sources.listing import SourceOptions, list_images\n"
        "assert len(list(list_images(SourceOptions((sys.argv[1],))))) == 1\n"
        "print(sorted({'fsspec', 's3fs', 'aiohttp', 'botocore', 'numpy', 'PIL'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


class Answer(Exception):
    """What botocore raises, as far as it is looked at."""

    def __init__(self, code: str) -> None:
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}}


class NoCredentialsError(Exception):
    """Like botocore's."""


class ClientResponseError(Exception):
    """Like aiohttp's."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status}, message='...'")
        self.status = status


class HttpError(Exception):
    """Like gcsfs's."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class EndpointConnectionError(Exception):
    """Like botocore's."""


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
        (NoCredentialsError("Unable to locate credentials"), "denied", "set AWS_ACCESS_KEY_ID", False),
        (caused(OSError(16, "Please reduce your request rate."), Answer("SlowDown")), "unreadable", "reduce", True),
        (caused(OSError(5, "?"), Answer("503")), "unreadable", "?", True),
        (caused(OSError(22, "?"), Answer("InvalidRequest")), "unreadable", "?", False),
        (caused(OSError(22, "wrong region"), Answer("301")), "unreadable", "set AWS_DEFAULT_REGION", False),
        (ClientResponseError(403), "denied", "access is denied", False),
        (HttpError(404), "missing", "no such object", False),
        (HttpError(503), "unreadable", "code 503", True),
        (EndpointConnectionError("nothing at http://h"), "unreadable", "cannot be reached", False),
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
    assert passes(error) is again


def test_failures_of_the_packages_are_known_by_their_classes() -> None:
    real = pytest.importorskip("botocore.exceptions")
    aiohttp = pytest.importorskip("aiohttp")
    unreachable = explain(real.EndpointConnectionError(endpoint_url="http://127.0.0.1:1"))
    assert unreachable is not None
    assert unreachable.reason == "unreadable"
    assert "is AWS_ENDPOINT_URL right?" in unreachable.message
    assert passes(real.EndpointConnectionError(endpoint_url="http://127.0.0.1:1"))
    nobody = explain(real.NoCredentialsError())
    assert nobody is not None
    assert nobody.reason == "denied"
    assert not passes(real.NoCredentialsError())
    info = aiohttp.RequestInfo("http://h", "GET", {}, "http://h")
    for status, reason, again in ((403, "denied", False), (429, "unreadable", True), (500, "unreadable", True)):
        error = aiohttp.ClientResponseError(info, (), status=status)
        problem = explain(error)
        assert problem is not None
        assert (problem.reason, passes(error)) == (reason, again)


def test_what_may_pass_is_tried_again_later_and_later() -> None:
    waits: list[float] = []
    failures = [ConnectionResetError("reset")] * 3

    def call() -> str:
        if failures:
            raise failures.pop()
        return "here"

    assert attempt(call, "s3://b/k", waits.append) == "here"
    assert len(waits) == 3
    for number, wait in enumerate(waits):
        assert 0.25 * 2**number <= wait <= 0.5 * 2**number


def test_what_does_not_pass_is_given_up_in_the_end() -> None:
    waits: list[float] = []

    def call() -> None:
        raise ConnectionResetError("reset")

    with pytest.raises(CloudError, match="reset"):
        attempt(call, "s3://b/k", waits.append)
    assert len(waits) == cloud.ATTEMPTS - 1
    with pytest.raises(CloudError, match="reset"):
        attempt(call, "s3://b/k", waits.append, attempts=1)
    assert len(waits) == cloud.ATTEMPTS - 1


@pytest.mark.parametrize(("error", "raised"), [(FileNotFoundError("k"), CloudError), (ZeroDivisionError(), None)])
def test_what_will_not_pass_is_not_tried_again(error: Exception, raised: type[Exception] | None) -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        raise error

    with pytest.raises(raised or type(error)):
        attempt(call, "s3://b/k", lambda seconds: pytest.fail("it waited"))
    assert len(calls) == 1
