"""What is searched for: rows of the tables, vectors of an NPY file, and images, as vectors in the order given."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from xcli.core.errors import SourceError, SourceNotFoundError, UsageError
from xcli.core.records import ERROR, OK_STATUS, PATH, STATUS
from xcli.core.text import escape_path, join_names, one_line
from xcli.sources.listing import Listing, list_images
from xcli.sources.options import SourceOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.analysis.search import Answers, Space
    from xcli.analysis.vectors import FeatureTables
    from xcli.core.errors import ImageError
    from xcli.core.records import ImageRef

    Vector = NDArray[np.floating[Any]]
    Embed = Callable[[Listing], Iterable[tuple[ImageRef, Vector | None, ImageError | None]]]

MAX_QUERIES = 10_000
"""Queries of one search: their vectors, and their answers, are in memory."""

_SUGGESTED = 3


@dataclass(frozen=True)
class Query:
    """What is searched for.

    Attributes:
        name: as the column `query` has it: the path of a row or an image, or `FILE[3]` for a vector.
        vector: its features.
        own: the numbers of the rows that it is: all rows with its path.
        is_image: whether the name is the path of an image.
    """

    name: str
    vector: Vector
    own: tuple[int, ...] = ()
    is_image: bool = True


@dataclass
class Queries:
    """Queries that have vectors, and those that have none.

    Attributes:
        found: those with a vector.
        problems: name and reason of each of the others.
    """

    found: list[Query] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def add(self, query: Query) -> None:
        """Adds a query; one whose vector has no direction is a problem."""
        import numpy as np

        if len(self.found) + len(self.problems) >= MAX_QUERIES:
            raise UsageError(f"there are more than {MAX_QUERIES:,} queries; divide them among several searches")
        if not np.isfinite(query.vector).all():
            self.problems.append((query.name, "its vector holds NaN or infinity"))
        elif not query.vector.any():
            self.problems.append((query.name, "its vector is zero, which is like nothing"))
        else:
            self.found.append(query)

    def excluded(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns rows that are queries themselves, and which: as `most_alike` takes what is no answer."""
        import numpy as np

        pairs = sorted((row, number) for number, query in enumerate(self.found) for row in query.own)
        rows, queries = np.array(pairs, np.int64).reshape(-1, 2).T
        return rows, queries

    def drop_without_direction(self, space: Space) -> None:
        """Makes queries problems that have no direction in the space: they are the mean of the table."""
        import numpy as np

        if not self.found:
            return
        there = space.unit(np.stack([query.vector for query in self.found]))
        usable: list[bool] = [bool(np.isfinite(vector).all()) for vector in there]
        reason = "it is the mean of the table, which is like nothing when whitened"
        self.problems += [(query.name, reason) for query, one in zip(self.found, usable, strict=True) if not one]
        self.found = [query for query, one in zip(self.found, usable, strict=True) if one]

    def matrix(self, width: int) -> Vector:
        """Returns the vectors as one array, [q, width]."""
        import numpy as np

        return np.stack([query.vector for query in self.found]) if self.found else np.zeros((0, width), np.float32)


@dataclass
class _Rows:
    """The rows whose path is that of a query.

    Attributes:
        path: as they have it.
        numbers: of all of them.
        place: of the first that is ok, the number of its table, and its own in this; None where there is none.
        problem: of the first that is not.
    """

    path: str
    numbers: list[int] = field(default_factory=list)
    place: tuple[int, int] | None = None
    problem: str | None = None


def find_queries(tables: FeatureTables, texts: Sequence[str], embed: Embed) -> Queries:
    """Finds what the texts of a command line name, and gets the vectors.

    A text that is an NPY file names its vectors. Another that is the path of a row names this row, which is not looked
    for on the disk. All others are images, directories of images, or whatever else a source may be.

    Args:
        tables: in which is searched.
        texts: as the user typed them.
        embed: computes vectors of images, as those of the tables were.

    Raises:
        SourceNotFoundError: a text is none of that.
        SourceError: an NPY file cannot be read.
        UsageError: vectors have another width, or there are too many.
        CheckError: a table is damaged.
    """
    arrays = {text: _read_npy(text, tables) for text in texts if _is_npy(text)}
    others = [text for text in dict.fromkeys(texts) if text not in arrays]
    rows = _find_rows(tables, others) if others else {}
    listed = _list_images([text for text in others if text not in rows], tables)
    vectors = _vectors_of(tables, sorted({one.place for one in rows.values() if one.place is not None}))
    images = _embedded(listed, embed)
    found = Queries()
    for text in texts:
        if text in arrays:
            for number, vector in enumerate(arrays[text]):
                found.add(Query(f"{escape_path(text)}[{number}]", vector, is_image=False))
        elif (row := rows.get(text)) is None:
            for name, image, problem in images[text]:
                if image is None:
                    found.problems.append((name, problem))
                else:
                    found.add(Query(name, image))
        elif row.place is None:
            found.problems.append((row.path, f"it is an error row of the table: {row.problem}"))
        else:
            found.add(Query(row.path, vectors[row.place], tuple(row.numbers)))
    return found


def _is_npy(text: str) -> bool:
    return text.lower().endswith(".npy") and os.path.isfile(text)


def _read_npy(text: str, tables: FeatureTables) -> Vector:
    """Returns the vectors in an NPY file, [q, d]."""
    import numpy as np

    name = one_line(text)
    try:
        array = np.load(text, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SourceError(f"cannot read {name} as NPY: {one_line(str(error))}") from None
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise SourceError(f"{name} holds {array.dtype} of shape {array.shape}, not vectors of float: [queries, width]")
    if array.shape[1] != tables.width:
        raise UsageError(
            f"{name} has vectors of {array.shape[1]:,} values, {one_line(tables.readers[0].name)} of {tables.width:,}"
        )
    if len(array) > MAX_QUERIES:
        raise UsageError(f"{name} holds {len(array):,} vectors; a search takes {MAX_QUERIES:,}: divide them")
    loaded: Vector = np.array(array)
    return loaded


def _find_rows(tables: FeatureTables, texts: Sequence[str]) -> dict[str, _Rows]:
    """Returns the rows that the texts name: by their paths, as the table has them or as the file system does."""
    import pyarrow as pa
    import pyarrow.compute as pc

    asked: dict[str, list[str]] = {}
    for text in texts:
        # The escape of a path without odd bytes is the path.
        for path in {_as_text(text), escape_path(text)}:
            asked.setdefault(path, []).append(text)
    wanted, found, first = pa.array([*asked], pa.string()), dict[str, _Rows](), 0
    for table, reader in enumerate(tables.readers):
        begin = first
        for batch in reader.batches([PATH, STATUS, ERROR]):
            for at in pc.indices_nonzero(pc.is_in(batch.column(PATH), wanted)).to_pylist():
                path, status, error = (column[at].as_py() for column in batch.columns)
                for text in asked[path]:
                    row = found.setdefault(text, _Rows(path))
                    row.numbers.append(first + at)
                    if status == OK_STATUS:
                        row.place = row.place or (table, first - begin + at)
                    else:
                        row.problem = row.problem or one_line(error or status or "it has no status")
            first += batch.num_rows
    return found


def _as_text(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _list_images(texts: Sequence[str], tables: FeatureTables) -> dict[str, list[ImageRef]]:
    """Lists the images that the texts name, which are no rows."""
    found: dict[str, list[ImageRef]] = {}
    count = 0
    for text in texts:
        if text == "-":
            raise UsageError("a query is an image, the path of a row, or an NPY file; - is none of these")
        try:
            with list_images(SourceOptions((text,))) as listing:
                found[text] = []
                for ref in listing:
                    found[text].append(ref)
                    count += 1
                    if count > MAX_QUERIES:
                        raise UsageError(f"there are more than {MAX_QUERIES:,} images to search for; divide them")
        except SourceNotFoundError as error:
            raise SourceNotFoundError(_neither(text, tables)) from error
        if not found[text]:
            raise SourceNotFoundError(f"{escape_path(text)!r} holds no images, and is no row of the table")
    return found


def _neither(text: str, tables: FeatureTables) -> str:
    """Returns the message for a text that names nothing, with rows that end like it."""
    import pyarrow.compute as pc

    similar: list[str] = []
    ending = os.path.basename(escape_path(text).rstrip("/"))
    for batch in (one for reader in tables.readers for one in reader.batches([PATH])):
        column = batch.column(0)
        similar += column.filter(pc.ends_with(column, "/" + ending)).slice(0, _SUGGESTED).to_pylist()
        if not ending or len(similar) >= _SUGGESTED:
            break
    names = join_names(one_line(reader.name) for reader in tables.readers)
    hint = f": did you mean {join_names(map(one_line, similar[:_SUGGESTED]))}?" if similar else ""
    return f"{one_line(escape_path(text))!r} is neither a file nor the path of a row of {names}{hint}"


def _vectors_of(tables: FeatureTables, places: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Vector]:
    """Returns the vectors of rows, by the sorted numbers of their tables, and of the rows in these."""
    found: dict[tuple[int, int], Vector] = {}
    for table in sorted({table for table, _ in places}):
        own = [row for other, row in places if other == table]
        found |= {(table, row): vector for row, vector in tables.vectors_at(table, own)}
    return found


def _embedded(listed: dict[str, list[ImageRef]], embed: Embed) -> dict[str, list[tuple[str, Vector | None, str]]]:
    """Computes the vectors of images, in one run: name, and vector or problem."""
    if not listed:
        return {}
    refs = [ref for some in listed.values() for ref in some]
    results: Iterator[Any] = iter(embed(Listing(iter(refs), SourceOptions((*listed,)))))
    made = {}
    for text, some in listed.items():
        made[text] = [
            (ref.path, vector, "" if error is None else str(error)) for ref, vector, error in islice(results, len(some))
        ]
    return made


def answer_schema() -> pa.Schema:
    """Returns the columns of the table that a search writes."""
    import pyarrow as pa

    kinds = {"query": pa.string(), "rank": pa.int32(), "path": pa.string(), "score": pa.float32()}
    return pa.schema([*kinds.items()])


def answer_rows(queries: Queries, answers: Answers) -> pa.RecordBatch:
    """Returns the table that a search writes: a row for each answer, by query and rank, which begins with 1."""
    import pyarrow as pa

    rows = [
        (query.name, rank, path, score)
        for number, query in enumerate(queries.found)
        for rank, (path, score) in enumerate(answers.of(number), 1)
    ]
    columns = zip(*rows, strict=True) if rows else [()] * 4
    schema = answer_schema()
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
