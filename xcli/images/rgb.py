"""Converts a decoder's samples to RGB without alpha.

Alpha, transparent palette entries, transparent colours and the part of a GIF's canvas that its first frame does not
cover are composited over white. Colour profiles are not applied, as in Keras.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ImageError
from xcli.images.decoders import load_decoders
from xcli.images.warnings import FEW_BITS, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from PIL.ImageFile import ImageFile

MIN_BIT_DEPTH, MAX_BIT_DEPTH = 8, 16

_FEW = 12
"""Images of 16 bits that could do with so many are warned of."""

_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_WITH_LOW_BYTES = ("RGB", "RGBX", "RGBA", "CMYK")
_WHITE = (255, 255, 255)
_SIDE = 1024
_PHOTOMETRIC_TAG, _WHITE_IS_ZERO = 262, 0


def to_rgb(file: ImageFile, bit_depth: int = MAX_BIT_DEPTH) -> Image.Image:
    """Decodes the first frame to RGB without alpha; raises the ImageError `unsupported`.

    Of samples of 16 bits, the most significant 8 of the last `bit_depth` bits are kept.
    """
    from PIL import Image

    if file.format == "PPM" and file.mode == "I":
        return _wide_grey(file)
    if file.mode in ("I", "F"):
        raise ImageError("unsupported", f"signed or 32-bit samples (mode {file.mode}); convert the image to 8 bits")
    # These must be read before decoding, which discards where and how the samples lie in the file.
    has_false_alpha = file.format == "TGA" and not _targa_alpha_bits(file)
    frame = file.tile[0][1] if file.tile else None
    layout = _layout(file)
    wide = ";16" in layout and not file.mode.startswith("I;16")
    keyed = layout == "RGB;16B" and "transparency" in file.info
    low = _low_bytes(file, layout) if keyed or (wide and bit_depth < MAX_BIT_DEPTH) else None
    file.load()
    hidden = _hidden(file, layout, low)
    image: Image.Image = file
    if file.mode.startswith("I;16"):
        image = _most_significant(file, layout, bit_depth)
    elif wide and low is not None and bit_depth < MAX_BIT_DEPTH:
        image = _lower_bits(file, low, bit_depth)
    elif wide and max(high for _, high in _extrema(file)) < 1 << _FEW - 8:
        warn(FEW_BITS)
    if has_false_alpha:
        image = _without_alpha(image)
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


def _wide_grey(file: ImageFile) -> Image.Image:
    """Decodes a PGM of more than 8 bits, which Pillow has scaled to 16."""
    import numpy as np
    from PIL import Image

    file.load()
    rgb = Image.new("RGB", file.size)
    for box in _tiles(file.size):
        eight = (np.asarray(file.crop(box)) >> 8).astype(np.uint8)
        rgb.paste(Image.fromarray(eight).convert("RGB"), box)
    return rgb


def _targa_alpha_bits(file: ImageFile) -> int:
    """Returns how many bits of each sample of a Targa image are alpha; 0 if its fourth band means nothing."""
    stream = file.fp
    return stream.getvalue()[17] & 15 if isinstance(stream, io.BytesIO) else 0


def _without_alpha(image: Image.Image) -> Image.Image:
    """Returns an image without its fourth band, whatever that holds."""
    if image.mode == "RGBA":
        from PIL import Image

        return Image.merge("RGB", image.split()[:3])
    return image.getchannel("L") if image.mode == "LA" else image


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


def _low_bytes(image: ImageFile, layout: str) -> ImageFile:
    """Returns the less significant bytes of an image with several samples of 16 bits; Pillow itself keeps the others.

    Raises:
        ImageError: Pillow cannot read them; `unsupported`.
    """
    name, _, order = layout.partition(";16")
    stream = image.fp
    if name not in _WITH_LOW_BYTES or order not in _OTHER_ORDER or not isinstance(stream, io.BytesIO):
        raise ImageError("unsupported", f"--bit-depth is not possible for samples that lie as {layout}")
    twin = load_decoders()[str(image.format)](io.BytesIO(stream.getvalue()))
    twin.seek(image.tell())
    # In the wrong byte order, Pillow takes the less significant byte for the more significant one.
    other = f"{name};16{_OTHER_ORDER[order]}"
    twin.tile = [
        tile._replace(args=(other, *tile.args[1:]) if isinstance(tile.args, tuple) else other) for tile in twin.tile
    ]
    return twin


def _extrema(image: Image.Image) -> list[tuple[int, int]]:
    """Returns the smallest and largest sample of each band but alpha."""
    found: Any = image.getextrema()
    return [band for band, name in zip(found, image.getbands(), strict=True) if name != "A"]


def _eight_bits(samples: NDArray[np.uint16], bit_depth: int) -> NDArray[np.uint8]:
    import numpy as np

    eight: NDArray[np.uint8] = np.minimum(samples >> (bit_depth - 8), 255).astype(np.uint8)
    return eight


def _lower_bits(high: Image.Image, low: Image.Image, bit_depth: int) -> Image.Image:
    """Joins the more and less significant bytes of an image, and makes 8 of the `bit_depth` bits."""
    import numpy as np
    from PIL import Image

    joined = Image.new(high.mode, high.size)
    for box in _tiles(high.size):
        samples = np.asarray(high.crop(box)).astype(np.uint16) << 8 | np.asarray(low.crop(box))
        size = (box[2] - box[0], box[3] - box[1])
        joined.paste(Image.frombytes(high.mode, size, _eight_bits(samples, bit_depth).tobytes()), box)
    return joined


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


def _most_significant(image: Image.Image, layout: str, bit_depth: int) -> Image.Image:
    """Converts 16-bit grey, of which `bit_depth` bits are used, or the 12 bits that some scanners write, to 8 bits."""
    import numpy as np
    from PIL import Image

    packed = layout == "I;12"
    # Pillow inverts TIFFs in which white is zero only up to 8 bits.
    inverted = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO
    grey = Image.new("L", image.size)
    highest = 0
    for box in _tiles(image.size):
        samples = np.asarray(image.crop(box))
        highest = max(highest, int(samples.max()))
        eight = _eight_bits(samples, 12 if packed else bit_depth)
        grey.paste(Image.fromarray(~eight if inverted else eight), box)
    if 0 < highest < 1 << _FEW and not packed and bit_depth == MAX_BIT_DEPTH:
        warn(FEW_BITS)
    return grey
