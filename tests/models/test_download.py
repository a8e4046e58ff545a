"""Downloads from a real server on the loopback interface whose every answer is scripted and logged."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import requests

from xcli.core.errors import ExitCode, WeightsError
from xcli.models import download
from xcli.models.download import fetch, mismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BODY = random.Random(7).randbytes(700_000)  # many chunks
SIZE, SHA256 = len(BODY), hashlib.sha256(BODY).hexdigest()
HALF = SIZE // 2
PATIENCE = 20.0  # seconds until a test that hangs is given up


@dataclass
class Request:
    """What one request asked for."""

    path: str


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


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Runs a server on a free loopback port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            request = Request(self.path)
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
    body: bytes = BODY, *, cut: int | None = None, stall: bool = False, chunked: bool = False
) -> Callable[[Any, Request], None]:
    """An answer of 200.

    Args:
        body: the whole file as the server has it.
        cut: break the connection after this many bytes of the body.
        stall: once `cut` bytes went out, wait for the gate before the rest follows.
        chunked: announce no length.
    """

    def answer(handler: Any, request: Request) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        if chunked:
            handler.send_header("Transfer-Encoding", "chunked")
        else:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        for piece in (body[:cut], body[cut:] if stall and cut is not None else b""):
            if piece:
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            if stall:
                handler.gate.wait(PATIENCE)
        if chunked and cut is None:
            handler.wfile.write(b"0\r\n\r\n")

    return answer


def say(status: int, **headers: str) -> Callable[[Any, Request], None]:
    """An answer without a body."""

    def answer(handler: Any, request: Request) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.send_header("Connection", "close")
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
    monkeypatch.setattr(download, "time", SimpleNamespace(sleep=taken.append))
    return taken


def get(server: Server, target: Path, progress: bool = False) -> Path:
    return fetch(server.url, target, size=SIZE, sha256=SHA256, progress=progress)


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def start_process(server: Server, target: Path) -> subprocess.Popen[str]:
    """Fetches in a process of its own that logs to its standard error."""
    code = (
        "import logging, signal, sys; logging.basicConfig(level='INFO'); from pathlib import Path; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # ignored where tests run in the background
        "from xcli.models.download import fetch; "
        "fetch(sys.argv[1], Path(sys.argv[2]), size=int(sys.argv[3]), sha256=sys.argv[4])"
    )
    command = [sys.executable, "-c", code, server.url, str(target), str(SIZE), SHA256]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def test_a_link_in_place_of_the_unfinished_file_is_not_followed(server: Server, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    precious = target.with_name("precious")
    precious.write_bytes(b"content")
    target.with_name(f"{target.name}.part").symlink_to(precious)
    server.script = [give()]
    assert fetch(server.url, target, size=SIZE, sha256=SHA256).read_bytes() == BODY
    assert precious.read_bytes() == b"content"


def test_the_directory_is_made_for_this_user_alone(server: Server, target: Path) -> None:
    server.script = [give()]
    target = target.parent / "new" / "weights" / target.name
    assert fetch(server.url, target, size=SIZE, sha256=SHA256).read_bytes() == BODY
    assert target.parent.stat().st_mode & 0o777 == 0o700


def test_good_file(server: Server, target: Path, capfd: pytest.CaptureFixture[str]) -> None:
    server.script = [give()]
    assert get(server, target) == target
    assert target.read_bytes() == BODY
    assert not part_of(target).exists()
    assert len(server.log) == 1
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
    part_of(target).write_bytes(b"left by a process that was killed")
    get(server, target)
    assert target.read_bytes() == BODY
    assert not part_of(target).exists()


def test_progress_bar(server: Server, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.script = [give()]
    get(server, target, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
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
    assert len(server.log) == 1
    assert not target.exists()
    assert not part_of(target).exists()


@pytest.mark.parametrize("chunked", [False, True])
def test_cut_connection_is_retried(server: Server, target: Path, chunked: bool, naps: list[float]) -> None:
    server.script = [give(cut=HALF, chunked=chunked), give(chunked=chunked)]
    get(server, target)
    assert target.read_bytes() == BODY
    assert naps == [1]


def test_stalled_connection_is_retried(
    server: Server, target: Path, naps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    server.script = [give(cut=HALF, stall=True), give()]
    get(server, target)
    assert target.read_bytes() == BODY
    assert naps == [1]


@pytest.mark.parametrize("status", [401, 403, 404, 407, 410, 416])
def test_refusals_are_final(server: Server, target: Path, status: int) -> None:
    server.script = [say(status)]
    with pytest.raises(WeightsError, match=f"{server.url} answers HTTP {status} .+: .*(check|use)"):
        get(server, target)
    assert len(server.log) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_passing_troubles_are_retried(server: Server, target: Path, status: int, naps: list[float]) -> None:
    server.script = [say(status), say(status), give()]
    get(server, target)
    assert target.read_bytes() == BODY
    assert naps == [1, 2]


def test_troubles_that_stay_are_final(server: Server, target: Path, naps: list[float]) -> None:
    server.script = [say(503)]
    with pytest.raises(WeightsError, match=r"HTTP 503 Service Unavailable \(4 attempts\)"):
        get(server, target)
    assert len(server.log) == 4
    assert naps == [1, 2, 4]


@pytest.mark.parametrize("body", [BODY + b"more", b"<html>Please log in"])
def test_body_of_another_length_is_refused_unread(server: Server, target: Path, body: bytes) -> None:
    server.script = [give(body)]
    with pytest.raises(WeightsError, match=rf"announces {len(body)} bytes of .* where 700,000 are expected"):
        get(server, target)
    assert len(server.log) == 1


def test_longer_body_of_unannounced_length(server: Server, target: Path) -> None:
    server.script = [give(BODY + b"more", chunked=True)]
    with pytest.raises(WeightsError, match="more than the 700,000 bytes expected"):
        get(server, target)
    assert len(server.log) == 1
    assert list(target.parent.glob("file.h5*")) == [target.with_name("file.h5.lock")]


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
    assert len(server.log) == 1


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_killed_process_does_not_block_the_next(server: Server, target: Path, kill: signal.Signals) -> None:
    server.script = [give(cut=HALF, stall=True), give()]
    with start_process(server, target) as killed:
        wait_until(lambda: part_of(target).exists() and part_of(target).stat().st_size > 0)
        killed.send_signal(kill)
        assert killed.wait(PATIENCE) == -kill
    assert target.with_name("file.h5.lock").exists()
    server.open_gate.set()
    get(server, target)
    assert target.read_bytes() == BODY
    assert not part_of(target).exists()


def test_redirect_is_followed(server: Server, target: Path) -> None:
    server.script = [say(302, Location="/elsewhere"), give()]
    get(server, target)
    assert target.read_bytes() == BODY
    assert [request.path for request in server.log] == ["/file.h5", "/elsewhere"]


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/file.h5", "file:///etc/hostname", "/file.h5"])
def test_redirects_that_are_not_followed(server: Server, target: Path, location: str) -> None:
    server.script = [say(302, Location=location)]
    with pytest.raises(WeightsError, match=r"redirects in a circle|No connection adapters"):
        get(server, target)
    assert {request.path for request in server.log} == {"/file.h5"}
    assert not part_of(target).exists()


def test_redirect_from_https_to_http_is_refused() -> None:
    def answer(location: str) -> Any:
        return SimpleNamespace(
            is_redirect=True, url="https://weights.invalid/a", headers={"Location": location}, status_code=302
        )

    with pytest.raises(WeightsError, match=r"https://weights\.invalid/a redirects to 'http://weights\.invalid/b'"):
        download._check_response("https://weights.invalid/a", SIZE, answer("http://weights.invalid/b"))
    download._check_response("https://weights.invalid/a", SIZE, answer("https://other.invalid/b"))
    download._check_response("https://weights.invalid/a", SIZE, answer("/b"))


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


def test_nobody_answers(target: Path, caplog: pytest.LogCaptureFixture, naps: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}/file.h5"
    with pytest.raises(WeightsError, match=f"cannot download {url}: .*refused.* \\(4 attempts"):
        fetch(url, target, size=SIZE, sha256=SHA256)
    assert [record.levelno for record in caplog.records if record.name == "xcli.models.download"] == [
        logging.WARNING
    ] * 3
    assert "trying again in 4 s" in caplog.text


def test_certificate_that_does_not_verify_is_final(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(url: str, **options: object) -> None:
        asked.append(url)
        raise requests.exceptions.SSLError("self-signed certificate")

    monkeypatch.setattr(requests, "get", refuse)
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


def test_full_disk(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.script = [give()]

    def write(file: object, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(download._LimitedFile, "write", write)
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
    heavy = ["tensorflow", "keras", "numpy", "tqdm", "platformdirs", "pooch", "requests"]
    modules = "xcli.models.download, xcli.models.imagenet_weights"
    code = f"import sys, {modules}; sys.exit(', '.join(set({heavy}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert run.stderr.strip() == ""
