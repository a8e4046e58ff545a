"""Damage of a JPEG that libjpeg passes over, or of which Pillow does not tell."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from xcli.core.errors import ImageError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MAX_SCANS = 500
"""Of one JPEG. Photographs have about ten; a scan takes a few bytes in the file, and a pass over the whole image."""

_ALWAYS_ALLOWED = 32
_PIXELS_OF_ALL_SCANS = 3_000_000_000
"""For more scans than are always allowed: what a processor decodes in ten seconds or so."""

_ZERO_TAIL = bytes(64)
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_SCAN, _END = 0xDA, 0xD9
_WITHOUT_LENGTH = frozenset((0x01, 0xD8))


def check_jpeg(data: bytes, pixels: int, *, one_scan: bool) -> None:
    """Checks the markers of a JPEG for two faults that libjpeg does not report.

    Args:
        data: the file.
        pixels: width times height of the image.
        one_scan: whether its first scan has all components, so that libjpeg refuses others behind it.

    Raises:
        ImageError: `corrupt` for so many scans, at most `MAX_SCANS`, that a small file could occupy a processor for
            minutes; `truncated` where the rest of the file is zeros, as a crash or an interrupted download can leave
            it: they would decode as grey.
    """
    zeros = data.endswith(_ZERO_TAIL)
    most = min(max(_ALWAYS_ALLOWED, _PIXELS_OF_ALL_SCANS // max(1, pixels)), MAX_SCANS)
    # A rough count comes first: it costs next to nothing, and is nearly always enough.
    if not zeros and (one_scan or data.count(b"\xff\xda") <= most):
        return
    scans, at = 0, 2
    while found := _MARKER.search(data, at):
        at, marker = found.end(), found[0][-1]
        if marker == _END:
            return
        scans += marker == _SCAN
        if scans > most:
            raise ImageError("corrupt", f"it has more than {most} scans of {pixels:,} pixels")
        if marker not in _WITHOUT_LENGTH:
            at += max(2, int.from_bytes(data[at : at + 2]))
    if zeros and scans:
        left = len(data.rstrip(b"\0"))
        raise ImageError("truncated", f"behind the first {left:,} of its {len(data):,} bytes there are only zeros")


_SOS_BYTES = 8
"""Of the header of a scan, besides two for each of its components."""

_ARITHMETIC = b"\xff\xc9"

_NO_CODE = b"\xff\0" * 8
"""64 bits with which no Huffman code begins: enough for a decoder to look ahead, too few for the pixels of a block."""


class PrematureEnd(Exception):
    """The decoder of a JPEG needs more data than there are."""


class JpegStream(io.BytesIO):
    """The bytes of a JPEG, handed to libjpeg so that it shows whether it needs all of them and no more.

    libjpeg fills in what is missing, skips what is too much, and warns of both ("premature end of data segment",
    "extraneous bytes before marker"). Pillow discards its warnings. But libjpeg asks for data only when it needs them:
    with the last byte of the compressed data held back, a decoder that ends has met extraneous bytes; one that asks for
    more behind them, where the end marker is held back, meets a premature end. So both are found at no cost.
    """

    _last = _end = None  # positions of the last byte of the compressed data, and behind it
    _asked = False

    def has_one_scan(self, image: ImageFile) -> bool:
        """Whether the first scan of an image that was opened from this stream, and not decoded yet, has all components.

        It is not so for progressive images.
        """
        scan, components = self.tell(), len(image.getbands())
        header = self.getvalue()[max(0, scan - _SOS_BYTES - 2 * components) : scan]
        return header[:2] == b"\xff\xda" and header[4] == components and "progressive" not in image.info

    def watch(self, image: ImageFile) -> bool:
        """Begins to watch an image that was opened from this stream and is not decoded yet.

        Returns False where its data do not show their damage: in several scans, with arithmetic coding, or without an
        end marker.
        """
        data, scan = self.getvalue(), self.tell()
        if not self.has_one_scan(image) or data.find(_ARITHMETIC, 0, scan) >= 0:
            return False
        end = data.find(b"\xff\xd9", scan)
        while end > scan and data[end - 1] == 0xFF:
            end -= 1  # of any number of these the marker may consist
        if end <= scan + 1:
            return False
        self._end = end
        self._last = end - 2 if data[end - 2 : end] == b"\xff\0" else end - 1
        return True

    @property
    def has_extraneous_data(self) -> bool:
        """Whether a decoder that was watched has ended before the data."""
        return self._last is not None and not self._asked

    def read(self, size: int | None = -1) -> bytes:
        """Reads at most `size` bytes; raises PrematureEnd."""
        if self._last is None or self._end is None or size is None:
            return super().read(size)
        at = self.tell()
        if at < self._last:
            return super().read(min(size, self._last - at))
        if at < self._end:
            self._asked = True
            return super().read(self._end - at) + _NO_CODE
        raise PrematureEnd
