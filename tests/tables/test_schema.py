"""The columns of the tables."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pytest

from xcli.core.errors import SourceError, UsageError
from xcli.tables.schema import carries, classify_schema, described, feature_shape, features_schema, prediction_count


@pytest.mark.parametrize(
    ("label_type", "group"),
    [
        ("name", ["label_{}", "index_{}", "score_{}"]),
        ("wnid", ["label_{}", "index_{}", "score_{}"]),
        ("both", ["label_{}", "wnid_{}", "index_{}", "score_{}"]),
    ],
)
def test_classify_schema(label_type: str, group: list[str]) -> None:
    schema = classify_schema(2, label_type, [("split", None), ("weight", pa.float64())])
    ours = [name.format(k) for k in (1, 2) for name in group]
    assert schema.names == ["path", "status", "error", *ours, "split", "weight"]
    types = {"label": pa.string(), "wnid": pa.string(), "index": pa.int32(), "score": pa.float32()}
    assert [schema.field(name).type for name in ours] == [types[name.split("_")[0]] for name in ours]
    assert schema.field("split").type == pa.string()
    assert schema.field("weight").type == pa.float64()
    assert prediction_count(schema) == 2
    assert feature_shape(schema) is None


def test_features_schema() -> None:
    flat = features_schema((8,), "float32", [("features_old", pa.int8())])
    assert flat.names == ["path", "status", "error", "features", "features_old"]
    assert flat.field("features").type == pa.list_(pa.float32(), 8)
    maps = features_schema((2, 3, 4), "float16", [])
    assert maps.field("features").type == pa.fixed_shape_tensor(pa.float16(), (2, 3, 4))
    assert (feature_shape(flat), feature_shape(maps)) == ((8,), (2, 3, 4))
    assert prediction_count(flat) == 0


def test_a_carried_column_called_features_is_not_taken_for_ours() -> None:
    assert feature_shape(classify_schema(1, "name", [("features", pa.list_(pa.float32(), 4))])) is None


def test_dictionary_types_are_carried_as_their_values() -> None:
    schema = classify_schema(1, "name", [("kind", pa.dictionary(pa.int8(), pa.string()))])
    assert schema.field("kind").type == pa.string()


@pytest.mark.parametrize("name", ["path", "status", "error", "label_1", "index_2", "score_17", "wnid_1"])
def test_classify_refuses_carried_columns_with_our_names(name: str) -> None:
    with pytest.raises(SourceError, match=f"'{name}'"):
        classify_schema(2, "name", [("ok", None), (name, None)])


def test_a_name_carried_twice_is_refused() -> None:
    with pytest.raises(SourceError, match="two columns 'a'"):
        classify_schema(1, "name", [("a", None), ("a", None)])


@pytest.mark.parametrize(
    "call",
    [
        lambda: classify_schema(0, "name", []),
        lambda: classify_schema(1, "both,", []),
        lambda: features_schema((), "float32", []),
        lambda: features_schema((4, 0, 4), "float32", []),
        lambda: features_schema((4,), "float64", []),
    ],
)
def test_senseless_schemas_are_refused(call) -> None:
    with pytest.raises(UsageError):
        call()


def test_importing_costs_nothing() -> None:
    code = (
        "import sys, xcli.tables.schema, xcli.tables.formats, xcli.storage.streams\n"
        "import xcli.tables.rows\n"
        "print(sorted({'numpy', 'pyarrow', 'tensorflow', 'keras', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("command", ["classify", "features"])
def test_what_a_table_carries(command: str, pair: bool) -> None:
    extra = [("split", None), ("features", pa.list_(pa.float32(), 4)), ("label_1: old", pa.int8())]

    def columns(carried: list[tuple[str, pa.DataType | None]]) -> list[str]:
        if command == "features":
            return described(features_schema((8,), "float32", carried))
        schema = classify_schema(2, "both", carried)
        return described([*schema, pa.field("features", pa.list_(pa.float32(), 8))] if pair else schema)

    def same(one: list[tuple[str, pa.DataType | None]], other: list[tuple[str, pa.DataType | None]]) -> bool:
        return carries(columns(one), other, of_features=command == "features", with_features=pair)

    if command == "features":
        pair, extra = False, [extra[0], extra[2]]
    others = [[], extra[:1], extra[:-1], extra[1:], [*reversed(extra)], [*extra, ("last", None)]]
    others.append([("split", pa.int32()), *extra[1:]])
    assert same(extra, extra)
    assert same([], [])
    assert not any(same(extra, other) or same(other, extra) for other in others)
