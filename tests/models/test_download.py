"""Downloads from a real server on the loopback interface whose every answer is scripted and logged."""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import io
import logging
import os
import random
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from xcli.core.errors import ExitCode, WeightsError
from xcli.models import download
from xcli.models.download import fetch, mismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BODY = random.Random(7).randbytes(700_000)  # more than one chunk
SIZE, SHA256 = len(BODY), hashlib.sha256(BODY).hexdigest()
HALF = SIZE // 2
PATIENCE = 20.0  # seconds until a test that hangs is given up


@dataclass
class Request:
    """What one request asked for and was given."""

    path: str
    range: str | None
    sent: int = 0


@dataclass
class Server:
    """A running server; `script` holds the answers still to be given, of which the last is repeated."""

    url: str
    script: list[Callable[[Any, Request], None]] = field(default_factory=list)
    log: list[Request] = field(default_factory=list)
    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    open_gate: threading.Event = field(default_factory=threading.Event)

    def await_request(self) -> None:
        assert self.asked.acquire(timeout=PATIENCE), "no request came"

    @property
    def ranges(self) -> list[str | None]:
        return [request.range for request in self.log]


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Runs a server on a free loopback port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            request = Request(self.path, self.headers.get("Range"))
            server.log.append(request)
            answer = server.script.pop(0) if len(server.script) > 1 else server.script[0]
            self.gate = server.open_gate
            server.asked.release()
            with contextlib.suppress(ConnectionError):
                answer(self, request)
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    server = Server(f"http://127.0.0.1:{httpd.server_address[1]}/file.h5")
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.open_gate.set()
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def give(
    body: bytes = BODY,
    *,
    cut: int | None = None,
    reset: bool = False,
    stall: bool = False,
    ranges: bool = True,
    chunked: bool = False,
    content_range: str | None = None,
) -> Callable[[Any, Request], None]:
    """An answer of 200, or of 206 where a range was asked for and `ranges` are served.

    Args:
        body: the whole file as the server has it.
        cut: break the connection after this many bytes of the answer's body.
        reset: break it with RST instead of FIN.
        stall: once `cut` bytes went out, wait for the gate before the rest follows.
        chunked: announce no length.
        content_range: sent instead of the true one.
    """

    def answer(handler: Any, request: Request) -> None:
        start = int(request.range.removeprefix("bytes=").rstrip("-")) if request.range and ranges else 0
        part = body[start:]
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", content_range or f"bytes {start}-{len(body) - 1}/{len(body)}")
        if chunked:
            handler.send_header("Transfer-Encoding", "chunked")
        else:
            handler.send_header("Content-Length", str(len(part)))
        handler.end_headers()
        for piece in (part[:cut], part[cut:] if stall and cut is not None else b""):
            if piece:
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
                request.sent += len(piece)
            if stall:
                handler.gate.wait(PATIENCE)
        if chunked and cut is None:
            handler.wfile.write(b"0\r\n\r\n")
        if reset:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return answer


def say(status: int, **headers: str) -> Callable[[Any, Request], None]:
    """An answer without a body."""

    def answer(handler: Any, request: Request) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "file.h5"


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the download would have slept between tries."""
    taken: list[float] = []
    monkeypatch.setattr(download, "time", SimpleNamespace(sleep=taken.append, time=time.time))
    return taken


def get(server: Server, target: Path, **options: Any) -> Path:
    return fetch(server.url, target, **{"size": SIZE, "sha256": SHA256, "backoff": 0.001, "timeout": 5.0} | options)


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def put_part(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part_of(target).write_bytes(content)


def start_process(server: Server, target: Path) -> subprocess.Popen[str]:
    """Fetches in a process of its own that logs to its standard error."""
    code = (
        "import logging, signal, sys; logging.basicConfig(level='INFO'); from pathlib import Path; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # ignored where tests run in the background
        "from xcli.models.download import fetch; "
        "fetch(sys.argv[1], Path(sys.argv[2]), size=int(sys.argv[3]), sha256=sys.argv[4], backoff=0.01)"
    )
    command = [sys.executable, "-c", code, server.url, str(target), str(SIZE), SHA256]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def test_good_file(server: Server, target: Path, capfd: pytest.CaptureFixture[str]) -> None:
    server.script = [give()]
    assert get(server, target) == target
    assert target.read_bytes() == BODY
    assert not part_of(target).exists()
    assert server.ranges == [None]
    assert capfd.readouterr() == ("", "")


def test_file_that_is_there_is_not_asked_for(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(BODY)
    assert get(server, target) == target
    assert server.log == []
    assert list(target.parent.iterdir()) == [target]  # nothing is written: the directory may be a read-only one


@pytest.mark.parametrize("bad", [BODY[:-1], BODY[:-1] + b"?"], ids=["size", "digest"])
def test_bad_file_that_is_there_is_replaced(server: Server, target: Path, bad: bytes) -> None:
    server.script = [give()]
    target.parent.mkdir()
    target.write_bytes(bad)
    get(server, target)
    assert target.read_bytes() == BODY


def test_progress_bar(server: Server, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_part(target, BODY[:HALF])
    server.script = [give()]
    get(server, target, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.lstrip("\r").startswith("file.h5:  50%")
    assert "file.h5: 100%" in err
    assert "700k/700k" in err


def test_wrong_digest(server: Server, target: Path) -> None:
    wrong = bytes(SIZE)
    server.script = [give(wrong)]
    with pytest.raises(WeightsError) as caught:
        get(server, target)
    assert caught.value.exit_code == ExitCode.MODEL
    for named in (server.url, SHA256, hashlib.sha256(wrong).hexdigest()):
        assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert server.ranges == [None]
    assert not target.exists()
    assert not part_of(target).exists()


@pytest.mark.parametrize("chunked", [False, True])
def test_cut_connection_is_resumed(server: Server, target: Path, chunked: bool) -> None:
    server.script = [give(cut=HALF, chunked=chunked), give(chunked=chunked)]
    get(server, target)
    assert target.read_bytes() == BODY
    assert server.ranges == [None, f"bytes={HALF}-"]
    assert [request.sent for request in server.log] == [HALF, SIZE - HALF]


def test_reset_connection_is_resumed(server: Server, target: Path) -> None:
    server.script = [give(cut=HALF, reset=True), give()]
    get(server, target)
    assert target.read_bytes() == BODY
    assert len(server.log) == 2


def test_stalled_connection_is_resumed(server: Server, target: Path) -> None:
    server.script = [give(cut=HALF, stall=True), give()]
    get(server, target, timeout=0.5)
    assert target.read_bytes() == BODY
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_progress_resets_the_count_of_tries(server: Server, target: Path, naps: list[float]) -> None:
    tenth = SIZE // 10
    server.script = [give(cut=tenth), say(503), give(cut=tenth), say(503), give(cut=tenth), say(503), give()]
    get(server, target, attempts=2, backoff=1.0)
    assert target.read_bytes() == BODY
    assert server.ranges[-1] == f"bytes={3 * tenth}-"
    assert naps == [1.0] * 6


def test_a_server_that_always_begins_anew_and_breaks_off_is_given_up(server: Server, target: Path) -> None:
    server.script = [give(cut=HALF, ranges=False)]
    with pytest.raises(WeightsError, match="brought nothing new"):
        get(server, target, attempts=3)
    assert server.ranges == [None] + [f"bytes={HALF}-"] * 3
    assert part_of(target).stat().st_size == HALF


def test_server_that_ignores_ranges(server: Server, target: Path) -> None:
    server.script = [give(cut=HALF), give(ranges=False)]
    get(server, target)
    assert target.read_bytes() == BODY
    assert [request.sent for request in server.log] == [HALF, SIZE]


@pytest.mark.parametrize(
    "answer", [say(416), give(content_range=f"bytes 0-{SIZE - 1}/{SIZE}"), give(content_range="x")]
)
def test_server_that_cannot_continue(server: Server, target: Path, answer: Callable[[Any, Request], None]) -> None:
    put_part(target, BODY[:HALF])
    server.script = [answer, give()]
    get(server, target, attempts=1)
    assert target.read_bytes() == BODY
    assert server.ranges == [f"bytes={HALF}-", None]


def test_part_of_an_earlier_run_is_continued(server: Server, target: Path) -> None:
    put_part(target, BODY[:HALF])
    server.script = [give()]
    get(server, target)
    assert target.read_bytes() == BODY
    assert server.ranges == [f"bytes={HALF}-"]


def test_whole_part_of_an_earlier_run_needs_no_request(server: Server, target: Path) -> None:
    put_part(target, BODY)
    get(server, target)
    assert target.read_bytes() == BODY
    assert server.log == []


@pytest.mark.parametrize(
    ("part", "ranges"),
    [
        (bytes(HALF), [f"bytes={HALF}-", None]),  # a bad beginning
        (bytes(SIZE), [None]),  # as long as the file, yet another
        (bytes(SIZE + 1), [None]),  # longer than the file
    ],
)
def test_bad_part_of_an_earlier_run(server: Server, target: Path, part: bytes, ranges: list[str | None]) -> None:
    put_part(target, part)
    server.script = [give()]
    get(server, target)
    assert target.read_bytes() == BODY
    assert server.ranges == ranges


def test_beginning_anew_is_tried_once(server: Server, target: Path) -> None:
    put_part(target, bytes(HALF))
    server.script = [give(bytes(SIZE)), give(bytes(SIZE), cut=HALF), give(bytes(SIZE))]
    with pytest.raises(WeightsError, match=SHA256):
        get(server, target)
    assert server.ranges == [f"bytes={HALF}-", None, f"bytes={HALF}-"]
    assert not part_of(target).exists()


@pytest.mark.parametrize("status", [401, 403, 404, 407, 410, 416])
def test_refusals_are_final(server: Server, target: Path, status: int) -> None:
    server.script = [say(status)]
    with pytest.raises(WeightsError, match=f"{server.url} answers HTTP {status} .+: .*(check|use)"):
        get(server, target)
    assert len(server.log) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_passing_troubles_are_retried(server: Server, target: Path, status: int, naps: list[float]) -> None:
    server.script = [say(status), say(status), give()]
    get(server, target, backoff=2.0)
    assert target.read_bytes() == BODY
    assert naps == [2.0, 4.0]


def test_troubles_that_stay_are_final(server: Server, target: Path, naps: list[float]) -> None:
    server.script = [say(503)]
    with pytest.raises(WeightsError, match=r"HTTP 503 Service Unavailable \(4 tries"):
        get(server, target, backoff=1.0)
    assert len(server.log) == 4
    assert naps == [1.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("7", 7, 7),
        ("86400", 60, 60),
        ("9" * 400, 60, 60),
        ("0", 1, 1),
        ("-5", 1, 1),
        ("soon", 1, 1),
        (lambda: email.utils.formatdate(time.time() + 30, usegmt=True), 20, 30),
        (lambda: email.utils.formatdate(time.time() + 3000, usegmt=True), 60, 60),
        (lambda: email.utils.formatdate(time.time() - 30, usegmt=True), 1, 1),
    ],
)
def test_retry_after(
    server: Server, target: Path, naps: list[float], value: str | Callable[[], str], least: float, most: float
) -> None:
    server.script = [say(503, Retry_After=value if isinstance(value, str) else value()), give()]
    get(server, target, backoff=1.0)
    assert len(naps) == 1
    assert least <= naps[0] <= most


@pytest.mark.parametrize("held", [0, HALF])
def test_longer_body_than_expected_is_refused_unread(server: Server, target: Path, held: int) -> None:
    put_part(target, BODY[:held])
    server.script = [give(BODY + b"more")]
    with pytest.raises(WeightsError, match=r"announces 700,004 bytes of .* where 700,000 are expected"):
        get(server, target)
    assert len(server.log) == 1
    assert part_of(target).read_bytes() == BODY[:held]  # good bytes are kept, nothing is added


def test_longer_body_of_unannounced_length(server: Server, target: Path) -> None:
    server.script = [give(BODY + b"more", chunked=True)]
    with pytest.raises(WeightsError, match="more than the 700,000 bytes expected"):
        get(server, target)
    assert len(server.log) == 1
    assert list(target.parent.glob("file.h5*")) == [target.with_name("file.h5.lock")]


def test_page_of_a_portal_leaves_the_part_alone(server: Server, target: Path) -> None:
    put_part(target, BODY[:HALF])
    server.script = [give(b"<html>Please log in", ranges=False)]
    with pytest.raises(WeightsError, match="announces 19 bytes"):
        get(server, target)
    assert part_of(target).read_bytes() == BODY[:HALF]


def test_two_processes_download_once(server: Server, target: Path) -> None:
    server.script = [give(cut=HALF, stall=True)]
    with start_process(server, target) as first:
        server.await_request()
        with start_process(server, target) as second:
            assert second.stderr is not None
            line = second.stderr.readline()
            assert "waiting for another process to finish downloading" in line
            server.open_gate.set()
            assert second.wait(PATIENCE) == 0
        assert first.wait(PATIENCE) == 0
    assert target.read_bytes() == BODY
    assert server.ranges == [None]


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_killed_process_is_continued_by_the_next(server: Server, target: Path, kill: signal.Signals) -> None:
    server.script = [give(cut=HALF, stall=True), give()]
    with start_process(server, target) as killed:
        wait_until(lambda: part_of(target).exists() and part_of(target).stat().st_size == HALF)
        killed.send_signal(kill)
        assert killed.wait(PATIENCE) == -kill
    assert target.with_name("file.h5.lock").exists()  # left behind, yet it must not block
    server.open_gate.set()
    get(server, target)
    assert target.read_bytes() == BODY
    assert server.ranges == [None, f"bytes={HALF}-"]
    assert server.log[1].sent == SIZE - HALF


def test_redirect_is_followed_with_its_range(server: Server, target: Path) -> None:
    put_part(target, BODY[:HALF])
    server.script = [say(302, Location="/elsewhere"), give()]
    get(server, target)
    assert target.read_bytes() == BODY
    assert [(request.path, request.range) for request in server.log] == [
        ("/file.h5", f"bytes={HALF}-"),
        ("/elsewhere", f"bytes={HALF}-"),
    ]


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/file.h5", "file:///etc/hostname", "/file.h5"])
def test_redirects_that_are_not_followed(server: Server, target: Path, location: str) -> None:
    server.script = [say(302, Location=location)]
    with pytest.raises(WeightsError, match="redirect"):
        get(server, target)
    assert {request.path for request in server.log} == {"/file.h5"}
    assert not part_of(target).exists()


@pytest.mark.parametrize("proxied", [False, True])
def test_redirect_from_https_to_http_is_refused(proxied: bool) -> None:
    handler = download._Redirects()
    body = io.BytesIO()
    request = urllib.request.Request("https://weights.invalid/a")
    if proxied:
        request.set_proxy("127.0.0.1:1", "http")
    with pytest.raises(WeightsError, match=r"https://weights\.invalid/a redirects to 'http://weights\.invalid/b'"):
        handler.redirect_request(request, body, 302, "Found", {}, "http://weights.invalid/b")
    assert body.closed
    followed = handler.redirect_request(request, body, 302, "Found", {}, "https://other.invalid/b")
    assert followed is not None
    assert followed.full_url == "https://other.invalid/b"


def test_redirect_from_http_behind_a_proxy_is_followed() -> None:
    request = urllib.request.Request("http://weights.invalid/a")
    request.set_proxy("127.0.0.1:1", "https")
    with open(os.devnull, "rb") as body:
        followed = download._Redirects().redirect_request(request, body, 302, "Found", {}, "http://weights.invalid/b")
    assert followed is not None
    assert followed.full_url == "http://weights.invalid/b"


def test_proxy_of_the_environment_is_used(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.script = [give()]
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/file.h5"))
    fetch("http://weights.invalid/file.h5", target, size=SIZE, sha256=SHA256)
    assert target.read_bytes() == BODY
    assert [request.path for request in server.log] == ["http://weights.invalid/file.h5"]


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "weights.h5", "", "http://", "https:///x", "http://[::1/x"]
)
def test_addresses_that_cannot_be_used(target: Path, url: str) -> None:
    with pytest.raises(WeightsError) as caught:
        fetch(url, target, size=SIZE, sha256=SHA256)
    assert str(caught.value).startswith(repr(url))
    assert not target.parent.exists()


@pytest.mark.parametrize("scheme", ["https", "ftp"])
def test_passwords_in_addresses_are_refused_and_not_repeated(target: Path, scheme: str) -> None:
    with pytest.raises(WeightsError, match="password") as caught:
        fetch(f"{scheme}://me:secret@127.0.0.1/file.h5", target, size=SIZE, sha256=SHA256)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("path", ["a b", "\N{SNOWMAN}"])
def test_addresses_that_http_cannot_carry(server: Server, target: Path, path: str) -> None:
    with pytest.raises(WeightsError, match="cannot be asked for"):
        fetch(server.url + path, target, size=SIZE, sha256=SHA256)
    assert server.log == []


def test_nobody_answers(target: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}/file.h5"
    with pytest.raises(WeightsError, match=f"cannot download {url}: .*refused \\(2 tries"):
        fetch(url, target, size=SIZE, sha256=SHA256, attempts=2, backoff=0.001)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "trying again in" in caplog.text


def test_certificate_that_does_not_verify_is_final(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(opener: object, request: urllib.request.Request, timeout: float) -> None:
        asked.append(request.full_url)
        raise urllib.error.URLError(ssl.SSLCertVerificationError(1, "self-signed certificate"))

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", refuse)
    with pytest.raises(WeightsError, match=r"cannot be trusted: .*self-signed certificate.*SSL_CERT_FILE"):
        fetch("https://weights.invalid/file.h5", target, size=SIZE, sha256=SHA256)
    assert asked == ["https://weights.invalid/file.h5"]


def test_directory_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(WeightsError, match=f"cannot store a download in '{tmp_path}/cache'") as caught:
        get(server, tmp_path / "cache" / "file.h5")
    assert caught.value.exit_code == ExitCode.MODEL
    assert server.log == []


def test_directory_that_cannot_be_written(server: Server, target: Path) -> None:
    target.parent.mkdir(mode=0o555)
    if os.access(target.parent, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(WeightsError, match=f"cannot store a download in '{target.parent}'"):
        get(server, target)
    assert server.log == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk(server: Server, target: Path) -> None:
    server.script = [give()]
    target.parent.mkdir()
    part_of(target).symlink_to("/dev/full")
    with pytest.raises(WeightsError, match=f"cannot store a download in '{target.parent}': No space left on device"):
        get(server, target)
    assert len(server.log) == 1
    assert not target.exists()


def test_mismatch(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(BODY)
    assert mismatch(path, size=SIZE, sha256=SHA256) is None
    assert mismatch(path, size=SIZE + 1, sha256=SHA256) == "700,000 bytes where 700,001 are expected"
    assert mismatch(path, size=SIZE, sha256="0" * 64) == f"SHA-256 {SHA256} where {'0' * 64} is expected"
    assert mismatch(tmp_path, size=SIZE, sha256=SHA256) == "not a regular file"
    with pytest.raises(FileNotFoundError):
        mismatch(tmp_path / "absent", size=SIZE, sha256=SHA256)


def test_importing_is_light() -> None:
    heavy = ["tensorflow", "keras", "numpy", "tqdm", "filelock", "platformdirs", "requests"]
    modules = "xcli.models.download, xcli.models.imagenet_weights"
    code = f"import sys, {modules}; sys.exit(', '.join(set({heavy}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert run.stderr.strip() == ""
