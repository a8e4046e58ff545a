"""JPEG XL: reads size and depth from a file's header, and decodes it with `imagecodecs`, which is an extra."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from xcli.core.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

CODESTREAM_SIGNATURE = b"\xff\x0a"
CONTAINER_SIGNATURE = b"\0\0\0\x0cJXL \r\n\x87\n"

_HEADER_BYTES = 64
"""Number of bytes that the fields which are read here need at most."""

_MAX_BOXES = 1000

_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
"""Width and height in proportion, by the number in the header less one."""

# Each number is coded in one of four ways, which two bits before it choose: a least value, and how many bits are added.
_SIDE = ((1, 9), (1, 13), (1, 18), (1, 30))
_PREVIEW_SIDE = ((1, 6), (65, 8), (321, 10), (1345, 12))
_PREVIEW_EIGHTH = ((16, 0), (32, 0), (1, 5), (33, 9))
_TICKS = ((100, 0), (1000, 0), (1, 10), (1, 30))
_TICKS_DIVISOR = ((1, 0), (1001, 0), (1, 8), (1, 10))
_LOOPS = ((0, 0), (0, 3), (0, 16), (0, 32))
_DEPTH = ((8, 0), (10, 0), (12, 0), (1, 6))


class Header(NamedTuple):
    """The size in pixels, before the image is turned upright, and the number of bits of a sample."""

    width: int
    height: int
    bits: int


class _Bits:
    """The bits of a header, each byte from its lowest bit on."""

    def __init__(self, data: bytes) -> None:
        self._rest, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ImageError("truncated", "the JPEGXL header ends early")
        value = self._rest & (1 << count) - 1
        self._rest >>= count
        return value

    def number(self, ways: tuple[tuple[int, int], ...]) -> int:
        least, count = ways[self.take(2)]
        return least + self.take(count)

    def side(self) -> Callable[[], int]:
        """Reads how the sides are coded; returns what reads one of them."""
        return (lambda: 8 * (1 + self.take(5))) if self.take(1) else (lambda: self.number(_SIDE))

    def preview_side(self) -> Callable[[], int]:
        return (lambda: 8 * self.number(_PREVIEW_EIGHTH)) if self.take(1) else (lambda: self.number(_PREVIEW_SIDE))

    def size(self, side: Callable[[], int]) -> tuple[int, int]:
        height = side()
        ratio = self.take(3)
        if not ratio:
            return side(), height
        across, down = _RATIOS[ratio - 1]
        return height * across // down, height


def read_header(data: bytes) -> Header:
    """Reads the header of a bare code stream or of a container, without the decoder.

    Raises:
        ImageError: it is `truncated` or `corrupt`, or announces samples in floating point (`unsupported`).
    """
    bits = _Bits(_codestream(data)[len(CODESTREAM_SIGNATURE) :])
    width, height = bits.size(bits.side())
    if bits.take(1):  # everything else has its default
        return Header(width, height, 8)
    if bits.take(1):  # extra fields
        bits.take(3)  # the orientation
        if bits.take(1):  # the size at which it is to be shown
            bits.size(bits.side())
        if bits.take(1):
            bits.size(bits.preview_side())
        if bits.take(1):  # an animation
            for ways in (_TICKS, _TICKS_DIVISOR, _LOOPS):
                bits.number(ways)
            bits.take(1)
    if bits.take(1):
        raise ImageError("unsupported", "samples in floating point; convert the image to 8 bits")
    return Header(width, height, bits.number(_DEPTH))


def _codestream(data: bytes) -> bytes:
    """Returns the first `_HEADER_BYTES` of the code stream, or what there is of them."""
    if data.startswith(CODESTREAM_SIGNATURE):
        return data[:_HEADER_BYTES]
    found, start = b"", 0
    for _ in range(_MAX_BOXES):
        if start + 8 > len(data) or len(found) >= _HEADER_BYTES:
            break
        size, kind, begin = int.from_bytes(data[start : start + 4]), data[start + 4 : start + 8], start + 8
        if size == 1:
            size, begin = int.from_bytes(data[begin : begin + 8]), begin + 8
        end = start + size if size else len(data)
        if end < begin:
            raise ImageError("corrupt", f"a box of {size} bytes")
        if kind in (b"jxlc", b"jxlp"):
            begin += 4 if kind == b"jxlp" else 0  # the number of the piece
            found += data[begin : min(end, begin + _HEADER_BYTES)]
        start = end
    if found and not found.startswith(CODESTREAM_SIGNATURE):
        raise ImageError("corrupt", "the container has no code stream")
    return found


def is_supported() -> bool:
    """Says whether the decoder is installed, without importing it."""
    try:
        return find_spec("imagecodecs") is not None
    except ValueError:  # an entry of sys.modules that is None
        return False


@cache
def opener() -> Callable[[IO[bytes]], ImageFile]:
    """Returns what opens a file for Pillow; its pixels are decoded when they are loaded."""
    from PIL import ImageFile

    class JpegXlFile(ImageFile.ImageFile):
        format = "JPEGXL"

        def _open(self) -> None:
            self._data = b"" if self.fp is None else self.fp.read()
            header = read_header(self._data)
            self._size, self._mode = (header.width, header.height), "RGB"

        def load(self) -> Any:
            if self._data:
                image, self._data = _decode(self._data), b""
                self.im, self._size, self._mode = image.im, image.size, image.mode
            return super().load()

    return JpegXlFile


def _decode(data: bytes) -> Image:
    """Decodes the first frame, upright, to L, LA, RGB or RGBA; of more than 8 bits the most significant are kept."""
    import numpy as np
    from imagecodecs import JpegxlError, jpegxl_decode
    from PIL import Image

    header = read_header(data)
    try:
        samples = jpegxl_decode(data, index=0, numthreads=1)  # images are decoded in parallel already
    except JpegxlError as error:
        reason = "truncated" if "NEED_MORE_INPUT" in str(error) else "corrupt"
        raise ImageError(reason, str(error)) from error
    bands = samples.shape[2] if samples.ndim == 3 else 1
    upright = samples.shape[:2] in ((header.height, header.width), (header.width, header.height))
    if samples.dtype not in (np.uint8, np.uint16) or not upright or bands > 4:
        raise ImageError("unsupported", f"samples of type {samples.dtype} in the shape {samples.shape}")
    if header.bits < 8:
        samples = (samples * 255.0 / ((1 << header.bits) - 1)).astype(np.uint8)
    elif samples.dtype == np.uint16:
        samples = (samples >> max(0, header.bits - 8)).astype(np.uint8)
    return Image.fromarray(samples[..., 0] if samples.ndim == 3 and bands == 1 else samples)
