"""Converts a decoder's samples to RGB without alpha.

Alpha, transparent palette entries, transparent colours and the part of a GIF's canvas that its first frame does not
cover are composited over white. Colour profiles are not applied, as in Keras.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from xcli.core.errors import ImageError
from xcli.images.decoders import load_decoders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image
    from PIL.ImageFile import ImageFile

_WHITE = (255, 255, 255)
_SIDE = 1024
_PHOTOMETRIC_TAG, _WHITE_IS_ZERO = 262, 0


def to_rgb(file: ImageFile) -> Image.Image:
    """Decodes the first frame to RGB without alpha; raises the ImageError `unsupported`."""
    from PIL import Image

    if file.mode in ("I", "F"):
        raise ImageError("unsupported", f"signed or 32-bit samples (mode {file.mode}); convert the image to 8 bits")
    # These must be read before decoding, which discards where and how the samples lie in the file.
    frame = file.tile[0][1] if file.tile else None
    layout = _layout(file)
    low = _low_bytes(file) if layout == "RGB;16B" and "transparency" in file.info else None
    file.load()
    hidden = _hidden(file, layout, low)
    image = _most_significant(file, layout) if file.mode.startswith("I;16") else file
    try:
        if image.has_transparency_data:
            rgb = _over_white(image)
        else:
            rgb = image if image.mode == "RGB" else image.convert("RGB")
    except (ValueError, ImportError) as error:
        raise ImageError("unsupported", f"no conversion from colour mode {image.mode} to RGB") from error
    if hidden is not None:
        rgb.paste(_WHITE, (0, 0, *rgb.size), hidden)
    if file.format == "GIF" and frame is not None and frame != (0, 0, *file.size):
        canvas = Image.new("RGB", file.size, _WHITE)
        canvas.paste(rgb.crop(frame), frame)
        return canvas
    return rgb


def _tiles(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Yields boxes of at most a megapixel that cover an image, so that a conversion needs memory for one of them."""
    width, height = size
    for top in range(0, height, _SIDE):
        for left in range(0, width, _SIDE):
            yield left, top, min(left + _SIDE, width), min(top + _SIDE, height)


def _over_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    rgb = Image.new("RGB", image.size)
    for box in _tiles(image.size):
        rgba = image.crop(box).convert("RGBA")
        rgb.paste(Image.alpha_composite(Image.new("RGBA", rgba.size, _WHITE), rgba).convert("RGB"), box)
    return rgb


def _layout(file: ImageFile) -> str:
    """Returns Pillow's name for how the samples lie in the file, before they are decoded."""
    if not file.tile:
        return ""
    arguments = file.tile[0][3]
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _low_bytes(image: ImageFile) -> ImageFile:
    """Returns the less significant bytes of a 16-bit RGB PNG; Pillow itself keeps the other ones."""
    assert isinstance(image.fp, io.BytesIO)
    twin = load_decoders()["PNG"](io.BytesIO(image.fp.getvalue()))
    codec, box, offset, _ = twin.tile[0]
    # In the wrong byte order, Pillow takes the less significant byte for the more significant one.
    twin.tile = [type(twin.tile[0])(codec, box, offset, "RGB;16L")]
    return twin


def _hidden(image: Image.Image, layout: str, low: Image.Image | None) -> Image.Image | None:
    """Returns a mask of the one colour that counts as transparent in a grey or RGB image, or None if there is none.

    The colour is removed from the image's `info`, because Pillow would compare it, in the bit depth of the file, with
    samples that were converted to 8 bits.
    """
    import numpy as np
    from PIL import Image

    if image.mode not in ("1", "L", "RGB", "I;16") or "transparency" not in image.info:
        return None
    key = np.asarray(image.info.pop("transparency"), np.int64)
    bits = {"L;2": 2, "L;4": 4}.get(layout, 8)
    hidden = Image.new("L", image.size)
    for box in _tiles(image.size):
        samples = np.asarray(image.crop(box))
        if image.mode == "1":
            match = samples == (key != 0)
        elif image.mode == "I;16":
            match = samples == key
        elif low is not None:
            match = (samples == key >> 8).all(-1) & (np.asarray(low.crop(box)) == key & 255).all(-1)
        else:
            match = samples == (key & (2**bits - 1)) * 255 // (2**bits - 1)
            match = match.all(-1) if match.ndim == 3 else match
        hidden.paste(Image.fromarray(match.astype(np.uint8) * np.uint8(255)), box)
    return hidden


def _most_significant(image: Image.Image, layout: str) -> Image.Image:
    """Converts 16-bit grey, or the 12 bits that some scanners write, to 8-bit grey."""
    import numpy as np
    from PIL import Image

    shift = 4 if layout == "I;12" else 8
    # Pillow inverts TIFFs in which white is zero only up to 8 bits.
    inverted = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO
    grey = Image.new("L", image.size)
    for box in _tiles(image.size):
        samples = (np.asarray(image.crop(box)) >> shift).astype(np.uint8)
        grey.paste(Image.fromarray(~samples if inverted else samples), box)
    return grey
