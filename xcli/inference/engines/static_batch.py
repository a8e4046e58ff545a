"""Batches of one shape, whatever the number of images: an image's result depends neither on its place nor on others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xcli.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray


def check_pixels(pixels: NDArray[Any], size: int, batch_size: int) -> None:
    """Raises UsageError unless the pixels are uint8[b, size, size, 3], b at most `batch_size`."""
    import numpy as np

    fits = pixels.shape[1:] == (size, size, 3) and len(pixels) <= batch_size
    if not fits or pixels.dtype != np.uint8:
        expected = f"up to {batch_size} images of uint8[{size}, {size}, 3]"
        raise UsageError(f"the engine takes {expected}; received {pixels.dtype}{list(pixels.shape)}")


def compute_in_pieces(
    pixels: NDArray[np.uint8],
    batch_size: int,
    compute: Callable[[NDArray[np.uint8]], Sequence[NDArray[np.float32]]],
) -> tuple[NDArray[np.float32], ...]:
    """Returns the results for uint8[b, size, size, 3], computed `batch_size` images at a time.

    Args:
        pixels: any number of images; the last piece is padded with zeros, and its results are cut.
        batch_size: images that `compute` takes.
        compute: gives arrays [batch_size, ...], one for each output.
    """
    import numpy as np

    pieces = []
    for start in range(0, max(1, len(pixels)), batch_size):
        piece = pixels[start : start + batch_size]
        count = len(piece)
        if count < batch_size:
            piece = np.concatenate([piece, np.zeros((batch_size - count, *piece.shape[1:]), np.uint8)])
        pieces.append([output[:count] for output in compute(piece)])
    if len(pieces) == 1:
        return tuple(pieces[0])
    return tuple(np.concatenate(parts) for parts in zip(*pieces, strict=True))
