"""Fetching one file whose size and SHA-256 are known: locked, resumed, retried, verified, then renamed into place.

While a file `NAME` is on its way, `NAME.part` beside it holds the bytes that have come so far, and survives a kill;
`NAME.lock` keeps other processes from downloading the same file. `NAME` itself is only ever the whole, verified file.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import http
import http.client
import logging
import os
import re
import ssl
import stat
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, cast

from xcli.core.errors import WeightsError
from xcli.core.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from email.message import Message
    from pathlib import Path

log = logging.getLogger(__name__)

_CHUNK = 1 << 18
_LONGEST_WAIT = 60.0  # seconds, whatever a server asks for
_RETRIED = frozenset({408, 425, 429})  # the 4xx that say "later" rather than "no"


def fetch(
    url: str,
    target: Path,
    *,
    size: int,
    sha256: str,
    progress: bool = False,
    attempts: int = 4,
    timeout: float = 30.0,
    backoff: float = 1.0,
) -> Path:
    """Makes sure that `target` is the file described by `size` and `sha256`, downloading it if it is not.

    Several processes may call this for one target at once: one downloads, the others wait for it. An interrupted
    download is continued by the next call.

    Args:
        url: an http or https address. Redirects are followed, but never from https to http. The usual proxy variables
            are honoured.
        target: where the file is to be. Its directory is made if need be.
        size: length of the file in bytes.
        sha256: its digest, in lower-case hexadecimal.
        progress: draw a progress bar on standard error.
        attempts: give up after this many tries in a row without a new byte.
        timeout: seconds to wait for the server's next byte.
        backoff: seconds before the second try; doubled with each further try that brings nothing. A server's own
            `Retry-After` is waited for when it is longer, up to a minute.

    Returns:
        `target`.

    Raises:
        WeightsError: the address cannot be used, the server refuses or cannot be reached, what it sends is not the
            file described, or the directory cannot be written.
    """
    check_url(url)
    if _is_intact(target, size, sha256):
        return target
    with _storing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    # Looked at again under the lock: another process may have finished the file meanwhile.
    with _locked(target):
        if not _is_intact(target, size, sha256):
            download = _Download(url, target, size, sha256, timeout)
            with _progress_bar(target.name, download.held(), size, shown=progress) as download.report:
                download.run(attempts, backoff)
    return target


def mismatch(path: Path, *, size: int, sha256: str) -> str | None:
    """Says how a file differs from the one described.

    Args:
        path: the file.
        size: expected length in bytes; looked at first, so a file of another length is not read.
        sha256: expected digest, in lower-case hexadecimal.

    Returns:
        None if the file is the one described, else what it is instead, in a few words.

    Raises:
        OSError: there is no such file, or it cannot be read.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        return "not a regular file"
    if found.st_size != size:
        return f"{found.st_size:,} bytes where {size:,} are expected"
    digest = _sha256(path)
    return None if digest == sha256 else f"SHA-256 {digest} where {sha256} is expected"


def check_url(url: str) -> None:
    """Checks that an address is one that `fetch` can use.

    Args:
        url: the address.

    Raises:
        WeightsError: it is not http or https, names no host, or holds a user name or password.
    """
    if "@" in url.split("://", 1)[-1].split("/", 1)[0]:
        # The address is left out on purpose: messages end in logs.
        raise WeightsError("an address with a user name or password in it is not supported: give one without")
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise WeightsError(f"{url!r} is not an address to download from: give one that starts with https:// or http://")


def _is_intact(path: Path, size: int, sha256: str) -> bool:
    try:
        return mismatch(path, size=size, sha256=sha256) is None
    except OSError:
        return False


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _TryAgain(Exception):
    """A try failed in a way that the next one may not; `wait` is how many seconds the server asked for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _StartOver(Exception):
    """The server cannot continue what is there already; raised only when something is."""


@dataclass(slots=True)
class _Download:
    """One file on its way; `report` is told how many bytes of it are there.

    `pieced` says whether the part holds bytes from before its last answer: only then can it be a mixture of two files,
    so that beginning anew may help where the digest is wrong.
    """

    url: str
    target: Path
    size: int
    sha256: str
    timeout: float
    report: Callable[[int], None] = field(default=lambda position: None)
    pieced: bool = False

    @property
    def part(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    def held(self) -> int:
        """How many bytes are there."""
        try:
            return self.part.stat().st_size
        except OSError:
            return 0

    def run(self, attempts: int, backoff: float) -> None:
        """Downloads, verifies, and puts the file in place."""
        self._collect(attempts, backoff)
        digest = self._digest()
        if digest != self.sha256 and self.pieced:
            log.warning("%s does not verify after it was continued; downloading it anew from %s", self.part, self.url)
            self._drop()
            self._collect(attempts, backoff)
            digest = self._digest()
        if digest != self.sha256:
            self._drop()
            raise WeightsError(
                f"{self.url} gave a file with SHA-256 {digest} where {self.sha256} is expected; it was deleted: "
                "the server holds another file, or something on the way changed it, so use another address"
            )
        self._publish()

    def _collect(self, attempts: int, backoff: float) -> None:
        """Brings the part to its full size.

        Progress is measured against the most that was ever there, so that a server that always begins anew and always
        breaks off cannot keep this going for ever.
        """
        held = most = self.held()
        self.pieced = held > 0
        failures = 0
        while held < self.size:
            try:
                self._receive(held)
            except _StartOver as error:
                # Needs no count: with nothing held there is nothing that a server could fail to continue.
                log.info("%s; starting over", error)
                self._drop()
            except _TryAgain as error:
                held = self.held()
                failures = 0 if held > most else failures + 1
                if failures >= attempts:
                    raise WeightsError(
                        f"cannot download {self.url}: {error} ({failures} tries in a row brought nothing new; "
                        f"{held:,} of {self.size:,} bytes are there): check the network, then try again to continue"
                    ) from error
                wait = min(max(backoff * 2.0 ** max(failures - 1, 0), error.wait), _LONGEST_WAIT)
                log.warning("%s: %s; trying again in %.1f s", self.url, error, wait)
                time.sleep(wait)
            held = self.held()
            most = max(most, held)

    def _receive(self, held: int) -> None:
        """Asks once for what is missing and appends what comes; returns only when nothing is missing any more."""
        with contextlib.closing(self._open(held)) as response:
            start, end = self._span(response, held)
            bounded = response.length is not None
            self.pieced = start > 0
            position = start
            self.report(position)
            with _storing(self.part.parent), open(self.part, "ab" if start else "wb") as file:
                while position < end and (data := _read(response, min(_CHUNK, end - position))):
                    file.write(data)
                    position += len(data)
                    self.report(position)
            if position < self.size:
                raise _TryAgain(f"the server stopped after {position:,} of {self.size:,} bytes")
            if not bounded and _goes_on(response):
                self._drop()
                raise WeightsError(f"{self.url} sends more than the {self.size:,} bytes expected: use another address")

    def _open(self, held: int) -> http.client.HTTPResponse:
        headers = {"User-Agent": f"xception-cli/{__version__}"}
        if held:
            headers["Range"] = f"bytes={held}-"
        try:
            opener = urllib.request.build_opener(_Redirects)
            request = urllib.request.Request(self.url, headers=headers)  # noqa: S310 - check_url has seen the scheme
            return cast("http.client.HTTPResponse", opener.open(request, timeout=self.timeout))
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error, held) from error
        except (http.client.InvalidURL, ValueError) as error:
            raise WeightsError(f"{self.url!r} cannot be asked for: {error}; check the address and the proxy") from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise WeightsError(
                    f"{self.url} cannot be trusted: {getattr(reason, 'verify_message', reason)}; "
                    "if a proxy of yours signs its traffic, name its certificate in SSL_CERT_FILE"
                ) from error
            raise _TryAgain(_describe(error)) from error

    def _refusal(self, error: urllib.error.HTTPError, held: int) -> Exception:
        """What an answer of 3xx (not followed), 4xx or 5xx means."""
        if error.code == 416 and held:
            return _StartOver(f"{self.url} has nothing from byte {held:,} on")
        answer = f"HTTP {_status(error.code)}"
        if error.code in _RETRIED or error.code >= 500:
            return _TryAgain(answer, _retry_after(error.headers.get("Retry-After")))
        if error.code < 400:
            hint = "it redirects in a circle, or to what is neither http nor https; use another address"
        elif error.code in (401, 403, 407):
            hint = "access is refused; check the proxy, or use another address"
        else:
            hint = "check the address"
        return WeightsError(f"{self.url} answers {answer}: {hint}")

    def _span(self, response: http.client.HTTPResponse, held: int) -> tuple[int, int]:
        """First byte of the file that a good answer brings, and the one after its last."""
        length = response.length
        total = length
        start = 0
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            named = response.headers.get("Content-Range", "")
            match = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)", named.strip())
            if match is None or int(match[1]) != held:
                if held:
                    raise _StartOver(f"{self.url} answers {named!r} when asked for what follows byte {held:,}")
                raise WeightsError(f"{self.url} answers {named!r} when asked for the whole file: use another address")
            start = held
            total = None if match[2] == "*" else int(match[2])
        elif response.status != http.HTTPStatus.OK:
            raise WeightsError(f"{self.url} answers HTTP {_status(response.status)}: check the address")
        if total not in (None, self.size) or start + (length or 0) > self.size:
            # Told apart before the first byte is written, so that the page of some login portal costs nothing.
            kind = response.headers.get_content_type()
            raise WeightsError(
                f"{self.url} announces {total if total is not None else start + (length or 0):,} bytes of {kind!r} "
                f"where {self.size:,} are expected: it is another file, or a page of a proxy or portal"
            )
        return start, self.size if length is None else start + length

    def _digest(self) -> str:
        with _storing(self.part.parent):
            return _sha256(self.part)

    def _drop(self) -> None:
        with _storing(self.part.parent):
            self.part.unlink(missing_ok=True)

    def _publish(self) -> None:
        """Renames the part to its final name such that a power cut leaves the one or the other, never a hole."""
        with _storing(self.part.parent):
            with open(self.part, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(self.part, self.target)
        # The file is in place and whole; some file systems cannot sync a directory, which is no reason to fail.
        with contextlib.suppress(OSError):
            directory = os.open(self.target.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects within http and https, never down from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        # Not req.type: behind a proxy that is the proxy's scheme.
        before, after = (urllib.parse.urlsplit(url).scheme for url in (req.full_url, newurl))
        if after not in ("http", "https") or (before, after) == ("https", "http"):
            fp.close()
            raise WeightsError(
                f"{req.full_url} redirects to {newurl!r}, which is not https and not followed: use another address"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _read(response: http.client.HTTPResponse, count: int) -> bytes:
    try:
        # read1 hands over what has come; read would wait for `count` bytes and lose them if the connection is cut.
        return response.read1(count)
    except (OSError, http.client.HTTPException) as error:
        raise _TryAgain(_describe(error)) from error


def _goes_on(response: http.client.HTTPResponse) -> bool:
    """Whether a body of unannounced length has still more."""
    try:
        return bool(response.read1(1))
    except (OSError, http.client.HTTPException):
        return False  # all that is needed came; the digest decides


def _describe(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return str(reason) or type(reason).__name__


def _status(code: int) -> str:
    """The status with its standard phrase; the server's own phrase could hold anything."""
    try:
        return f"{code} {http.HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)


def _retry_after(value: str | None) -> float:
    """Seconds that a `Retry-After` header, in seconds or as a date, asks to wait; 0 or less where it does not."""
    if value is None:
        return 0.0
    try:
        return float(min(int(value), _LONGEST_WAIT))
    except ValueError:
        try:
            return email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0


@contextlib.contextmanager
def _storing(directory: Path) -> Iterator[None]:
    """Turns failures of the file system into an error that names the directory."""
    try:
        yield
    except (OSError, NotImplementedError) as error:  # the latter: filelock on a file system without locks
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(
            f"cannot store a download in {str(directory)!r}: {reason}; make it writable or free space there"
        ) from error


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Holds the target's lock, which the kernel takes back from a process that is killed."""
    from filelock import FileLock, Timeout

    lock = FileLock(target.with_name(target.name + ".lock"))
    with _storing(target.parent):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("waiting for another process to finish downloading %s", target)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _progress_bar(name: str, held: int, size: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """A function to tell how many bytes are there, and while the block runs the bar that it moves."""
    if not shown:
        yield lambda position: None
        return
    from tqdm import tqdm

    with tqdm(total=size, initial=held, desc=name, unit="B", unit_scale=True, file=sys.stderr) as bar:

        def report(position: int) -> None:
            bar.update(position - bar.n)  # goes back when a download starts over

        yield report
