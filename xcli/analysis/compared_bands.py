"""`FILE.partial/` of a comparison of all rows with all: what is known after the bands that were compared.

    run.json    the fingerprint of the comparison: rows and options
    compared    the fit, the number of bands, and what they have shown, with a digest of all

The same command goes on with the next band, and writes the same answer.
"""

from __future__ import annotations

import json
import logging
import time
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Self

from xcli.analysis.whitening import parse_whitening
from xcli.core.errors import CheckError, OutputError
from xcli.core.text import one_line
from xcli.outputs.journal import decode, encode, refuse_other_settings
from xcli.storage.ownership import LOCK
from xcli.storage.staging import PrivateFolder

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from xcli.analysis.whitening import Whitening

log = logging.getLogger("xcli")

SECONDS = 30.0
"""Between two times that what is known is written."""

_RUN, _COMPARED = "run.json", "compared"
_DIGEST = 32  # bytes


class ComparedBands:
    """What is known of a comparison, on the disk; a context manager that holds the lock of the output.

    Args:
        target: the output, a file on this machine; None keeps nothing.
        restart: discard what an earlier command left.

    Attributes:
        fit: that of the earlier command; None if there was none.
        bands: how many it has compared.
        state: what it has found, None if nothing.

    Raises:
        OutputError: another process writes the output, or its folder cannot be read or written.
    """

    def __init__(self, target: str | None, *, restart: bool = False) -> None:
        self.fit: Whitening | None = None
        self.bands = 0
        self.state: NDArray[np.int64] | None = None
        self._target = target or ""
        self._folder = None if target is None else PrivateFolder(target)
        self._written = time.monotonic()
        if self._folder is None:
            return
        self._folder.lock(LOCK, self._target)
        try:
            if restart:
                self.discard()
            self._load(self._folder)
        except BaseException:
            self._folder.close()
            raise

    def _load(self, folder: PrivateFolder) -> None:
        import numpy as np

        content = folder.read(_COMPARED)
        if content is None:
            return
        body = content[_DIGEST:]
        try:
            if blake2b(body, digest_size=_DIGEST).digest() != content[:_DIGEST]:
                raise ValueError("its digest is another")
            head, _, rest = body.partition(b"\n")
            bands, size = json.loads(head)
            self.fit = parse_whitening(rest[:size])
            self.bands, self.state = bands, np.frombuffer(rest[size:], np.int64)
        except ValueError as error:
            name = one_line(folder.local(_COMPARED))
            log.warning("%s is damaged (%s): the comparison begins anew", name, one_line(str(error)))

    def begin(self, fingerprint: dict[str, Any]) -> None:
        """Begins or continues a comparison.

        Raises:
            OutputError: what is there is of another one.
        """
        if self._folder is None:
            return
        earlier = self._folder.read(_RUN)
        if earlier is None:
            self._folder.write(_RUN, encode(fingerprint))
            return
        try:
            found = decode(earlier)
        except CheckError as error:
            raise OutputError(f"{one_line(self._folder.local(_RUN))}: {error}; --restart discards it") from None
        refuse_other_settings(self._target, found, fingerprint, "an unfinished comparison")

    def keep(self, fit: Whitening, bands: int, state: Callable[[], NDArray[np.int64]], *, now: bool = False) -> None:
        """Writes what is known, if the last time is some seconds ago, or `now`; `state` returns what was found."""
        if self._folder is None or (not now and time.monotonic() < self._written + SECONDS):
            return
        saved = fit.save()
        body = json.dumps([bands, len(saved)]).encode() + b"\n" + saved + state().tobytes()
        self._folder.write(_COMPARED, blake2b(body, digest_size=_DIGEST).digest() + body)
        self._written = time.monotonic()

    def discard(self) -> None:
        """Removes what is known."""
        if self._folder is not None:
            there = self._folder.names()
            self._folder.unlink(*(name for name in (_RUN, _COMPARED) if name in there))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            with suppress(OutputError):
                if _COMPARED not in self._folder.names():
                    self.discard()  # there is nothing to continue
            self._folder.close()
