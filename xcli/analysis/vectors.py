"""Tables of features as vectors: opened, checked to be of one kind, and read in blocks of bounded size.

`open_features` opens them, `FeatureTables.blocks` streams them, and `read_matrix` keeps all of them in memory. Vectors
of two tables can be compared only if the same network made them of images that were prepared alike; tables whose
provenance says otherwise are refused by name.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.core.errors import UsageError
from xcli.core.records import FEATURES, OK_STATUS, PATH, STATUS
from xcli.core.text import one_line, short_text
from xcli.tables.formats import open_table
from xcli.tables.provenance import differences, provenance_of
from xcli.tables.rows import flat_features
from xcli.tables.schema import feature_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.tables.base import TableReader

    Transform = Callable[[NDArray[np.float32]], NDArray[np.float32]]

log = logging.getLogger("xcli")

BLOCK_ROWS = 4096
"""Rows of a block: 32 MiB of 2,048 values."""

_PREPARED = ("size", "resize", "interpolation", "crop_pct", "jpeg_shrink", "bit_depth")
_DEFAULTS = {"bit_depth": 16}  # left out of a provenance where it has this value


class Block(NamedTuple):
    """Consecutive rows of the tables.

    Attributes:
        start: number of the first row; the rows of the second table follow those of the first.
        paths: the column `path`, b texts.
        values: float32[b, d], C order; zeros in rows that are not `ok`.
        ok: bool[b], whether a row has a vector: its status is ok, and all values are finite.
    """

    start: int
    paths: pa.StringArray
    values: NDArray[np.float32]
    ok: NDArray[np.bool_]


@dataclass(frozen=True)
class FeatureTables:
    """Tables of features that may be compared with each other.

    Attributes:
        readers: of the tables, in the order given.
        width: values of a vector.
        origin: what made the vectors, as `origin_of` returns it; None if no table says.
    """

    readers: tuple[TableReader, ...]
    width: int
    origin: dict[str, Any] | None

    @property
    def row_count(self) -> int:
        """Number of rows of the tables that tell it without being read."""
        return sum(reader.row_count or 0 for reader in self.readers)

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[Block]:
        """Yields all rows of all tables, `rows` at a time whatever the format; may be called again.

        Raises:
            CheckError: a table is damaged.
        """
        import pyarrow as pa

        start, pending, count = 0, list[pa.RecordBatch](), 0
        for reader in self.readers:
            for batch in reader.batches():
                piece = batch.select([PATH, STATUS, FEATURES])
                while count + piece.num_rows >= rows:
                    pending.append(piece.slice(0, rows - count))
                    piece = piece.slice(rows - count)
                    yield _block(start, pending, self.width)
                    start, pending, count = start + rows, [], 0
                if piece.num_rows:
                    pending.append(piece)
                    count += piece.num_rows
        if pending:
            yield _block(start, pending, self.width)

    def vectors_at(self, table: int, rows: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yields rows of one table, by their sorted numbers in it, with their vectors, which are NaN where not `ok`.

        Of Parquet and NPY little more than these rows is read, of other formats all rows up to the last of them.
        """
        import numpy as np

        for own, batch in self.readers[table].rows(rows):
            block = _block(own[0], [batch.select([PATH, STATUS, FEATURES])], self.width)
            values = np.where(block.ok[:, None], block.values, np.float32(np.nan))
            yield from zip(own, values, strict=True)


@dataclass(frozen=True, eq=False)
class VectorsInMemory(FeatureTables):
    """Vectors as if they were read from a table, with empty paths.

    Attributes:
        values: float[n, d].
        ok: bool[n], which rows have a vector.
    """

    values: NDArray[Any]
    ok: NDArray[np.bool_]

    @property
    def row_count(self) -> int:
        """Number of rows."""
        return len(self.ok)

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[Block]:
        """Yields all rows, see `FeatureTables.blocks`."""
        import numpy as np
        import pyarrow as pa

        for start in range(0, len(self.ok), rows):
            values = self.values[start : start + rows].astype(np.float32, order="C")
            ok = self.ok[start : start + rows] & np.isfinite(values).all(axis=1)
            values[~ok] = 0
            yield Block(start, pa.array([""] * len(ok), pa.string()), values, ok)


def _block(start: int, batches: Sequence[pa.RecordBatch], width: int) -> Block:
    import numpy as np
    import pyarrow as pa

    rows = sum(batch.num_rows for batch in batches)
    values, ok = np.empty((rows, width), np.float32), np.empty(rows, bool)
    at = 0
    for batch in batches:
        end = at + batch.num_rows
        values[at:end], is_ok, is_finite = batch_vectors(batch, width)
        ok[at:end] = is_ok & is_finite
        at = end
    values[~ok] = 0
    paths = pa.concat_arrays([batch.column(0) for batch in batches])
    return Block(start, paths.fill_null(""), values, ok)


def batch_vectors(
    batch: pa.RecordBatch, width: int
) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns vectors [b, width], NaN where null, and of each whether its row is ok, and whether it is finite."""
    import numpy as np
    import pyarrow.compute as pc

    values = flat_features(batch.column(FEATURES)).to_numpy(zero_copy_only=False).reshape(batch.num_rows, width)
    is_ok = pc.equal(batch.column(STATUS), OK_STATUS).fill_null(False).to_numpy(zero_copy_only=False)
    return values, is_ok, np.isfinite(values).all(axis=1)


def open_features(names: Sequence[str], like: FeatureTables | None = None) -> FeatureTables:
    """Opens tables that `features`, or `classify --features-out`, wrote, of any formats.

    Args:
        names: files, directories of parts, or URLs of either; at least one.
        like: other tables, with whose vectors these must be comparable.

    Raises:
        SourceError: there is no such table.
        UsageError: a table is not of features, holds maps instead of vectors, or differs from the first in its
            backbone, layer, pooling or preprocessing.
        CheckError: a table is damaged.
    """
    readers = tuple(open_table(name) for name in names)
    widths = [vector_width(reader) for reader in readers]
    known = [] if like is None else [(like.readers[0].name, like.width, like.origin)]
    for reader, width in zip(readers, widths, strict=True):
        origin = origin_of(reader)
        if origin is None:
            log.warning("%s does not say what made it: take care that the vectors are alike", one_line(reader.name))
        for name, other_width, other in known:
            _check_alike(reader.name, width, origin, name, other_width, other)
        known.append((reader.name, width, origin))
    origins = [origin for _, _, origin in known if origin is not None]
    return FeatureTables(readers, widths[0], origins[0] if origins else None)


def vector_width(reader: TableReader) -> int:
    """Returns how many values the vectors of a table of features have.

    Raises:
        UsageError: it is not of features, or holds maps instead of vectors.
    """
    shape = feature_shape(reader.schema)
    if shape is None:
        raise UsageError(f"{one_line(reader.name)} is a table of classify; give one that features wrote")
    if len(shape) != 1:
        shown = "x".join(map(str, shape))
        raise UsageError(
            f"{one_line(reader.name)} holds maps of {shown} values, not vectors: use features --pooling avg"
        )
    return shape[0]


def origin_of(reader: TableReader) -> dict[str, Any] | None:
    """Returns what made the vectors of a table, in nested dictionaries; None where the table does not say.

    It has what must be equal for vectors to be comparable: the digest and the input range of the network, how images
    were prepared, layer, pooling and scaling. Settings that change values only by rounding are not in it.
    """
    provenance = reader.provenance or (None if reader.meta is None else provenance_of(reader.meta))
    if not provenance or "sha256" not in provenance.get("model", {}):
        return None
    model, options = provenance["model"], provenance.get("options", {})
    of_features = "pooling" in options  # else it was written beside the table of classify
    prepared = _DEFAULTS | provenance.get("preprocessing", {})
    return {
        "model": {"sha256": model["sha256"], "input_range": model.get("input_range")},
        "preprocessing": {name: prepared.get(name) for name in _PREPARED},
        "options": {
            "pooling": options["pooling"] if of_features else options.get("features", "avg"),
            "layer": options.get("layer"),
            "normalize": bool(options.get("normalize", False)),
        },
    }


def _check_alike(
    name: str,
    width: int,
    origin: dict[str, Any] | None,
    other_name: str,
    other_width: int,
    other: dict[str, Any] | None,
) -> None:
    names = f"{one_line(name)} and {one_line(other_name)}"
    if width != other_width:
        raise UsageError(f"{names} cannot be compared: vectors of {width:,} and of {other_width:,} values")
    if origin is None or other is None:
        return
    found = differences(origin, other)
    if found:
        shown = ", ".join(f"{key} ({short_text(mine)}, {short_text(theirs)})" for key, mine, theirs in found)
        raise UsageError(f"{names} cannot be compared: they differ in {shown}")


@dataclass(frozen=True)
class Matrix:
    """All rows of some tables in memory.

    Attributes:
        values: float32[n, k] or float16[n, k], zeros in rows that are not `ok`.
        ok: bool[n], see `Block`.
        paths: n texts.
    """

    values: NDArray[Any]
    ok: NDArray[np.bool_]
    paths: pa.ChunkedArray


def read_matrix(
    tables: FeatureTables, transform: Transform | None = None, *, width: int | None = None, dtype: str = "float32"
) -> Matrix:
    """Reads all vectors, each block after `transform`; memory is that of the result and an eighth of it.

    Args:
        tables: what is read.
        transform: from float32[b, d] to float32[b, `width`]; without it vectors are as they are.
        width: values of a vector after `transform`.
        dtype: `float32` or `float16`, of the result.
    """
    import numpy as np
    import pyarrow as pa

    size = width or tables.width
    values, ok, paths, count = np.empty((0, size), dtype), [np.zeros(0, bool)], list[pa.Array](), 0
    for block in tables.blocks():
        end = count + len(block.ok)
        if end > len(values):
            # The system moves pages of a large array instead of copying them.
            values.resize((end + end // 8, size), refcheck=False)
        values[count:end] = block.values if transform is None else transform(block.values)
        values[count:end][~block.ok] = 0
        ok.append(block.ok)
        paths.append(block.paths)
        count = end
    values.resize((count, size), refcheck=False)
    return Matrix(values, np.concatenate(ok), pa.chunked_array(paths, pa.string()))
