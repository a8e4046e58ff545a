"""Vectors centred and whitened by the covariance of a collection, so that what its images share counts for little.

Of photographs of one kind all features point the same way, and a plain cosine takes look-alikes for copies. A fit has
the mean of the vectors and the leading directions of their covariance; `Whitening.transform` takes the mean away,
scales each direction to a variance of one, and the vector to unit length, so that a product of two is a cosine.

From few rows a covariance cannot be estimated: the directions of the differences between the few copies in it would
seem to have almost no variance, and scaling would blow these differences up. So the estimate is drawn towards a
multiple of the identity, by as much as minimizes its expected error (Ledoit and Wolf, 2004): a table of 100 rows is
compared more as by a centred cosine, one of 10,000 almost wholly whitened.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xcli.core.errors import CheckError, UsageError
from xcli.core.text import one_line
from xcli.storage import disk

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from xcli.analysis.vectors import Block, FeatureTables

COMPONENTS = 512
"""Directions that are kept; twice as many find hardly more, and cost twice as much."""

FIT_ROWS = 50_000
"""Rows to which a whitening is fitted; more change it hardly, and take a second for each ten thousand."""

_NO_SPREAD = 1e-9  # of the greatest variance: what rounding makes of none

_MAX_BYTES = 1 << 30  # of a fit that is read


@dataclass(frozen=True, eq=False)
class Whitening:
    """A fit.

    Attributes:
        mean: float32[d].
        projection: float32[d, k], the directions as columns, each divided by the square root of its variance.
        rows: number of vectors from which it was estimated.
        shrinkage: from 0 to 1, the weight of the identity in the estimate.
    """

    mean: NDArray[np.float32]
    projection: NDArray[np.float32]
    rows: int
    shrinkage: float

    @property
    def components(self) -> int:
        """Values of a transformed vector."""
        return int(self.projection.shape[1])

    def transform(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns float32[b, k] of unit length for float32[b, d]; zeros where a vector is the mean itself."""
        import numpy as np

        found: NDArray[Any] = (values - self.mean) @ self.projection
        length = np.sqrt(np.einsum("ij,ij->i", found, found, dtype=np.float64))
        found *= np.divide(1, length, out=np.zeros_like(length), where=length > 0)[:, None]
        return found

    def save(self) -> bytes:
        """Returns the content of an NPZ file with the arrays; the bytes are those of the fit alone."""
        import numpy as np

        file = io.BytesIO()
        arrays = {
            "mean": self.mean,
            "projection": self.projection,
            "rows": np.int64(self.rows),
            "shrinkage": np.float64(self.shrinkage),
        }
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                member = io.BytesIO()
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())  # without the time of now
        return file.getvalue()

    @property
    def digest(self) -> str:
        """The SHA-256 of `save`, in hexadecimal."""
        return hashlib.sha256(self.save()).hexdigest()


def load_whitening(path: str) -> Whitening:
    """Reads what `Whitening.save` returned from a file; no pickle is read.

    Raises:
        FileNotFoundError: there is no such file.
        CheckError: it is damaged, or another file.
    """
    try:
        return parse_whitening(disk.read_file(path, _MAX_BYTES))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise CheckError(f"{one_line(path)} is no fit of this program, or damaged: {one_line(str(error))}") from error


def parse_whitening(data: bytes) -> Whitening:
    """Returns the fit of which `Whitening.save` returned this; raises ValueError if it did not."""
    import numpy as np

    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            mean, projection, rows, shrinkage = (arrays[key] for key in ("mean", "projection", "rows", "shrinkage"))
        if mean.dtype != np.float32 or projection.dtype != np.float32 or mean.shape != projection.shape[:1]:
            raise ValueError("its arrays have other types or shapes")
        return Whitening(mean, projection, int(rows), float(shrinkage))
    except (TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(str(error)) from error


def fit_tables(*tables: FeatureTables, leave_out: int = 0) -> Whitening:
    """Reads tables once, and fits to all rows, or to each n-th, so that they are at most `FIT_ROWS`.

    Of tables that do not tell their number of rows all are taken.

    Args:
        tables: what is read.
        leave_out: see `fit_whitening`.

    Raises:
        UsageError: no row has a vector.
        CheckError: a table is damaged.
    """
    step = max(1, -(-sum(one.row_count for one in tables) // FIT_ROWS))
    blocks = (block for one in tables for block in one.blocks())
    sample = (one._replace(values=one.values[::step], ok=one.ok[::step]) for one in blocks)
    return fit_whitening(sample, leave_out=leave_out)


def fit_whitening(blocks: Iterable[Block], components: int = COMPONENTS, *, leave_out: int = 0) -> Whitening:
    """Fits to the vectors of some blocks, which are read once; memory is that of some matrices of d by d in float64.

    Args:
        blocks: the vectors.
        components: directions that are kept.
        leave_out: leading directions that are not: what images of one kind have in common is in them, and what tells
            a copy from a look-alike is in those that follow. Of few rows, or of few dimensions, a part of both is
            taken, because in the last directions of a sample there is little but the differences of its pairs.

    Raises:
        UsageError: no row has a vector.
    """
    import numpy as np

    sums = _Sums()
    for block in blocks:
        if block.ok.any():
            sums.add(block.values[block.ok].astype(np.float64))
    if not sums.rows:
        raise UsageError("no row of the table has a vector: all of them are error rows")
    covariance = sums.covariance()
    shrinkage = _shrinkage(covariance, sums.rows, sums.fourth())
    variances, directions = _directions(covariance, max(sums.rows - 1, 1 if leave_out else components))
    level = max(float(np.trace(covariance)) / len(covariance), 0.0)
    kept = slice(components)
    if leave_out:
        spread = int((variances > _NO_SPREAD * variances[-1]).sum())
        end = max(1, min(leave_out + components, spread, sums.rows * 3 // 8))
        kept = slice(end * leave_out // (leave_out + components), end)
    variances, directions = variances[::-1][kept], directions[:, ::-1][:, kept]
    variances = (1 - shrinkage) * np.maximum(variances, 0) + shrinkage * level
    # Directions without any variance are left out: in them there is nothing to scale.
    info = np.finfo(np.float32)
    usable = variances > float(info.eps) * max(float(variances[0]), float(info.tiny))
    scale = np.divide(1, np.sqrt(variances), out=np.zeros_like(variances), where=usable)
    projection = np.ascontiguousarray(directions * scale, np.float32)
    return Whitening((sums.shift + sums.offset).astype(np.float32), projection, sums.rows, shrinkage)


class _Sums:
    """Sums over vectors y, from which a first guess of their mean was taken so that squares keep their digits."""

    def __init__(self) -> None:
        import numpy as np

        self.rows = 0
        self.shift = self._first = self._cubes = self._scatter = np.zeros(0)
        self._fourths = 0.0

    def add(self, values: NDArray[np.float64]) -> None:
        import numpy as np

        if not self.rows:
            self.shift = values.mean(axis=0)
            self._first, self._cubes = np.zeros_like(self.shift), np.zeros_like(self.shift)
            self._scatter = np.zeros((len(self.shift), len(self.shift)))
        values -= self.shift
        squares = np.einsum("ij,ij->i", values, values)
        self._first += values.sum(axis=0)
        self._scatter += values.T @ values
        self._cubes += squares @ values
        self._fourths += float(squares @ squares)
        self.rows += len(values)

    @property
    def offset(self) -> NDArray[np.float64]:
        """The mean of y."""
        return self._first / self.rows

    def covariance(self) -> NDArray[np.float64]:
        import numpy as np

        found: NDArray[np.float64] = self._scatter / self.rows - np.outer(self.offset, self.offset)
        return found

    def fourth(self) -> float:
        """Returns the sum of the fourth powers of the distances from the mean."""
        import numpy as np

        offset, rows = self.offset, self.rows
        square = float(offset @ offset)
        inner = 4 * float(offset @ self._scatter @ offset) - 4 * float(self._cubes @ offset)
        return self._fourths + inner + 2 * square * float(np.trace(self._scatter)) - 3 * rows * square**2


def _directions(covariance: NDArray[np.float64], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns variances float64[k], ascending, and directions float64[d, k]; k is d, or a count below half of d.

    Args:
        covariance: float64[d, d].
        count: no less than its rank. Beyond the rank, directions are any in which nothing varies.
    """
    import numpy as np

    width = len(covariance)
    if 2 * count > width:
        return np.linalg.eigh(covariance)
    # Random columns, multiplied by it, span all in which anything varies; to decompose it whole takes seconds.
    spanned = covariance @ np.random.default_rng(0).standard_normal((width, count))
    basis = np.linalg.qr(spanned)[0]
    variances, turned = np.linalg.eigh(basis.T @ covariance @ basis)
    return variances, basis @ turned


def _shrinkage(covariance: NDArray[np.float64], rows: int, fourth: float) -> float:
    """Returns the weight of the identity by Ledoit and Wolf, given the sum of the fourth powers of the lengths."""
    import numpy as np

    width = len(covariance)
    squares = float(np.einsum("ij,ij->", covariance, covariance))
    dispersion = squares - float(np.trace(covariance)) ** 2 / width
    error = max(fourth / rows - squares, 0.0) / rows
    return min(1.0, error / dispersion) if dispersion > 0 else 1.0
