"""Reading from stores: a server of S3 and a web server, both on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from tests.objectstore import ObjectStore, WebServer, forget
from xcli.core.errors import ImageError, SourceError
from xcli.sources.listing import list_images
from xcli.sources.locations import RemoteObject
from xcli.sources.options import SourceOptions
from xcli.storage import urls
from xcli.storage.object_store import errors, open_store
from xcli.storage.object_store.errors import StoreError
from xcli.storage.object_store.state import ByteRange


def test_listing_head_and_get_agree(s3: ObjectStore) -> None:
    prefix = s3.prefix()
    url = s3.put(f"{prefix}/a.jpg", b"photograph")
    (found,) = [found for page in open_store(s3.url(f"{prefix}/")).pages() for found in page]
    assert found.name == "a.jpg"
    content = open_store(url).get(100)
    assert content.data == b"photograph"
    assert (
        found.state
        == open_store(url).state()
        == content.state
        == RemoteObject(url).state()
        == open_store(url).get(100, ByteRange(2, 3)).state
    )
    assert found.state is not None
    assert found.state.size == 10
    s3.put(f"{prefix}/a.jpg", b"photoGraph")
    assert open_store(url).state() != found.state


def test_a_part_of_an_object(s3: ObjectStore, web: WebServer) -> None:
    web.files["/a"] = bytes(range(100))
    for url in (s3.put(f"{s3.prefix()}/a", bytes(range(100))), f"{web.address}/a"):
        content = open_store(url).get(5, ByteRange(20, 5))
        assert content == (bytes(range(20, 25)), open_store(url).state(), False)
    web.ranges = False
    store = open_store(f"{web.address}/a")
    assert store.get(100, ByteRange(20, 5)) == (bytes(range(100)), store.state(), True)


def test_an_object_is_read_with_one_request(s3: ObjectStore, web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    web.files["/a"] = b"here"
    assert RemoteObject(f"{web.address}/a").read(10) == b"here"
    assert web.seen == [("GET", "/a", None)]
    url = s3.put(f"{s3.prefix()}/a", b"here")
    fs = urls.open_url(url).fs
    calls, call = [], fs._call_s3

    async def count(method: str, *given: Any, **more: Any) -> Any:
        calls.append(method)
        return await call(method, *given, **more)

    monkeypatch.setattr(fs, "_call_s3", count)
    assert RemoteObject(url).read(10) == b"here"
    assert calls == ["get_object"]


def test_a_large_object_is_refused_unread(s3: ObjectStore, web: WebServer) -> None:
    web.files["/a"] = bytes(1000)
    for url in (s3.put(f"{s3.prefix()}/a", bytes(1000)), f"{web.address}/a"):
        for location in (RemoteObject(url), RemoteObject(url, open_store(url).state())):
            with pytest.raises(ImageError, match="too-large: an object of 1,000 bytes; the limit is 999"):
                location.read(999)
            assert len(location.read(1000)) == 1000


@pytest.mark.parametrize(
    ("key", "reason", "text"),
    [("gone.jpg", "missing", "no such object"), ("empty.jpg", "empty", "the object has zero bytes")],
)
def test_what_is_wrong_with_an_object(s3: ObjectStore, web: WebServer, key: str, reason: str, text: str) -> None:
    web.files["/empty.jpg"] = b""
    s3.put("empty.jpg", b"")
    for url in (s3.url(key), f"{web.address}/{key}"):
        with pytest.raises(ImageError) as caught:
            RemoteObject(url).read(100)
        assert (caught.value.reason, caught.value.message) == (reason, text)


def test_the_bucket_of_an_object_may_be_missing(s3: ObjectStore) -> None:
    with pytest.raises(ImageError, match="missing: there is no such bucket"):
        RemoteObject("s3://no-such-bucket/a.jpg").read(100)
    assert RemoteObject("s3://no-such-bucket/a.jpg").state() is None


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://photographs/latin-\udce9.jpg", "missing"),
        ("s3://B@D/a.jpg", "missing"),
        ("s3://photographs", "missing"),
        (f"s3://photographs/{'k' * 2000}", "missing"),
        ("http://[::1/a.jpg", "missing"),
        ("http://127.0.0.1:99999/a.jpg", "missing"),
        ("http://127.0.0.1:9/a.jpg", "unreadable"),
        ("http://\udce9/a.jpg", "missing"),
        ("http://127.0.0.1:9\n/a.jpg", "unreadable"),
        (f"http://{'a' * 300}/a.jpg", "missing"),
    ],
)
def test_urls_that_lead_nowhere(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch, url: str, reason: str) -> None:
    monkeypatch.setattr(errors, "_FIRST_WAIT", 0.001)
    with pytest.raises(ImageError) as caught:
        RemoteObject(url).read(100)
    assert caught.value.reason == reason, caught.value
    assert "\n" not in caught.value.message


def test_a_busy_web_server_is_asked_again(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_FIRST_WAIT", 0.01)
    web.files["/a"] = b"here"
    web.failures = 2
    assert RemoteObject(f"{web.address}/a").read(10) == b"here"
    assert len(web.seen) == 3
    web.failures = 100
    with pytest.raises(ImageError, match="unreadable: 503, message='Service Unavailable'"):
        RemoteObject(f"{web.address}/a").read(10)
    assert len(web.seen) == 3 + errors.ATTEMPTS


class _Scripted(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answers: list[tuple[int, bytes, int]]

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        status, body, announced = self.answers.pop(0)
        self.send_response(status)
        self.send_header("Content-Length", str(announced))
        self.send_header("ETag", '"0"')
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = announced != len(body)


@pytest.fixture
def script(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Sets up a server of S3, and of the web, that gives these answers; its address without the scheme."""
    servers = []

    def begin(*answers: tuple[int, bytes, int]) -> str:
        handler = type("Handler", (_Scripted,), {"answers": list(answers)})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append((server, handler))
        monkeypatch.setattr("xcli.storage.object_store.web_client.is_public", lambda address: True)
        monkeypatch.setattr(errors, "_FIRST_WAIT", 0.01)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        forget()
        return f"127.0.0.1:{server.server_port}"

    yield begin
    forget()
    for server, handler in servers:
        assert not handler.answers, "it was not asked as often as it should have been"  # type: ignore[attr-defined]
        server.shutdown()
        server.server_close()


def test_a_busy_s3_server_is_asked_again(script: Callable[..., str]) -> None:
    slow = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
    script((503, slow, len(slow)), (500, b"", 0), (200, b"here", 4))
    assert RemoteObject("s3://b/a.jpg").read(10) == b"here"


@pytest.mark.parametrize("kind", ["s3", "http"])
def test_bytes_that_break_off_are_asked_for_again(script: Callable[..., str], kind: str) -> None:
    address = script((200, b"he", 4), (200, b"her", 4), (200, b"here", 4))
    assert RemoteObject("s3://b/a.jpg" if kind == "s3" else f"http://{address}/a.jpg").read(10) == b"here"


def test_a_denied_object_says_what_to_do(script: Callable[..., str]) -> None:
    denied = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    script((403, denied, len(denied)))
    with pytest.raises(ImageError, match=r"unreadable: access is denied \(Access Denied\): check the credentials and"):
        RemoteObject("s3://b/a.jpg").read(10)


def test_a_bucket_that_may_not_be_listed_says_what_to_do(script: Callable[..., str]) -> None:
    denied = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    script((403, denied, len(denied)))
    with pytest.raises(SourceError, match=r"cannot list 's3://b/p/': access is denied \(Access Denied\): check"):
        list_images(SourceOptions(("s3://b/p/",)))


def test_web_servers_have_no_listing(web: WebServer) -> None:
    with pytest.raises(StoreError, match="web servers have no listing"):
        next(open_store(f"{web.address}/").pages())


def test_the_file_system_is_one_for_all_threads(s3: ObjectStore) -> None:
    found: list[Any] = []
    threads = [Thread(target=lambda: found.append(urls.open_url("s3://b/k").fs)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(fs) for fs in found}) == 1
    assert found[0].retries == 1
    assert urls.open_url("s3://b/k/").path == "b/k"
