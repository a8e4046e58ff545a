"""What `verify` finds, and that it finds nothing where nothing is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.writtentables import HOSTILE, make_files, provenance, rows_of, write, write_shards
from xcli.checks.findings import Findings
from xcli.checks.verify import Verdict, verify
from xcli.core.records import ImageRef
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.tables.formats import open_table

FORMATS = [("classify", "csv"), ("classify", "parquet"), ("classify", "jsonl")]
FORMATS += [("features", "csv"), ("features", "parquet"), ("features", "npy")]


def check(path: str | Path, sources: SourceOptions | None = None) -> Verdict:
    reader = open_table(str(path))
    if sources is None:
        return verify(reader, None, Findings())
    with list_images(sources) as listing:
        return verify(reader, listing, Findings())


def wrong(verdict: Verdict) -> dict[str, list[str]]:
    return {one.what: one.examples for one in verdict.findings}


def refs(count: int = 9) -> list[ImageRef]:
    """Paths whose rows are ok, but for one error row (`0.jpg0`)."""
    names = [f"{n}.jpg" for n in range(200) if sum(f"{n}.jpg".encode()) % 10][:count]
    return [ImageRef(name, name, name.encode()) for name in names]


def broken_ref() -> ImageRef:
    name = next(f"{n}.jpg" for n in range(200) if sum(f"{n}.jpg".encode()) % 10 == 0)
    return ImageRef(name, name, name.encode())


def changed(batch: pa.RecordBatch, column: str, row: int, value: object) -> pa.RecordBatch:
    index = batch.schema.get_field_index(column)
    values = batch.column(index).to_pylist()
    values[row] = value
    arrays = list(batch.columns)
    arrays[index] = pa.array(values, batch.schema.field(index).type)
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


@pytest.mark.parametrize(("command", "extension"), FORMATS)
def test_what_runs_write_passes(tmp_path: Path, command: str, extension: str) -> None:
    names = [f"{n}.jpg".encode() for n in range(60)]
    sources = SourceOptions((str(make_files(tmp_path / "p", [*names, *HOSTILE])),))
    whole, shards = write_shards(tmp_path, extension, command, sources, 3)
    verdict = check(whole, sources)
    assert verdict.findings == []
    assert verdict.counts.rows == verdict.counts.listed == 60 + len(HOSTILE)
    assert verdict.counts.failed > 0, "the case has error rows"
    assert check(whole).passed
    for k, shard in enumerate(shards, 1):
        assert check(shard, SourceOptions(sources.sources, shard=(k, 3))).findings == []
        assert not check(shard, sources).passed


@pytest.mark.parametrize("options", [{"label_type": "both"}, {"min_score": 0.5}, {"top": 1}])
@pytest.mark.parametrize("extension", ["csv", "parquet", "jsonl"])
def test_options_that_change_rows_pass(tmp_path: Path, options: dict[str, object], extension: str) -> None:
    made = provenance("classify", **{f"options__{key}": value for key, value in options.items()})
    path = write(tmp_path / f"x.{extension}", rows_of("classify", [*refs(), broken_ref()], **options), made)
    assert check(path).findings == []


def test_a_row_that_is_missing_unknown_or_doubled(tmp_path: Path) -> None:
    folder = make_files(tmp_path / "p", [b"a.jpg", b"b.jpg", b"c.jpg"])
    sources = SourceOptions((str(folder),))
    listed = list(list_images(sources))
    other = ImageRef("x.jpg", "x.jpg", b"")
    path = write(
        tmp_path / "x.csv", rows_of("classify", [listed[0], listed[0], listed[2], other]), provenance("classify")
    )
    assert wrong(check(path, sources)) == {
        "sources without a row": [f"{folder}/b.jpg"],
        "duplicate rows": [f"{folder}/a.jpg"],
        "rows without a source": ["x.jpg"],
    }
    assert not check(path, sources).passed
    alone = check(path)
    assert alone.passed, "a source may be listed twice"
    assert [(one.check, one.examples) for one in alone.findings] == [("repeated", [f"{folder}/a.jpg"])]
    twice = SourceOptions((f"{folder}/a.jpg", str(folder)))
    path = write(tmp_path / "y.csv", rows_of("classify", list(list_images(twice))), provenance("classify"))
    assert check(path, twice).findings == []


@pytest.mark.parametrize(("said", "meant"), [("p", "{}/p"), ("./p", "p"), ("{}/p", "p"), ("{}/p", "elsewhere/p")])
def test_the_same_files_by_other_names_are_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, meant: str
) -> None:
    make_files(tmp_path / "p", [b"a.jpg", b"b.jpg", b"sub.jpg"])
    monkeypatch.chdir(tmp_path)
    names = [f"{meant.format(tmp_path)}/{name}" for name in ("a.jpg", "b.jpg", "sub.jpg")]
    made = rows_of("classify", [ImageRef(name, name, b"") for name in names])
    path = write(tmp_path / "x.csv", made, provenance("classify"))
    verdict = check(path, SourceOptions((said.format(tmp_path),)))
    (finding,) = verdict.findings
    assert (finding.check, finding.count, finding.warning) == ("spelling", 3, False)
    assert finding.what.startswith(
        f"images that go by other names: the sources say '{said.format(tmp_path)}/a.jpg', the table says '{names[0]}' "
    )
    assert not verdict.passed


def test_other_files_are_not_taken_for_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_files(tmp_path / "p", [b"a.jpg", b"b.jpg", b"c.jpg"])
    monkeypatch.chdir(tmp_path)
    rows = rows_of("classify", [ImageRef(name, name, b"") for name in ("q/a.jpg", "q/d.jpg", "./p/c.jpg")])
    path = write(tmp_path / "x.csv", rows, provenance("classify"))
    assert wrong(check(path, SourceOptions(("p",)))) == {
        "images that go by other names: the sources say 'p/c.jpg', the table says './p/c.jpg' (give the sources as the "
        "run had them)": [],
        "sources without a row": ["p/a.jpg", "p/b.jpg"],
        "rows without a source": ["q/a.jpg", "q/d.jpg"],
    }


def test_rows_in_another_order_are_mentioned(tmp_path: Path) -> None:
    sources = SourceOptions((str(make_files(tmp_path / "p", [b"a.jpg", b"b.jpg", b"c.jpg"])),))
    listed = list(list_images(sources))
    path = write(tmp_path / "x.csv", rows_of("classify", listed[::-1]), provenance("classify"))
    verdict = check(path, sources)
    assert verdict.passed
    assert [(one.check, one.count) for one in verdict.findings] == [("order", 2)]


Change = Callable[[pa.RecordBatch], pa.RecordBatch]
SCORES: list[tuple[str, Change, str]] = [
    ("nan", lambda b: changed(b, "score_2", 1, float("nan")), "ok rows with NaN in score_2"),
    ("infinite", lambda b: changed(b, "score_1", 1, float("inf")), "ok rows with an infinite score_1"),
    ("above", lambda b: changed(b, "score_1", 1, 1.5), "rows with score_1 outside 0 to 1"),
    ("below", lambda b: changed(b, "score_3", 1, -0.5), "rows with score_3 outside 0 to 1"),
    ("order", lambda b: changed(b, "score_1", 1, -0.0005), "rows with score_2 above score_1"),
    ("null", lambda b: changed(b, "score_2", 1, None), "ok rows with NaN in score_2"),
    ("label", lambda b: changed(b, "label_2", 1, None), "rows with an incomplete prediction 2"),
    ("status", lambda b: changed(b, "status", 1, "fine"), "rows whose status is neither ok nor error"),
    ("error", lambda b: changed(b, "error", 1, "truncated: x"), "ok rows with an error"),
    ("reason", lambda b: changed(b, "error", 9, "x"), "error rows without a known reason"),
    ("results", lambda b: changed(b, "status", 1, "error"), "error rows with predictions"),
    ("empty", lambda b: changed(b, "status", 9, "ok"), "ok rows without a prediction 1"),
    ("path", lambda b: changed(b, "path", 1, None), "rows without a path"),
]


@pytest.mark.parametrize(("change", "what"), [one[1:] for one in SCORES], ids=[one[0] for one in SCORES])
@pytest.mark.parametrize("extension", ["csv", "parquet"])
def test_wrong_values_of_classify(tmp_path: Path, change: Change, what: str, extension: str) -> None:
    good = rows_of("classify", [*refs(), broken_ref()])
    batch = change(good)
    row = 9 if what in ("error rows without a known reason", "ok rows without a prediction 1") else 1
    path = write(tmp_path / f"x.{extension}", batch, provenance("classify"))
    verdict = check(path)
    assert wrong(verdict)[what] == [batch["path"][row].as_py() or ""]
    assert not verdict.passed


def test_raw_scores_may_be_anything_but_nan(tmp_path: Path) -> None:
    made = provenance("classify", options__raw_scores=True)
    batch = changed(changed(rows_of("classify", refs()), "score_1", 1, 50.0), "score_3", 1, -float("inf"))
    assert check(write(tmp_path / "x.parquet", batch, made)).findings == []
    batch = changed(batch, "score_3", 1, float("nan"))
    assert not check(write(tmp_path / "x.parquet", batch, made)).passed


def test_nan_in_json_lines(tmp_path: Path) -> None:
    batch = changed(rows_of("classify", refs()), "score_3", 1, float("nan"))
    assert wrong(check(write(tmp_path / "x.jsonl", batch, provenance("classify")))) == {
        "ok rows with NaN in score_3": [batch["path"][1].as_py()]
    }


@pytest.mark.parametrize("extension", ["csv", "parquet", "npy"])
def test_wrong_values_of_features(tmp_path: Path, extension: str) -> None:
    good = rows_of("features", [*refs(), broken_ref()])
    paths = good["path"].to_pylist()
    for value, what in (
        ([0.0, float("nan"), 0.0, 0.0], "ok rows with NaN"),
        ([float("-inf")] * 4, "ok rows with infinite values"),
    ):
        path = write(tmp_path / f"x.{extension}", changed(good, "features", 1, value), provenance("features"))
        assert wrong(check(path)) == {what: [paths[1]]}
    batch = changed(good, "features", 9, [1.0, 2.0, 3.0, 4.0])
    path = write(tmp_path / f"x.{extension}", batch, provenance("features"))
    assert wrong(check(path)) == {"error rows with features": [paths[9]]}
    batch = changed(good, "features", 1, [None, 1.0, 2.0, 3.0])
    what = "ok rows with NaN" if extension == "npy" else "ok rows with null features"
    assert wrong(check(write(tmp_path / f"x.{extension}", batch, provenance("features")))) == {what: [paths[1]]}


def test_overflow_of_half_precision_is_found(tmp_path: Path) -> None:
    batch = rows_of("features", refs(), dtype="float16")
    values = [np.float16(value) for value in (np.inf, 0, 0, 0)]
    path = write(
        tmp_path / "x.npy", changed(batch, "features", 0, values), provenance("features", options__dtype="float16")
    )
    assert list(wrong(check(path))) == ["ok rows with infinite values"]


def test_counts_that_the_rows_do_not_have(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    write(path, rows_of("classify", [*refs(), broken_ref()]), provenance("classify"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    (names,) = wrong(check(path)).values()
    assert [name.split(": ", 1)[1].split(" is ")[0] for name in names] == ["listed", "errors"]


def test_provenance_that_is_missing_or_differs(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", rows_of("classify", refs()), provenance("classify"))
    meta = tmp_path / "x.parquet.meta.json"
    content = json.loads(meta.read_text())
    content["model"]["sha256"] = "other"
    meta.write_text(json.dumps(content))
    found = wrong(check(path))
    assert found.pop("files that have changed since they were written") == ["FILE.meta.json"]
    (names,) = found.values()
    assert len(names) == 1
    assert names[0].startswith("model.sha256")
    del content["device"], content["sha256"]  # as an earlier version of the program wrote it
    meta.write_text(json.dumps(content))
    assert "files that have changed since they were written" not in wrong(check(path))
    assert ["device"] in wrong(check(path)).values()
    meta.unlink()
    assert list(wrong(check(path))) == ["missing FILE.meta.json"]


def test_columns_that_no_run_writes(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = write(tmp_path / "x.parquet", rows_of("classify", refs()), provenance("classify"))
    table = pq.read_table(path)
    pq.write_table(table.set_column(5, "score_1", table["score_1"].cast(pa.float64())), path)
    assert wrong(check(path))["columns of another type"] == ["score_1: double, not float"]
    order = ["path", "status", "error", "label_1", "score_1", "index_1", *table.schema.names[6:]]
    pq.write_table(table.select(order), path)
    assert len(wrong(check(path))["columns out of place"]) == 2
    made = provenance("classify", options__top=2)
    path = write(tmp_path / "y.csv", rows_of("classify", refs(), top=3), made)
    assert "unexpected columns" in wrong(check(path))


def test_examples_are_few_and_counted(tmp_path: Path) -> None:
    batch = rows_of("classify", refs(150))
    path = write(tmp_path / "x.csv", batch, provenance("classify"))
    (tmp_path / "empty").mkdir()
    verdict = check(path, SourceOptions((str(tmp_path / "empty"),)))
    (finding,) = verdict.findings
    assert (finding.check, finding.count, len(finding.examples)) == ("unknown", 150, 20)
