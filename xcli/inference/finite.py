"""Numbers that are not finite: an image for which the network gives NaN or infinity gets an error row."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from xcli.core.records import ImageBatch
    from xcli.core.tensorflow import Precision

    Arrays = Sequence[NDArray[Any]]


def finite_rows(arrays: Arrays) -> NDArray[np.bool_]:
    """Returns for each image, bool[b], whether all of its numbers in arrays [b, ...] are finite."""
    import numpy as np

    good = np.ones(len(arrays[0]), bool)
    for array in arrays:
        good &= np.isfinite(array).reshape(len(array), -1).all(1)
    return good


def not_finite(precision: Precision) -> ImageError:
    """Returns the error of an image for which a network, computing in `precision`, gives NaN or infinity."""
    advice = "try --precision float32" if precision != "float32" else "no precision is wider; check the model"
    return ImageError("not-finite", f"the network gives NaN or infinity in {precision}; {advice}")


def refuse_not_finite(batch: ImageBatch, results: Arrays, values: Arrays, precision: Precision) -> ImageBatch:
    """Returns the batch with an error for each image whose numbers are not all finite, and that has no error yet.

    Args:
        batch: of b images.
        results: what the network gave, [b, ...] for each output.
        values: the same as the rows will hold them, perhaps in float16.
        precision: of the network's arithmetic.
    """
    good = finite_rows(values)
    if good.all():
        return batch
    computed = finite_rows(results)
    too_large = ImageError("not-finite", "the features are too large for float16; use --dtype float32")
    errors = [
        error or (None if fits else too_large if known else not_finite(precision))
        for error, fits, known in zip(batch.errors, good.tolist(), computed.tolist(), strict=True)
    ]
    return replace(batch, errors=tuple(errors))
