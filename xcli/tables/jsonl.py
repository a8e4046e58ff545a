"""JSON lines: one object per row, which in a table of `classify` has its predictions as a list.

Predictions that are null are left out. The answers of other commands have a member for each column. Numbers that JSON
cannot express (NaN, infinities) are null.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from xcli.core.errors import UsageError
from xcli.core.records import FEATURES, PATH, STATUS, STATUS_COLUMNS
from xcli.tables.base import Format, TableReader, TableWriter, check_width, slices
from xcli.tables.column_text import encode_json, plain, to_text
from xcli.tables.schema import FIRST_RESULT, PREDICTION_COLUMN, classify_schema, prediction_columns, prediction_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pyarrow as pa

_PREDICTIONS = "predictions"
_MEMBERS = (*STATUS_COLUMNS, _PREDICTIONS)
_EXTENSIONS = (".jsonl", ".ndjson")
_IS_JSON = {b"xception": b"json"}
"""Metadata of a carried column that holds JSON texts, as the reader gives it and the writer takes it."""
_LITERALS = ("floating", "integer", "boolean", "nested")
_NOT_JSON = frozenset({None, "nan", "inf", "-inf"})
_ROW_VALUES = 128  # a row costs as much as so many values of CSV
_MAX_LINE = 1 << 26
_MAX_VALUES = 1 << 19  # of a line: 65,536 columns take fewer, and a value takes some hundred bytes of memory
_BATCH_BYTES = 1 << 23  # of lines; a batch may have one more


class JsonlWriter(TableWriter):
    def __post_init__(self) -> None:
        schema = self.schema
        self._top = prediction_count(schema)
        if FEATURES in schema.names:
            raise UsageError("features do not go to JSON lines; use parquet, csv or npy")
        self._keys = [key for key in prediction_columns(wnids=True) if f"{key}_1" in schema.names]
        self._plain = list(STATUS_COLUMNS) if self._top else schema.names
        results = schema.names[FIRST_RESULT:] if self._top else []
        self._carried = [name for name in results if not PREDICTION_COLUMN.fullmatch(name)]

    def _write(self, batch: pa.RecordBatch) -> None:
        for piece in slices(batch, _ROW_VALUES):
            columns: list[Iterable[str]] = [_members(piece, name, name) for name in self._plain]
            if self._top:
                predictions = zip(*(self._predictions(piece, k) for k in range(1, self._top + 1)), strict=True)
                columns.append(f'"{_PREDICTIONS}": [{", ".join(filter(None, row))}]' for row in predictions)
            columns += [_members(piece, name, name) for name in self._carried]
            lines = ["{" + ", ".join(row) + "}\n" for row in zip(*columns, strict=True)]
            self.stream.write("".join(lines).encode())

    def _predictions(self, batch: pa.RecordBatch, k: int) -> Iterator[str]:
        """Returns the k-th prediction of each row as an object; an empty text where there is none."""
        members = zip(*(_members(batch, f"{key}_{k}", key) for key in self._keys), strict=True)
        present = batch.column(f"index_{k}").is_valid().to_pylist()
        for texts, here in zip(members, present, strict=True):
            yield "{" + ", ".join(texts) + "}" if here else ""


def _members(batch: pa.RecordBatch, column: str, key: str) -> Iterator[str]:
    prefix = encode_json(key) + ": "
    values = batch.column(column)
    is_json = batch.schema.field(column).metadata == _IS_JSON
    texts = (text or "null" for text in values.to_pylist()) if is_json else _json_texts(values)
    return (prefix + text for text in texts)


def _json_texts(column: pa.Array) -> list[str]:
    """Returns a column of any type as JSON values; a float is the shortest text of its own precision."""
    import pyarrow as pa

    column = plain(column)
    values = to_text(column).to_pylist()
    if any(getattr(pa.types, f"is_{kind}")(column.type) for kind in _LITERALS):
        return ["null" if value in _NOT_JSON else value for value in values]
    return [encode_json(value) for value in values]


class _Number(str):
    """The text of a number: Arrow reads a float32 from it in one rounding, and it is written as it was read."""

    __slots__ = ()


_decode = json.JSONDecoder(parse_float=_Number, parse_int=_Number, parse_constant=_Number).decode


def _encode(value: Any) -> str:
    """Encodes what `_decode` gave, as `JsonlWriter` writes it."""
    if isinstance(value, _Number):
        return value
    if isinstance(value, dict):
        return "{" + ", ".join(f"{encode_json(key)}: {_encode(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_encode, value)) + "]"
    return encode_json(value)


class JsonlReader(TableReader):
    """Reads JSON lines; values of carried columns are JSON texts."""

    format = "jsonl"
    magic = b"{"
    omits_nulls = True

    @classmethod
    def recognizes(cls, head: bytes, name: str) -> bool:
        # A run of no images writes an empty file; all other formats have a header.
        return super().recognizes(head, name) or (not head and name.lower().endswith(_EXTENSIONS))

    @classmethod
    def align(cls, readers: Sequence[JsonlReader]) -> None:
        carried = next((reader._carried for reader in readers if reader._carried is not None), None)
        top = max(reader._top for reader in readers)
        wnids = any(reader._wnids for reader in readers)
        for reader in readers:
            reader._top, reader._wnids = top, wnids
            reader._carried = carried if reader._carried is None else reader._carried
            reader.schema = reader._make_schema()

    def _read_schema(self) -> pa.Schema:
        """Looks at all lines, since no single row tells all columns; only the first line is parsed."""
        self._top, self._wnids = 1, False
        self._carried: list[str] | None = None  # a file without rows does not tell
        for number, line in self._lines():
            if self._carried is None:
                names = list(_object(line))
                if tuple(names[: len(_MEMBERS)]) != _MEMBERS:
                    raise ValueError(f"line {number} does not begin with {', '.join(_MEMBERS)}")
                self._carried = names[len(_MEMBERS) :]
            # A quote within a text is escaped, so this never counts too few.
            self._top = max(self._top, line.count(b'"score"'))
            self._wnids = self._wnids or b'"wnid":' in line
            check_width(len(self._carried) + 3 * self._top)
        return self._make_schema()

    def _make_schema(self) -> pa.Schema:
        import pyarrow as pa

        self._keys = prediction_columns(wnids=self._wnids).keys()
        own = classify_schema(self._top, "both" if self._wnids else "name", [])
        carried = [pa.field(name, pa.string(), metadata=_IS_JSON) for name in self._carried or ()]
        return pa.schema([*own, *carried])

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with open(self.path, "rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE), b""), 1):
                if not line.endswith(b"\n"):
                    problem = "has no line end; the file is truncated"
                    raise ValueError(f"line {number} {problem if len(line) < _MAX_LINE else 'is too long'}")
                if line.count(b",") + line.count(b"[") + line.count(b"{") > _MAX_VALUES:
                    raise ValueError(f"line {number} has more than {_MAX_VALUES:,} values")
                yield number, line

    def _batches(self, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        if columns is None or not set(self._carried or ()).isdisjoint(columns):
            for batch in self._parsed(self._lines()):
                yield batch if columns is None else batch.select(columns)
            return
        rows = 0
        for chunk in self._chunks():
            picked = self._picked(chunk, columns)
            lines = enumerate(chunk.splitlines(keepends=True), rows + 1)
            for batch in self._parsed(lines) if picked is None else [picked]:
                yield batch.select(columns)
                rows += batch.num_rows

    def _chunks(self) -> Iterator[bytes]:
        """Yields whole lines, some megabytes at a time."""
        with open(self.path, "rb") as file:
            while chunk := file.read(_BATCH_BYTES) + file.readline(_MAX_LINE):
                yield chunk

    def _picked(self, chunk: bytes, columns: Sequence[str]) -> pa.RecordBatch | None:
        """Has Arrow parse some columns of whole lines, in a tenth of the time.

        Returns None where anything may be wrong, which `_parsed` then names.
        """
        import pyarrow as pa
        from pyarrow import json as arrow_json

        wanted = {PATH, STATUS, *columns}
        fields = [pa.field(name, pa.string()) for name in STATUS_COLUMNS if name in wanted]
        if not wanted.issubset(STATUS_COLUMNS):
            members = [(name, self.schema.field(f"{name}_1").type) for name in self._keys]
            fields.append(pa.field(_PREDICTIONS, pa.list_(pa.struct(members))))
        options = arrow_json.ParseOptions(explicit_schema=pa.schema(fields), unexpected_field_behavior="ignore")
        how = arrow_json.ReadOptions(use_threads=False, block_size=len(chunk))
        try:
            (batch,) = arrow_json.read_json(pa.BufferReader(chunk), how, options).to_batches()
        except (pa.ArrowException, ValueError):
            return None
        if batch.num_rows != chunk.count(b"\n") or batch[PATH].null_count or batch[STATUS].null_count:
            return None
        if _PREDICTIONS not in batch.schema.names:
            return batch
        values = batch[_PREDICTIONS].values
        always = [name for name in self._keys if name != "score"]
        if any(one.null_count for one in (batch[_PREDICTIONS], values, *map(values.field, always))):
            return None
        columns = [name for name in columns if name not in STATUS_COLUMNS]
        arrays = [_ranked(batch[_PREDICTIONS], *name.rsplit("_", 1)) for name in columns]
        batch = batch.drop_columns([_PREDICTIONS])
        return pa.RecordBatch.from_arrays([*batch.columns, *arrays], [*batch.schema.names, *columns])

    def _parsed(self, lines: Iterable[tuple[int, bytes]]) -> Iterator[pa.RecordBatch]:
        rows: list[list[Any]] = []
        size = 0
        for number, line in lines:
            try:
                rows.append(self._row(_object(line)))
            except (ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
                raise ValueError(f"line {number}: {error}") from error
            size += len(line)
            if len(rows) == self.batch_rows or size >= _BATCH_BYTES:
                yield self._batch(rows)
                rows, size = [], 0
        if rows:
            yield self._batch(rows)

    def _row(self, members: dict[str, Any]) -> list[Any]:
        if tuple(members) != (*_MEMBERS, *(self._carried or ())):
            raise ValueError("its members are not those of the first line")
        row = [members[name] for name in STATUS_COLUMNS]
        predictions = members[_PREDICTIONS]
        if len(predictions) > self._top:
            raise ValueError(f"{len(predictions)} predictions")
        for prediction in predictions:
            if prediction.keys() != self._keys:
                raise ValueError(f"a prediction has the members {', '.join(prediction)}")
            row += [prediction[key] for key in self._keys]
        row += [None] * (len(self._keys) * (self._top - len(predictions)))
        return row + [_encode(members[name]) for name in self._carried or ()]

    def _batch(self, rows: list[list[Any]]) -> pa.RecordBatch:
        import pyarrow as pa

        values = zip(*rows, strict=True)
        arrays = [
            pa.array(column, pa.string()).cast(field.type) for column, field in zip(values, self.schema, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def _ranked(predictions: pa.ListArray, member: str, rank: str) -> pa.Array:
    """Returns a member of the prediction of some rank in each row, null where there is none."""
    import pyarrow.compute as pc

    at = pc.add(predictions.offsets[:-1], int(rank) - 1)
    is_there = pc.less(at, predictions.offsets[1:])
    return predictions.values.field(member).take(pc.if_else(is_there, at, None))


def _object(line: bytes) -> dict[str, Any]:
    value = _decode(line.decode())
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


JSONL = Format(JsonlWriter, JsonlReader, _EXTENSIONS, ("classify",))
