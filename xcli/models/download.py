"""Downloads one file whose size and SHA-256 are known: locked, verified, then renamed into place.

While `NAME` is being downloaded, `NAME.part` beside it holds the bytes that have arrived, and `NAME.lock` keeps other
processes from downloading the same file. `NAME` itself is only ever the whole, verified file.
"""

from __future__ import annotations

import hashlib
import http
import io
import logging
import os
import ssl
import stat
import time
import urllib.parse
from functools import partial
from typing import TYPE_CHECKING, Any

from xcli.core.errors import WeightsError
from xcli.core.version import __version__
from xcli.storage import disk
from xcli.storage.locks import FileLock

if TYPE_CHECKING:
    from pathlib import Path

    import requests

log = logging.getLogger(__name__)

ATTEMPTS = 4
TIMEOUT = 30.0  # seconds to wait for a connection, and for each further byte
_RETRIED = (408, 425, 429)  # statuses below 500 that mean "later" rather than "no"


def fetch(url: str, target: Path, *, size: int, sha256: str, progress: bool = False) -> Path:
    """Returns `target`, after downloading it unless it is already the file described by `size` and `sha256`.

    Several processes may call this for one target at once: one downloads, the others wait for it.

    Args:
        url: an http or https address. Redirects are followed, but never from https to http.
        target: path of the file. Its directory is created if necessary.
        size: length of the file in bytes.
        sha256: its digest, in lower-case hexadecimal.
        progress: draw a progress bar on standard error.

    Raises:
        WeightsError: the address cannot be used, the server refuses or cannot be reached, it sends another file, or
            the directory cannot be written.
    """
    check_url(url)
    if _is_intact(target, size, sha256):
        return target
    part, lock = target.with_name(target.name + ".part"), FileLock(target.with_name(target.name + ".lock"))
    try:
        disk.make_directories(target.parent.parent)
        disk.make_directory(target.parent, 0o700)
        if not lock.acquire():
            log.info("waiting for another process to finish downloading %s", target)
        with lock:
            # Another process may have finished the file while this one waited.
            if not _is_intact(target, size, sha256):
                try:
                    _download_with_retries(url, part, size, progress)
                    _publish(url, part, target, sha256)
                finally:
                    disk.unlink(part)
    except OSError as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(
            f"cannot store a download in {str(target.parent)!r}: {reason}; make it writable or free space there"
        ) from error
    return target


def mismatch(path: Path, *, size: int, sha256: str) -> str | None:
    """Returns in a few words how a file differs from its length in bytes and its digest; None if it does not.

    Raises:
        OSError: there is no such file, or it cannot be read.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        return "not a regular file"
    if found.st_size != size:  # first, so that such a file is not read
        return f"{found.st_size:,} bytes where {size:,} are expected"
    digest = sha256_of(path)
    return None if digest == sha256 else f"SHA-256 {digest} where {sha256} is expected"


def check_url(url: str) -> None:
    """Raises WeightsError for an address that is not http or https, names no host, or contains a user or password."""
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


def sha256_of(path: str | Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_intact(path: Path, size: int, sha256: str) -> bool:
    try:
        return mismatch(path, size=size, sha256=sha256) is None
    except OSError:
        return False


def _download_with_retries(url: str, part: Path, size: int, progress: bool) -> None:
    """Downloads into `part`; waits 1, 2 and 4 seconds between attempts that fail for a reason that may pass."""
    import requests

    for attempt in range(ATTEMPTS):
        try:
            _download(url, part, size, progress)
        except requests.RequestException as error:
            reason = _refuse_or_reason(url, error)
            if attempt == ATTEMPTS - 1:
                raise WeightsError(
                    f"cannot download {url}: {reason} ({ATTEMPTS} attempts): check the network and try again"
                ) from error
            log.warning("%s: %s; trying again in %d s", url, reason, 2**attempt)
            time.sleep(2**attempt)
        else:
            return


def _download(url: str, part: Path, size: int, progress: bool) -> None:
    import pooch

    # The certificates of the system, as Python itself uses them, so that those of a company's proxy count.
    certificates = None if "REQUESTS_CA_BUNDLE" in os.environ else ssl.get_default_verify_paths().cafile
    downloader = pooch.HTTPDownloader(
        progressbar=progress,
        timeout=TIMEOUT,
        verify=certificates or True,
        headers={"User-Agent": f"xception-cli/{__version__}", "Accept-Encoding": "identity"},
        hooks={"response": partial(_check_response, url, size)},
    )
    with _LimitedFile(part, size, url) as file:
        downloader(url, file, None)


def _check_response(url: str, size: int, response: requests.Response, **options: Any) -> None:
    """Refuses a redirect from https to another scheme, and a file of another length before a byte of it is written."""
    if response.is_redirect:
        location = urllib.parse.urljoin(response.url, response.headers["Location"])
        if response.url.startswith("https:") and not location.startswith("https:"):
            raise WeightsError(f"{response.url} redirects to {location!r}, which is not https: use another address")
    length = response.headers.get("Content-Length")
    if response.status_code == http.HTTPStatus.OK and length not in (None, str(size)):
        raise WeightsError(
            f"{url} announces {length} bytes of {response.headers.get('Content-Type', '')!r} where {size:,} are "
            "expected: it is another file, or a page of a proxy or portal"
        )


class _LimitedFile(io.FileIO):
    """A file that refuses more bytes than expected, from a server that does not announce their number."""

    def __init__(self, path: Path, size: int, url: str) -> None:
        disk.unlink(path)  # what a killed process left, or a link that somebody put there, which is not followed
        super().__init__(path, "xb")
        self._size, self._url = size, url

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > self._size:
            raise WeightsError(f"{self._url} sends more than the {self._size:,} bytes expected: use another address")
        written = super().write(data)
        if written != len(data):
            raise OSError("the disk took only a part of the data")
        return written


def _refuse_or_reason(url: str, error: requests.RequestException) -> str:
    """Returns in a few words why an attempt failed; raises WeightsError if another would fail as well."""
    import requests

    if isinstance(error, requests.exceptions.SSLError):
        raise WeightsError(
            f"{url} cannot be trusted: {error}; if a proxy signs its traffic, name its certificate in SSL_CERT_FILE"
        ) from error
    if isinstance(error, requests.TooManyRedirects):
        raise WeightsError(f"{url} redirects in a circle: use another address") from error
    if isinstance(error, ValueError):  # requests' errors for addresses
        raise WeightsError(f"{url!r} cannot be requested: {error}; check the address and the proxy") from error
    if error.response is None:
        return str(error)
    status = error.response.status_code
    answer = f"HTTP {status} {error.response.reason}"
    if status < 500 and status not in _RETRIED:
        denied = status in (401, 403, 407)
        hint = "access is refused; check the proxy, or use another address" if denied else "check the address"
        raise WeightsError(f"{url} answers {answer}: {hint}") from error
    return answer


def _publish(url: str, part: Path, target: Path, sha256: str) -> None:
    """Verifies a finished download and renames it, so that a power cut leaves either all of it or nothing."""
    digest = sha256_of(part)
    if digest != sha256:
        raise WeightsError(
            f"{url} gave a file with SHA-256 {digest} where {sha256} is expected; it was deleted: "
            "the server holds another file, or something on the way changed it, so use another address"
        )
    disk.rename_durably(part, target)
