"""How the peers write their features: one row an image, path and 2048 numbers, as Parquet or as CSV."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


def write(path: str, names: Sequence[str], features: np.ndarray) -> None:
    """Writes the table.

    Args:
        path: ends in `.parquet` or `.csv`.
        names: of the images.
        features: float32[images, width].
    """
    if path.endswith(".parquet"):
        width = features.shape[1]
        column = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), width)
        pyarrow.parquet.write_table(pa.table({"path": list(names), "features": column}), path)
    else:
        columns = {f"f{index}": features[:, index] for index in range(features.shape[1])}
        pyarrow.csv.write_csv(pa.table({"path": list(names), **columns}), path)
