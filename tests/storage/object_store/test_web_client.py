"""What web servers the program connects to: public ones; others are allowed by an option."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

from tests.objectstore import forget
from xcli.core.errors import ImageError
from xcli.sources.listing import list_images
from xcli.sources.locations import RemoteObject
from xcli.sources.options import SourceOptions
from xcli.storage.object_store import web_client
from xcli.storage.object_store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")


class _Handler(BaseHTTPRequestHandler):
    seen: list[tuple[str, str | None]]

    def log_message(self, *arguments: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization")))
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", unquote(self.path.removeprefix("/to/")))
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            refused = self.path.startswith("/403")
            self.send_response(403 if refused else 200)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"secret")


@pytest.fixture
def local() -> Iterator[ThreadingHTTPServer]:
    """A server on this machine, which nothing declares to be public."""
    handler = type("Handler", (_Handler,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    forget()
    web_client.allow_private_hosts(False)
    yield server
    web_client.allow_private_hosts(False)
    forget()
    server.shutdown()
    server.server_close()


def _seen(server: ThreadingHTTPServer) -> list[tuple[str, str | None]]:
    return server.RequestHandlerClass.seen  # type: ignore[no-any-return, attr-defined]


@pytest.mark.parametrize(
    "host",
    """127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 ::1 :: fe80::1 fe80::1%2
    fd00:ec2::254 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1 ::127.0.0.1""".split(),
)
def test_addresses_that_are_not_public(host: str) -> None:
    assert not web_client.is_public(host)


@pytest.mark.parametrize("host", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses(host: str) -> None:
    assert web_client.is_public(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST.", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]"])
def test_a_private_host_is_not_asked(local: ThreadingHTTPServer, host: str) -> None:
    with pytest.raises(ImageError) as caught:
        RemoteObject(f"http://{host}:{local.server_port}/a.jpg").read(100)
    assert caught.value.reason in ("unreadable", "missing")
    assert not _seen(local)


def test_a_private_host_is_asked_if_that_is_allowed_and_only_for_that_listing(local: ThreadingHTTPServer) -> None:
    url = f"http://127.0.0.1:{local.server_port}/a.jpg"
    (ref,) = list_images(SourceOptions((url,), missing_ok=True, allow_private_hosts=True))
    assert ref.location.read(100) == b"secret"
    forget()
    (ref,) = list_images(SourceOptions((url,), missing_ok=True))
    with pytest.raises(ImageError, match=r"127\.0\.0\.1 is not a public address; --allow-private-hosts allows"):
        ref.location.read(100)


def test_a_redirect_does_not_lead_to_a_private_host(
    local: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_client, "is_public", lambda address: address == "127.0.0.1")
    address = f"http://127.0.0.1:{local.server_port}/to/"
    for target in ("http://169.254.169.254/latest/meta-data", f"http://[::1]:{local.server_port}/b"):
        with pytest.raises(ImageError, match="is not a public address"):
            RemoteObject(address + target).read(100)
    assert RemoteObject(f"{address}/b").read(100) == b"secret"
    assert [path for path, _ in _seen(local)][-2:] == ["/to//b", "/b"]


@pytest.mark.parametrize("new", ["http://h/b?Signature=B", "ftp://h/b"])
def test_no_redirect_from_https_to_another_scheme(new: str) -> None:
    import asyncio
    from types import SimpleNamespace

    import yarl

    async def follow() -> None:
        async with await web_client.new_client() as session:
            (trace,) = session.trace_configs
            answer = SimpleNamespace(headers={"Location": new}, url=yarl.URL("https://h/a"))
            for call in trace.on_request_redirect:
                await call(session, None, SimpleNamespace(response=answer))

    with pytest.raises(StoreError, match=f"redirects from https to {new.partition('?')[0]}$"):
        asyncio.run(follow())


def test_credentials_go_to_the_server_and_nowhere_else(
    local: ThreadingHTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    secret = f"http://anna:pa55@127.0.0.1:{local.server_port}/403.jpg?w=2&X-Amz-Signature=abc"
    options = SourceOptions((secret,), missing_ok=True, allow_private_hosts=True)
    (ref,) = list_images(options)
    assert ref.path == f"http://127.0.0.1:{local.server_port}/403.jpg?w=2"
    with caplog.at_level("DEBUG", "xcli"), pytest.raises(ImageError) as caught:
        ref.location.read(100)
    assert _seen(local) == [("/403.jpg?w=2&X-Amz-Signature=abc", "Basic YW5uYTpwYTU1")]
    assert "denied" in caught.value.message
    for text in (caught.value.message, caplog.text, str(options.as_dict())):
        assert "pa55" not in text
        assert "abc" not in text
