"""Decoders for tests, in processes of their own: they read the number of an image from its path.

With the fixture `own_decoders`, `decoder("hang", at=[3])` is what `xcli.inference` takes as a `DecoderSpec`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xcli.core.errors import ImageError
from xcli.inference import decoder_process
from xcli.inference.decoder_server import DecoderSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from xcli.images.preprocessing import Preprocessing
    from xcli.storage.local import LocalFile

    Decode = Callable[[Any, Preprocessing], Any]

TEXTS = ("plain", "Ünïcödé 🐈", "surrogate \udcff", "two\nlines", "nul \0 within", "", "x" * 10_000)


def decoder(function: str = "numbered", **arguments: Any) -> DecoderSpec:
    return DecoderSpec("tests", function, arguments)


def main() -> None:
    """Takes the place of `decoder_process.main`."""
    original = decoder_process.find_decoder

    def find(module: str, function: str, arguments: dict[str, Any]) -> Any:
        return globals()[function](**arguments) if module == "tests" else original(module, function, arguments)

    decoder_process.find_decoder = find
    decoder_process.main()


def square(number: int) -> np.ndarray:
    return np.full((4, 4, 3), number % 251, np.uint8)


def numbered() -> Decode:
    """An image that shows its number, after a time that differs from one to the next."""

    def decode(location: Any, _: Preprocessing) -> np.ndarray:
        time.sleep(_number(location) * 7 % 5 / 2000)
        return square(_number(location))

    return decode


def _number(location: Any) -> int:
    inner: LocalFile = location._location
    return int(inner.path) if hasattr(inner, "path") else int(inner.data)


def _at(at: list[int], act: Callable[[], None]) -> Decode:
    plain = numbered()

    def decode(location: Any, p: Preprocessing) -> Any:
        if _number(location) in at:
            act()
        return plain(location, p)

    return decode


def constant(value: int = 7) -> Decode:
    return lambda _, p: np.full((p.size, p.size, 3), value, np.uint8)


def meeting(folder: str, count: int) -> Decode:
    """Fails unless so many decoders are at work at the same time."""

    def meet() -> None:
        Path(folder, str(os.getpid())).touch()
        end = time.monotonic() + 20
        while len(os.listdir(folder)) < count:
            assert time.monotonic() < end, "the others do not come"
            time.sleep(0.01)

    return _at(list(range(1000)), meet)


def failing() -> Decode:
    """Fails at even numbers, with all sorts of messages."""

    def decode(location: Any, _: Preprocessing) -> np.ndarray:
        number = _number(location)
        if number % 2:
            return square(number)
        raise ImageError("corrupt", TEXTS[number // 2])

    return decode


def noting(folder: str) -> Decode:
    """Leaves a file for each image and decoder."""

    def decode(location: Any, p: Preprocessing) -> Any:
        Path(folder, f"{_number(location)}-{os.getpid()}").touch()
        return numbered()(location, p)

    return decode


def hang(at: list[int]) -> Decode:
    return _at(at, lambda: time.sleep(1000))


def spin(at: list[int]) -> Decode:
    """Hangs and never lets go of the interpreter."""

    def forever() -> None:
        sum(range(1 << 60))

    return _at(at, forever)


def hang_after_reading(at: list[int]) -> Decode:
    def decode(location: Any, p: Preprocessing) -> Any:
        if _number(location) in at:
            location._note[decoder_process.STAGE] = decoder_process.DECODING
            time.sleep(1000)
        return numbered()(location, p)

    return decode


def killed(at: list[int], signal: int) -> Decode:
    return _at(at, lambda: os.kill(os.getpid(), signal))


def killed_once(at: list[int], signal: int, folder: str) -> Decode:
    """Dies at its first attempt only."""

    def die() -> None:
        try:
            os.mkdir(os.path.join(folder, "tried"))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal)

    return _at(at, die)


def leave(at: list[int]) -> Decode:
    return _at(at, lambda: os._exit(7))


def segfault(at: list[int]) -> Decode:
    """Reads where there is no memory."""
    import ctypes

    return _at(at, lambda: ctypes.string_at(0))


def hungry(at: list[int], mebibytes: int) -> Decode:
    def eat() -> None:
        kept = bytearray(mebibytes << 20)
        kept[:: 1 << 12] = b"x" * len(kept[:: 1 << 12])

    return _at(at, eat)


def buggy(at: list[int]) -> Decode:
    def fail() -> None:
        raise ValueError("a bug")

    return _at(at, fail)


def refused(times: int, number: int, folder: str) -> Decode:
    """Raises an OSError of this number as the cause of an ImageError, so many times."""

    def refuse() -> None:
        tried = len(os.listdir(folder))
        if tried < times:
            Path(folder, str(tried)).touch()
            raise ImageError("unreadable", "refused") from OSError(number, os.strerror(number))

    return _at(list(range(1000)), refuse)


def wrong(kind: str) -> Decode:
    found = {"shape": np.zeros((5, 4, 3), np.uint8), "dtype": np.zeros((4, 4, 3), np.float32), "none": None}[kind]
    return lambda *_: found


def lying() -> Decode:
    """A decoder that an image has taken over: answers something else than the program does."""

    def lie(*_: Any) -> Any:
        decoder_process._Worker.decode_chunk = lambda *_: {"errors": [[10**6, "no-reason", 5, None]]}
        return square(0)

    return lie
