"""Which rows of earlier runs are still valid, and the order of the rows in the output."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING, Any

from xcli.core.errors import OutputError, reason_of
from xcli.core.records import ERROR, ERROR_STATUS, STATUS, FileState, ImageRef
from xcli.core.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.sources.listing import WholeListing
    from xcli.tables.states import StatesWriter

KEY, SIZE, MTIME = "xception:key", "xception:size", "xception:mtime"
"""Columns that a part has in addition to those of the output: of the image, `key_of`, and the state of its file."""

STATE_COLUMNS = [STATUS, ERROR, KEY, SIZE, MTIME]
"""Columns that `FinishedRows` needs."""

PASSING = ("missing", "unreadable", "timeout")
"""Reasons of errors that may have passed though the file is the same: those of its server, its disk, its name."""

_MAX_RANGE = (1 << 16) - 1  # rows of a range of a `RowOrder`, in 16 bits


def state_fields() -> list[pa.Field]:
    """Returns the fields of the columns `KEY`, `SIZE` and `MTIME`."""
    import pyarrow as pa

    return [pa.field(KEY, pa.uint64()), pa.field(SIZE, pa.int64()), pa.field(MTIME, pa.int64())]


def state_columns(keys: Sequence[int], states: Sequence[FileState | None]) -> list[pa.Array]:
    """Returns the columns of `state_fields` for rows with these keys and states."""
    import pyarrow as pa

    return [
        pa.array(keys, pa.uint64()),
        pa.array([None if state is None else state.size for state in states], pa.int64()),
        pa.array([None if state is None else state.mtime for state in states], pa.int64()),
    ]


def key_of(ref: ImageRef) -> int:
    """Returns a 64-bit hash of the path, the values copied from a manifest, and the offset in an archive."""
    return plain_key(ref.path, ref.location.offset, repr(ref.extra) if ref.extra else "")


def plain_key(path: str, offset: int | None = None, extra: str = "") -> int:
    """Returns what `key_of` does, of an image without values from a manifest."""
    text = f"{path}\0{extra}" if offset is None else f"{path}\0{extra}\0{offset}"
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


class FinishedRows:
    """An index of the rows of earlier runs by key; it takes 30 bytes of memory for each row, and 37 while it is made.

    Args:
        tables: one a part, in the order of their numbers; each is needed only until the next is taken.
        retry_errors: error rows are not valid, so that they are computed again.
        key: returns the key of an image, as the tables have it.

    Attributes:
        retry_errors: as given.
        base_rows: number of rows that come first, those of a finished output (`xcli.outputs.base_rows.OutputRows`).
        carried: of these rows the keys with the values of the manifest; None if they have none.
        retried: numbers of the error rows that were found, and are not valid because they are to be tried again.
    """

    base_rows = 0
    carried: memoryview | None = None

    def __init__(self, tables: Iterable[pa.Table], retry_errors: bool, key: Callable[[ImageRef], int] = key_of) -> None:
        self.retry_errors, self.key = retry_errors, key
        self.retried = array("q")
        self._reasons: dict[str, int] = {}  # code of each; 0 is that of rows without an error
        self._index(tables)

    def _index(self, tables: Iterable[pa.Table]) -> None:
        import numpy as np

        columns = [self._columns(table) for table in tables]

        def join(kind: str) -> NDArray[Any]:
            return np.concatenate([np.empty(0, kind), *(one.pop() for one in columns)])

        codes, mtime, size, keys = map(join, ("uint8", "int64", "int64", "uint64"))
        rows = len(keys)
        # The sort is stable, so the last of several rows with one key is the newest.
        order = np.argsort(keys, kind="stable").astype("uint32" if rows < 1 << 32 else "int64")
        keys = keys[order]
        # One number is read faster from a view than from an array.
        self._codes, self._mtime, self._size = codes.data, mtime.data, size.data
        self._order, self._keys = order.data, keys.data
        self._found = bytearray(rows)  # by place in the order

    def clear(self) -> None:
        """Forgets all rows, whose memory others need."""
        self._index(())

    def _columns(self, table: pa.Table) -> list[NDArray[Any]]:
        """Returns key, size (-1 without a state), modification time and code of the reason of each row."""
        import numpy as np
        import pyarrow.compute as pc

        def column(name: str, missing: int) -> NDArray[Any]:
            values: NDArray[Any] = pc.fill_null(table.column(name), missing).to_numpy()
            return values

        codes = np.zeros(table.num_rows, np.uint8)
        errors = table.column(ERROR)
        for row in np.flatnonzero(pc.equal(table.column(STATUS), ERROR_STATUS).to_numpy()):
            reason = reason_of(errors[int(row)].as_py())
            codes[row] = self._reasons.setdefault(reason, len(self._reasons) + 1)
        return [column(KEY, 0), column(SIZE, -1), column(MTIME, 0), codes]

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, ref: ImageRef, key: int | None = None) -> int | None:
        """Returns the number of the valid row of an image; None if it has no row, or its file has changed.

        `key` is that of the image, if it is known already.
        """
        place = self._place(self.key(ref) if key is None else key)
        if place is None:
            return None
        place = self._next_place(place)
        self._found[place] = True
        row = self._order[place]
        if self._codes[row] and self._is_retried(row):
            self.retried.append(row)
            return None
        return row if self._is_valid(row, ref) else None

    def _next_place(self, newest: int) -> int:
        """Returns the place of the row that an image gets, given that of the newest one."""
        return newest

    def _is_retried(self, row: int) -> bool:
        """Returns whether an error row is to be computed again."""
        return self.retry_errors

    def _is_valid(self, row: int, ref: ImageRef) -> bool:
        """Returns whether the file of an image is as it was when its row was computed."""
        state = ref.location.state()
        if self._size[row] < 0:
            # The file could not be accessed then; the row is valid as long as it still cannot be.
            return state is None or ref.error is not None
        return state == (self._size[row], self._mtime[row])

    def _place(self, key: int) -> int | None:
        """Returns the place of the newest row of an image in the order of the keys."""
        place = bisect_right(self._keys, key) - 1
        return place if place >= 0 and self._keys[place] == key else None

    def has(self, ref: ImageRef) -> bool:
        """Returns whether an image has a row, valid or not."""
        return self._place(self.key(ref)) is not None

    def not_found(self) -> int:
        """Returns the number of images with a row for which `find` was not called."""
        import numpy as np

        keys = np.asarray(self._keys)
        return len(keys[:1]) + int((keys[1:] != keys[:-1]).sum()) - self._found.count(True)

    def gone(self) -> int:
        """Returns the number of rows of a finished output without an image."""
        return 0

    def states(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns sizes, -1 where there is no state, and times of modification of the rows of the finished output."""
        import numpy as np

        return np.array(self._size[: self.base_rows]), np.array(self._mtime[: self.base_rows])

    def reason(self, row: int) -> str | None:
        """Returns the reason of an error row (`ImageError.reason`); None for other rows."""
        code = self._codes[row]
        if not code:
            return None
        return next((reason for reason, one in self._reasons.items() if one == code), None)


def _with_states(refs: Iterator[ImageRef], wanted: Callable[[ImageRef], bool]) -> Iterator[ImageRef]:
    """Yields all references, with the states of objects, as `with_states` does; files do without its threads."""
    for ref in refs:
        if ref.location.remote:
            from xcli.inference.prefetch import with_states

            yield from with_states(chain([ref], refs), wanted)
            return
        yield ref


class RowOrder:
    """The order of the rows in the output, by their numbers; it is recorded while the sources are listed.

    Args:
        kept: rows of earlier runs, numbered from 0; the rows of this run are numbered after them.
        carried: whether images may have values of a manifest.

    Attributes:
        other_keys: if they may, of each image `key_of` without these values, or with them if the keys of the parts are
            without; else None.
        carry: called with each image; None calls nothing.
        on_listed: called by `rest` after the last image; if it is set, nothing should be computed before.
        whole: with shards, what the listing has found.
        images: number of images so far.
        new: number of images without a row, valid or not.
        changed: number of images with a row that is not valid, because their file has changed.
        recarried: number of images whose values of the manifest are others than in the finished output.
        ok: number of valid rows of earlier runs that are not errors.
        errors: number of valid error rows of earlier runs by reason.
        rows: number of all rows of earlier runs, valid or not, and of this run.
        keys: the keys of all images in this order, as a digest.
        unreadable: the first source that could not be listed: a directory or an archive.
    """

    def __init__(self, kept: FinishedRows, *, carried: bool = False) -> None:
        from xxhash import xxh3_128

        self.keys = xxh3_128()
        self._kept = kept
        self._firsts, self._counts = array("q"), array("H")  # of the ranges
        self.rows = self._earlier = len(kept)
        self.other_keys = array("Q") if carried else None
        self.whole: WholeListing | None = None
        self.carry: Callable[[ImageRef], None] | None = None
        self.on_listed: Callable[[], object] | None = None
        self.images = self.new = self.changed = self.recarried = 0
        self.ok = 0
        self.errors: dict[str, int] = {}
        self.unreadable: ImageRef | None = None

    def rest(self, refs: Iterator[ImageRef]) -> Iterator[ImageRef]:
        """Takes all the images, and yields those without a valid row."""
        if len(self._kept):
            refs = _with_states(refs, self._kept.has)
        yield from (ref for ref in refs if not self.keep(ref))
        if self.on_listed is not None:
            self.on_listed()

    def keep(self, ref: ImageRef) -> bool:
        """Takes the next image; returns whether it has a valid row."""
        kept = self._kept
        key = kept.key(ref)
        self.keys.update(key.to_bytes(8, "little"))
        self.images += 1
        if self.carry is not None:
            self.carry(ref)
        if self.other_keys is not None:
            self.other_keys.append(key_of(ref) if self.replaces_carried else plain_key(ref.path, ref.location.offset))
        if ref.error is not None and ref.error.reason == "unreadable":
            self.unreadable = self.unreadable or ref
        retried = len(kept.retried)
        row = kept.find(ref, key) if len(kept) else None
        if row is None:
            if len(kept.retried) == retried:
                is_known = kept.has(ref) if len(kept) else False
                self.changed += is_known
                self.new += not is_known
            self._add(self.rows)
            self.rows += 1
            return False
        self._add(row)
        if kept.carried is not None and row < kept.base_rows and kept.carried[row] != key_of(ref):
            self.recarried += 1
        reason = kept.reason(row)
        if reason is None:
            self.ok += 1
        else:
            self.errors[reason] = self.errors.get(reason, 0) + 1
        return True

    def _add(self, row: int) -> None:
        firsts, counts = self._firsts, self._counts
        if firsts and firsts[-1] + counts[-1] == row and counts[-1] < _MAX_RANGE:
            counts[-1] += 1
        else:
            firsts.append(row)
            counts.append(1)

    @property
    def needs_whole_listing(self) -> bool:
        """Whether nothing should be computed before all images are taken."""
        return self.on_listed is not None

    @property
    def replaces_carried(self) -> bool:
        """Whether the keys of the parts are without the values of the manifest, which are taken from the sources."""
        return self._kept.key is not key_of

    def key_of(self, ref: ImageRef) -> int:
        """Returns the key of an image, as parts have it."""
        return self._kept.key(ref)

    @property
    def retried(self) -> int:
        """Number of images whose error row is not valid, so that they are tried again."""
        return len(self._kept.retried)

    def retried_rows(self) -> NDArray[np.int64]:
        """Returns the ascending numbers of these rows."""
        import numpy as np

        return np.sort(np.frombuffer(self._kept.retried, np.int64))

    def states(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """See `FinishedRows.states`."""
        return self._kept.states()

    def gone(self) -> int:
        """Returns the number of rows of the finished output without an image; all images have been taken."""
        return self._kept.gone()

    def is_identity(self, rows: int) -> bool:
        """Returns whether the order is that of the numbers, from 0 to `rows`, but for new rows of retried images."""
        place, retried = 0, iter(self._kept.retried)
        for start, stop in self.ranges():
            places = range(place, place + stop - start)
            if not (all(one == next(retried, None) for one in places) if start >= self._earlier else start == place):
                return False
            place = places.stop
        return place == rows

    def check_sources(self, *, keep: bool = False) -> None:
        """Checks that no row of an earlier run is dropped only because its source cannot be listed now.

        Unless `keep`, it is the last that the index of these rows is needed for.

        Raises:
            OutputError: rows are of images that were not found, and a directory or an archive could not be listed.
        """
        kept = self._kept
        if self.unreadable is not None and (lost := kept.gone() if kept.base_rows else kept.not_found()):
            without = "" if self._kept.base_rows else ", or use --restart to go on without them"
            raise OutputError(
                f"{one_line(self.unreadable.path)} could not be read ({self.unreadable.error}), and {lost:,} finished "
                "rows are of images that were not found this time. They are kept: run the same command again when it "
                f"can be read{without}"
            )
        if not keep:
            self._kept.clear()

    @property
    def range_count(self) -> int:
        """Number of ranges of consecutive rows."""
        return len(self._firsts)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Yields the numbers of the rows in order, as ranges (first, last + 1)."""
        return ((first, first + count) for first, count in zip(self._firsts, self._counts, strict=True))

    def numbers(self, most: int) -> Iterator[NDArray[np.int64]]:
        """Yields the numbers of the rows in order, `most` at a time."""
        import numpy as np

        pieces, room = [], most
        for start, stop in self.ranges():
            while start < stop:
                end = min(stop, start + room)
                pieces.append(np.arange(start, end))
                room -= end - start
                start = end
                if not room:
                    yield np.concatenate(pieces)
                    pieces, room = [], most
        if pieces:
            yield np.concatenate(pieces)


def write_states(writer: StatesWriter, rows: pa.RecordBatch, order: RowOrder, begin: int) -> None:
    """Writes the states of rows of parts, which are those of an order from number `begin` on."""
    keys, carried = rows.column(KEY), None
    if order.other_keys is not None:
        keys, carried = order.other_keys[begin : begin + rows.num_rows], keys
    if order.replaces_carried and carried is not None:
        keys, carried = carried, keys
    positions = None if order.whole is None else order.whole.positions[begin : begin + rows.num_rows]
    writer.write(rows, keys, [rows.column(SIZE), rows.column(MTIME)], carried, positions)
