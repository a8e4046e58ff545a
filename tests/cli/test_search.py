"""`xception search`, from the command line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.analysis.test_compare import random_table
from tests.analysis.test_queries import VECTORS, make_table
from tests.cli.conftest import Invoke, Result, code_and_imports

SMALL = ("--weights", "none", "--image-size", "71", "--batch-size", "2")


def answers(result: Result) -> list[list[str]]:
    rows = list(csv.reader(io.StringIO(result.text)))
    assert rows[0] == ["query", "rank", "path", "score"]
    return rows[1:]


@pytest.fixture
def table(tmp_path: Path) -> str:
    rows = [*((f"d/{row}.jpg", vector) for row, vector in enumerate(VECTORS)), ("d/bad.jpg", "empty: no bytes")]
    return make_table(tmp_path / "t.parquet", rows)


def test_rows_and_vectors(invoke: Invoke, table: str, tmp_path: Path) -> None:
    np.save(tmp_path / "q.npy", VECTORS[4:5].astype(np.float64) * 1e200)
    result = invoke("search", table, "d/2.jpg", tmp_path / "q.npy", "--top", "2")
    assert result.code == 0, result
    unit = VECTORS.astype(np.float64) / np.linalg.norm(VECTORS.astype(np.float64), axis=1, keepdims=True)
    cosines = (unit @ unit.T).astype(np.float32)
    assert answers(result) == [
        ["d/2.jpg", "1", "d/3.jpg", str(cosines[2, 3])],
        ["d/2.jpg", "2", "d/4.jpg", str(cosines[2, 4])],
        [f"{tmp_path}/q.npy[0]", "1", "d/4.jpg", "1"],
        [f"{tmp_path}/q.npy[0]", "2", "d/5.jpg", str(cosines[4, 5])],
    ]
    own = answers(invoke("search", table, "d/2.jpg", "--top", "1", "--include-self"))
    assert own == [["d/2.jpg", "1", "d/2.jpg", "1"]]


def test_queries_without_a_vector_are_named(invoke: Invoke, table: str) -> None:
    result = invoke("search", table, "d/bad.jpg", "d/2.jpg", "--top", "1")
    assert result.code == 4
    assert "no answers to d/bad.jpg: it is an error row of the table: empty: no bytes" in result.err
    assert [row[0] for row in answers(result)] == ["d/2.jpg"]
    result = invoke("search", table, "d/bad.jpg", "--whiten")
    assert (result.code, answers(result)) == (4, [])


def test_several_tables_and_outputs(invoke: Invoke, table: str, tmp_path: Path) -> None:
    more = make_table(tmp_path / "more.npy", [("e.jpg", VECTORS[2] * 2)])
    out = tmp_path / "out.parquet"
    assert invoke("search", table, "d/2.jpg", "--also", more, "-o", out).code == 0
    found = pq.read_table(out)
    assert [str(kind) for kind in found.schema.types] == ["string", "int32", "string", "float"]
    assert found["path"].to_pylist()[:2] == ["e.jpg", "d/3.jpg"]
    assert found["rank"].to_pylist() == [1, 2, 3, 4, 5, 6]
    assert invoke("search", table, "d/2.jpg", "-o", out).code == 5
    assert invoke("search", table, "d/2.jpg", "-o", out, "--overwrite").code == 0
    assert pq.read_table(out).num_rows == 5
    text = invoke("search", table, "d/2.jpg", "-o", tmp_path / "out.csv")
    assert (text.code, text.out) == (0, b"")
    assert (tmp_path / "out.csv").read_bytes() == invoke("search", table, "d/2.jpg").out
    text = invoke("search", table, "d/2.jpg", "--format", "jsonl")
    lines = [json.loads(line) for line in text.text.splitlines()]
    assert [line["path"] for line in lines] == pq.read_table(out)["path"].to_pylist()
    assert list(lines[0]) == ["query", "rank", "path", "score"]


def test_a_page_beside_a_table_of_a_given_format(invoke: Invoke, table: str, tmp_path: Path) -> None:
    (tmp_path / "moved" / "d").mkdir(parents=True)
    Image.new("RGB", (20, 20), "red").save(tmp_path / "moved" / "d" / "3.jpg")
    out, page = tmp_path / "answers", tmp_path / "page.html"
    args = ["--format", "parquet", "-o", out, "--html", page, "--images", tmp_path / "moved", "--max-size", "0.2"]
    result = invoke("search", table, "d/2.jpg", "--top", "1", *args)
    assert result.code == 0, result
    assert pq.read_table(out)["path"].to_pylist() == ["d/3.jpg"]
    assert page.stat().st_size <= 200_000
    assert f"{page}: 1 queries with 1 thumbnails, 1 images not found" in result.err
    assert invoke("search", table, "d/2.jpg", "--html", page).code == 5
    assert invoke("search", table, "d/2.jpg", "--html", page, "--overwrite").code == 0


def test_tables_that_cannot_be_searched_together(invoke: Invoke, table: str, tmp_path: Path) -> None:
    other = make_table(tmp_path / "other.parquet", [("e.jpg", VECTORS[0])], model__sha256="cd" * 32)
    result = invoke("search", table, "d/2.jpg", "--also", other)
    assert (result.code, "model.sha256" in result.err) == (2, True), result


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["no.jpg"], "is neither a file nor the path of a row"),
        (["d/2.jpg", "-o", "x/"], "is a directory"),
        (["d/2.jpg", "-o", "x.npy"], "does not write npy"),
        (["d/2.jpg", "--top", "0"], "--top"),
        ([], "QUERY"),
    ],
)
def test_wrong_arguments(invoke: Invoke, table: str, args: list[str], message: str) -> None:
    result = invoke("search", table, *args)
    assert (result.code, message in result.err) == (2, True), result


def test_a_table_of_classify(invoke: Invoke, tmp_path: Path) -> None:
    classes = random_table(np.random.default_rng(0), tmp_path / "c.csv", 5)
    result = invoke("search", classes, "0.jpg")
    assert (result.code, "table of classify" in result.err) == (2, True), result


def test_images_are_embedded_as_the_rows_were(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.parquet"
    assert invoke("features", photos, *SMALL, "--resize", "pad", "--pooling", "max", "--normalize", "-o", out).code == 0
    copy, bad = tmp_path / "copy.png", tmp_path / "bad.jpg"
    Image.open(photos / "d.jpg").save(copy)
    bad.write_bytes(b"\xff\xd8\xff nothing")
    result = invoke("search", out, copy, bad, photos / "d.jpg", "--top", "2")
    assert (result.code, f"no answers to {bad}: " in result.err) == (4, True), result
    first, _, third, _ = answers(result)
    assert first[:3] == [str(copy), "1", str(photos / "d.jpg")]
    assert float(first[3]) > 0.99999
    assert third[0] == str(photos / "d.jpg")
    assert third[2] != str(photos / "d.jpg")


def test_other_weights_are_refused(invoke: Invoke, photos: Path, table: str) -> None:
    image = photos / "a.jpg"
    result = invoke("search", table, image)
    assert (result.code, "SHA-256 abab" in result.err) == (3, True), result
    result = invoke("search", table, image, "--weights", "none")
    assert (result.code, "Xception (random weights, seed 0) is random-0" in result.err) == (3, True), result


def test_no_tensorflow(table: str, tmp_path: Path) -> None:
    np.save(tmp_path / "q.npy", VECTORS)
    assert code_and_imports(["search", table, "d/2.jpg", str(tmp_path / "q.npy"), "--whiten"]) == "IMPORTED 0 []"
