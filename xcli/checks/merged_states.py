"""The states of the images of a merged table, and the fingerprint of the run that would have written it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xcli.core.errors import CheckError
from xcli.core.records import PATH
from xcli.core.text import one_line
from xcli.tables.provenance import LISTING, digest
from xcli.tables.states import States, states_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.tables.base import TableReader
    from xcli.tables.formats import TableOutput


def merged_states(readers: Sequence[TableReader], format: str, provenance: Mapping[str, Any]) -> States | None:
    """Returns the states of all rows of some tables, one table after the other.

    Args:
        readers: of the tables.
        format: of the merged table.
        provenance: of the merged table.

    Returns:
        The states, with the fingerprint of the undivided run if there is one; None if a table has none.
    """
    import pyarrow as pa

    try:
        found = [states_of(reader) for reader in readers]
    except CheckError:
        return None
    states = [one for one in found if one is not None]
    if len(states) < len(found):
        return None
    undivided = [_undivided(one.fingerprint) for one in states]
    first = undivided[0]
    one_run = all(one == first for one in undivided) and first is not None
    known = one_run and first["format"] == format and first["provenance"] == provenance
    return States(pa.concat_tables([one.rows for one in states]), first if known else None, "")


def _undivided(fingerprint: dict[str, Any] | None) -> Any:
    """Returns the fingerprint of the run of which this was a shard; None if merging does not give its bytes."""
    if fingerprint is None or {"runner", "features_out", "csv_bom"} & fingerprint.keys():
        return None
    return fingerprint | {"sources": fingerprint["sources"] | {"shard": None}}


def recorded_positions(readers: Sequence[TableReader], states: States) -> NDArray[np.int64] | None:
    """Returns for each row of all shards, one after the other, its position in the merged table.

    Args:
        readers: of the shards.
        states: of all rows.

    Returns:
        int64[rows]; None if the shards did not record it.

    Raises:
        CheckError: the shards listed other images than one another, or some of the images have no row.
    """
    import numpy as np

    listings = [(reader.meta or {}).get(LISTING) for reader in readers]
    positions, first = states.rows.column("position"), listings[0]
    if None in listings or first is None or positions.null_count:
        return None
    for reader, listing in zip(readers, listings, strict=True):
        if listing != first:
            raise CheckError(
                f"{one_line(readers[0].name)} and {one_line(reader.name)} were made when the sources had other images: "
                "bring each shard up to date (--update), or give --source"
            )
    images = int(first.partition(" ")[0])
    found: NDArray[np.int64] = positions.to_numpy()
    if not np.array_equal(np.sort(found), np.arange(images)):
        missing = images - len(np.unique(found))
        raise CheckError(f"these shards do not have one row for each of the {images:,} images: {missing:,} have none")
    return found


def write_merged(
    output: TableOutput,
    batches: Iterable[pa.RecordBatch],
    states: States | None,
    positions: NDArray[np.int64] | None,
) -> dict[str, str]:
    """Writes the rows of a merged table, and the states of their images.

    Args:
        output: the table.
        batches: its rows.
        states: of the rows of all shards, one shard after the other; None writes no states.
        positions: int64[rows], of each of these rows the position in the merged table; None if it is the same.

    Returns:
        Members of `FILE.meta.json`.
    """
    import numpy as np
    import pyarrow as pa

    if states is None:
        for batch in batches:
            output.write(batch)
        return {}
    writer = output.open_states(states.fingerprint)
    try:
        rows, begin = states.rows, 0
        nothing = pa.nulls(len(rows), pa.int64())  # only shards have positions
        rows = rows.set_column(rows.schema.get_field_index("position"), "position", nothing).combine_chunks()
        order = np.arange(rows.num_rows) if positions is None else np.argsort(positions, kind="stable")
        for batch in batches:
            output.write(batch)
            own = rows.take(pa.array(order[begin : begin + batch.num_rows]))
            begin += batch.num_rows
            for piece in own.to_batches():
                writer.copy(batch.column(PATH), piece)
        member = writer.close()
    except BaseException:
        writer.abandon()
        raise
    fingerprint = states.fingerprint
    return member if fingerprint is None else member | {"fingerprint": digest(fingerprint)}
