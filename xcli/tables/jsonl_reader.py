"""JSON lines read back: predictions as columns, carried members as the text that stands in the line."""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import TYPE_CHECKING, Any

from xcli.tables.encoders import VERBATIM
from xcli.tables.readers import LEAD, Reader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

_PREDICTIONS = "predictions"
_MAX_LINE = 1 << 26
_space = re.compile(r"[ \t\r\n]*").match
# Numbers stay text: Arrow reads a float32 from it in one rounding.
_scan = json.JSONDecoder(parse_float=str, parse_int=str).scan_once  # type: ignore[attr-defined]


class JsonlReader(Reader):
    """JSON lines of `classify`.

    Attributes:
        top: predictions in the row that has most, at least 1; the schema has so many.
        wnids: whether predictions have a `wnid`.
        carried: names of the carried members; None in a file without rows, which does not tell.
    """

    format = "jsonl"

    def __init__(self, name: str, path: str | None = None) -> None:
        super().__init__(name, path)
        self.top, self.wnids = 1, False
        self.carried: list[str] | None = None
        try:
            self._survey()
        except (OSError, ValueError, RecursionError) as error:
            raise self._damaged(str(error)) from error
        self.widen(self.top, self.wnids, self.carried)

    def _survey(self) -> None:
        """Finds the columns. No row tells them all, so all lines are looked at, without being parsed."""
        for number, line in self._lines():
            if self.carried is None:
                members = list(_members(line.decode()))
                names = [name for name, _, _ in members]
                if names[:4] != [*LEAD, _PREDICTIONS]:
                    raise ValueError(f"line {number} does not begin with {', '.join([*LEAD, _PREDICTIONS])}")
                self.carried = names[4:]
            # An unescaped quote cannot stand within a text, so this is never too few.
            self.top = max(self.top, line.count(b'"score"'))
            self.wnids = self.wnids or b'"wnid":' in line

    def widen(self, top: int, wnids: bool, carried: Sequence[str] | None) -> None:
        """Sets the schema, for a table of which this file is a part."""
        import pyarrow as pa

        self.top, self.wnids = top, wnids
        types = {"label": pa.string(), "wnid": pa.string(), "index": pa.int32(), "score": pa.float32()}
        if not wnids:
            del types["wnid"]
        self._types = types
        fields = [pa.field(name, pa.string()) for name in LEAD]
        fields += [pa.field(f"{key}_{k}", kind) for k in range(1, top + 1) for key, kind in types.items()]
        fields += [pa.field(name, pa.string(), metadata=VERBATIM) for name in carried or ()]
        self.schema = pa.schema(fields)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with self._open() as file:
            number = 0
            while line := file.readline(_MAX_LINE):
                number += 1
                if not line.endswith(b"\n"):
                    raise ValueError(f"line {number} has no end; the file is cut short")
                yield number, line

    def _batches(self, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        rows: list[list[Any]] = []
        for number, line in self._lines():
            try:
                rows.append(self._row(line.decode(), paths_only=columns is not None))
            except (ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
                raise ValueError(f"line {number}: {error}") from error
            if len(rows) == self.batch_rows:
                yield self._batch(rows, columns)
                rows = []
        if rows:
            yield self._batch(rows, columns)

    def _row(self, line: str, paths_only: bool) -> list[Any]:
        if paths_only:
            return [value for _, value, _ in islice(_members(line), 3)]
        members = list(_members(line))
        if [name for name, _, _ in members] != [*LEAD, _PREDICTIONS, *(self.carried or ())]:
            raise ValueError("its members are not those of the first line")
        row = [value for _, value, _ in members[:3]]
        predictions = members[3][1]
        if len(predictions) > self.top:
            raise ValueError(f"{len(predictions)} predictions")
        for prediction in predictions:
            if prediction.keys() != self._types.keys():
                raise ValueError(f"a prediction has the members {', '.join(prediction)}")
            row += prediction.values()
        row += [None] * (len(self._types) * (self.top - len(predictions)))
        row += [raw for _, _, raw in members[4:]]
        return row

    def _batch(self, rows: list[list[Any]], columns: Sequence[str] | None) -> pa.RecordBatch:
        import pyarrow as pa

        schema = self.schema if columns is None else pa.schema([self.schema.field(name) for name in LEAD])
        values = zip(*rows, strict=True)
        arrays = [pa.array(column, pa.string()).cast(field.type) for column, field in zip(values, schema, strict=True)]
        batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
        return batch if columns is None else batch.select(list(columns))


def _members(line: str) -> Iterator[tuple[str, Any, str]]:
    """Name, value and text of each member of the object on a line."""
    if not line.startswith("{"):
        raise ValueError("it is no JSON object")
    at = 0
    closed = False
    try:
        while not closed:
            name, at = _scan(line, _skip(line, at + 1))
            at = _skip(line, at)
            _expect(line, at, ":")
            start = _skip(line, at + 1)
            value, at = _scan(line, start)
            yield name, value, line[start:at]
            at = _skip(line, at)
            closed = line[at : at + 1] == "}"
            if not closed:
                _expect(line, at, ",")
    except StopIteration as stop:
        raise ValueError(f"it is not JSON at character {stop.value}") from None
    if _skip(line, at + 1) != len(line):
        raise ValueError("something stands behind the object")


def _skip(line: str, at: int) -> int:
    match = _space(line, at)
    assert match is not None
    return match.end()


def _expect(line: str, at: int, what: str) -> None:
    if line[at : at + 1] != what:
        raise ValueError(f"it is not JSON at character {at}")
