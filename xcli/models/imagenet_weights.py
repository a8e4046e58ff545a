"""Finds the official ImageNet weights, or downloads them.

Searched are `--weights-dir` or `XCEPTION_WEIGHTS_DIR` (which are only read), the cache of this program, the cache of
Keras, and finally the network. A file counts only if its size and SHA-256 are official.
"""

from __future__ import annotations

import logging
import os
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from xcli.core.errors import WeightsError
from xcli.core.levels import DETAIL
from xcli.models.download import check_url, fetch, mismatch
from xcli.storage.model_cache import user_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

BASE_URL = "https://storage.googleapis.com/tensorflow/keras-applications/xception/"
WEIGHTS_DIR_VARIABLE = "XCEPTION_WEIGHTS_DIR"
WEIGHTS_URL_VARIABLE = "XCEPTION_WEIGHTS_URL"


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A weights file: its name without directory, length in bytes, and digest in lower-case hexadecimal."""

    name: str
    size: int
    sha256: str


IMAGENET_TOP = WeightsFile(
    name="xception_weights_tf_dim_ordering_tf_kernels.h5",
    size=91_884_032,
    sha256="c5bf1c05b020c4177164039b854c3ef92b16b73384734647c1f0ad5cf79f6975",
)
IMAGENET_NO_TOP = WeightsFile(
    name="xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
    size=83_683_744,
    sha256="e3fa32521ed48ced4af05adc950ab24963c4a00bd42e6825f8b180c65853163c",
)

State = Literal["verified", "wrong digest", "unreadable", "absent"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One path that was checked for a weights file.

    Attributes:
        place: `weights directory`, `cache` or `Keras cache`.
        state: only `verified` files are loaded, never those with a `wrong digest` (or size).
        detail: what is wrong with a `wrong digest` or `unreadable` file, in a few words; else empty.
    """

    file: WeightsFile
    place: str
    path: Path
    state: State
    detail: str = ""


def find_imagenet(include_top: bool, weights_dir: str | None = None) -> list[Candidate]:
    """Checks every path on this machine where the ImageNet weights may be, in the order of `locate_imagenet`."""
    return list(_candidates(include_top, weights_dir))


def locate_imagenet(
    include_top: bool, *, weights_dir: str | None = None, offline: bool = False, progress: bool = False
) -> Path:
    """Finds the ImageNet weights on this machine, or downloads them into this program's cache.

    Every file is verified each time. One that fails is named in a warning and skipped, or replaced in this cache.

    Args:
        include_top: whether the classification layer is needed. If not, the file with it is second choice.
        weights_dir: a directory to search first; None stands for `XCEPTION_WEIGHTS_DIR`, if that is set.
        offline: never use the network.
        progress: draw a progress bar on standard error while downloading.

    Returns:
        Path of a verified HDF5 file.

    Raises:
        WeightsError: the file is not on this machine and cannot be downloaded. The message gives the reason and the
            alternatives.
    """
    given = _given_dir(weights_dir)
    if given is not None and not os.path.isdir(given):
        log.warning("the weights directory %s is not a directory; looking elsewhere", given)
    for candidate in _candidates(include_top, weights_dir):
        if candidate.state == "verified":
            log.log(DETAIL, "using %s from the %s", candidate.path, candidate.place)
            return candidate.path
        if candidate.state != "absent":
            log.warning("not using %s: it is %s (%s)", candidate.path, _COMPLAINTS[candidate.state], candidate.detail)
    file = IMAGENET_TOP if include_top else IMAGENET_NO_TOP
    url = imagenet_url(file)
    cache = user_folder("weights")
    try:
        if offline:
            raise WeightsError(f"{file.name} is not on this machine, and --offline forbids the download")
        if cache is None:
            raise WeightsError("no home directory is known to keep a download in: set HOME or XDG_CACHE_HOME")
        log.info("downloading %s to %s", url, cache)
        return fetch(url, cache / file.name, size=file.size, sha256=file.sha256, progress=progress)
    except WeightsError as error:
        raise WeightsError(f"{error}; {_ways_out(file, url, cache)}") from error


def imagenet_url(file: WeightsFile) -> str:
    """Returns the address of a file: below `XCEPTION_WEIGHTS_URL` if that is set, else that of Keras.

    Raises:
        WeightsError: `XCEPTION_WEIGHTS_URL` is not an address that file names can be appended to.
    """
    mirror = os.environ.get(WEIGHTS_URL_VARIABLE, "").strip()
    try:
        check_url(mirror or BASE_URL)
        parts = urllib.parse.urlsplit(mirror)
        if parts.query or parts.fragment:
            raise WeightsError(f"{mirror!r} goes on after its path: give the address of a directory")
    except WeightsError as error:
        raise WeightsError(f"{WEIGHTS_URL_VARIABLE}: {error}") from error
    return (mirror or BASE_URL).rstrip("/") + "/" + file.name


_COMPLAINTS = {"wrong digest": "not the official file", "unreadable": "not readable"}


def _candidates(include_top: bool, weights_dir: str | None) -> Iterator[Candidate]:
    """Yields the candidates lazily, so that no file after the first verified one is read."""
    places = _places(weights_dir)
    for file in (IMAGENET_TOP,) if include_top else (IMAGENET_NO_TOP, IMAGENET_TOP):
        for place, directory in places:
            yield _check_file(file, place, directory / file.name)


def _places(weights_dir: str | None) -> list[tuple[str, Path]]:
    """Returns the directories to search, each once, with the first name that applies."""
    keras_home = os.environ.get("KERAS_HOME")
    named = {
        "weights directory": _given_dir(weights_dir),
        "cache": user_folder("weights"),
        "Keras cache": Path(keras_home, "models") if keras_home else _absolute(os.path.expanduser("~/.keras/models")),
    }
    places: dict[str, tuple[str, Path]] = {}
    for place, directory in named.items():
        if directory is not None:
            places.setdefault(os.path.realpath(directory), (place, directory))
    return list(places.values())


def _check_file(file: WeightsFile, place: str, path: Path) -> Candidate:
    try:
        wrong = mismatch(path, size=file.size, sha256=file.sha256)
    except (FileNotFoundError, NotADirectoryError):
        return Candidate(file, place, path, "absent")
    except OSError as error:
        return Candidate(file, place, path, "unreadable", error.strerror or str(error))
    return Candidate(file, place, path, "wrong digest" if wrong else "verified", wrong or "")


def _given_dir(weights_dir: str | None) -> Path | None:
    given = weights_dir or os.environ.get(WEIGHTS_DIR_VARIABLE)
    return Path(os.path.expanduser(given)) if given else None


def _absolute(path: str | Path) -> Path | None:
    """Returns the path, or None if it still begins with `~`, which would become a directory in the current one."""
    return Path(path) if os.path.isabs(path) else None


def _ways_out(file: WeightsFile, url: str, cache: Path | None) -> str:
    put = f"put it in {str(cache)!r} or pass it with --weights FILE" if cache else "pass it with --weights FILE"
    return (
        f"three ways out: (1) fetch {url} ({file.size:,} bytes) by other means and {put}; "
        f"(2) set {WEIGHTS_URL_VARIABLE} to a mirror, or {WEIGHTS_DIR_VARIABLE} to a directory that holds it; "
        "(3) --weights none for random weights, or --model FILE for a model of your own"
    )
