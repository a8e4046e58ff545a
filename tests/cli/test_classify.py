"""`xception classify`, from the command line to the file."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import Invoke, code_and_imports, save_photos
from tests.thorough import thorough
from xcli.models.labels import imagenet_labels

RANDOM = ("--weights", "none", "--batch-size", "4")


def rows_of(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def test_csv_on_a_pipe(invoke: Invoke, photos: Path) -> None:
    result = invoke("classify", photos, *RANDOM)
    assert result.code == 0, result
    rows = rows_of(result.out)
    assert [os.path.relpath(row["path"], photos) for row in rows] == ["a.jpg", "b.JPG", "c.jpeg", "d.jpg", "sub/e.jpg"]
    assert list(rows[0]) == ["path", "status", "error"] + [
        f"{name}_{k}" for k in range(1, 6) for name in ("label", "index", "score")
    ]
    for row in rows:
        assert (row["status"], row["error"]) == ("ok", "")
        scores = [float(row[f"score_{k}"]) for k in range(1, 6)]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)
        assert imagenet_labels().names[int(row["index_1"])] == row["label_1"]
    assert "5 images: 5 ok, 2 skipped" in result.err


def test_every_format_holds_the_same(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    options = (*RANDOM, "--top", "2", "--label-type", "both")
    for name in ("x.csv", "x.parquet", "x.jsonl"):
        assert invoke("classify", photos, *options, "-o", tmp_path / name).code == 0
    from_csv = rows_of((tmp_path / "x.csv").read_bytes())
    from_parquet = pq.read_table(tmp_path / "x.parquet").to_pylist()
    from_jsonl = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    for text, typed, nested in zip(from_csv, from_parquet, from_jsonl, strict=True):
        assert text["path"] == typed["path"] == nested["path"]
        for k in (1, 2):
            prediction = nested["predictions"][k - 1]
            assert text[f"label_{k}"] == typed[f"label_{k}"] == prediction["label"]
            assert text[f"wnid_{k}"] == typed[f"wnid_{k}"] == prediction["wnid"]
            assert int(text[f"index_{k}"]) == typed[f"index_{k}"] == prediction["index"]
            assert float(text[f"score_{k}"]) == pytest.approx(typed[f"score_{k}"], rel=1e-6)


def test_provenance(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.parquet"
    assert invoke("classify", photos, *RANDOM, "--seed", "3", "-o", target).code == 0
    meta = json.loads((tmp_path / "x.parquet.meta.json").read_text())
    inside = json.loads(pq.read_schema(target).metadata[b"xception"])
    assert {key: meta[key] for key in inside} == inside
    assert inside["model"]["sha256"] == "random-3"
    assert inside["preprocessing"]["resize"] == "crop"
    assert inside["precision"] == "float32"
    assert inside["options"]["top"] == 5
    assert meta["images"] == {
        "listed": 5,
        "ok": 5,
        "errors": {},
        "skipped": {"hidden": 1, "not an image": 1},
        "resumed": 0,
    }
    assert "started" not in inside
    assert meta["command_line"].startswith("xception classify ")


def test_an_existing_file_is_left_alone(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.csv"
    target.write_text("mine")
    result = invoke("classify", photos, *RANDOM, "-o", target)
    assert result.code == 5
    assert "--overwrite" in result.err
    assert target.read_text() == "mine"
    assert invoke("classify", photos, *RANDOM, "-o", target, "--overwrite", "--limit", "1").code == 0
    assert len(rows_of(target.read_bytes())) == 1


def test_errors_are_rows_and_exit_4(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    empty, gone = tmp_path / "empty.jpg", tmp_path / "gone.jpg"
    empty.touch()
    command = ("classify", photos / "a.jpg", empty, gone, photos / "d.jpg", *RANDOM)
    assert invoke(*command).code == 2
    result = invoke(*command, "--missing-ok")
    assert result.code == 4
    rows = rows_of(result.out)
    assert [row["status"] for row in rows] == ["ok", "error", "error", "ok"]
    assert rows[1]["error"].startswith("empty: ")
    assert rows[2]["error"].startswith("missing: ")
    assert rows[1]["label_1"] == rows[1]["score_5"] == ""
    assert "4 images: 2 ok, 2 errors (1 empty, 1 missing)" in result.err


def test_min_score_and_labels(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\n")
    options = ("--weights", "none", "--labels", labels, "--top", "9")
    (row,) = rows_of(invoke("classify", photos / "a.jpg", *options, "--min-score", "0.5").out)
    assert "label_3" not in row, "no more predictions than classes"
    assert {row["label_1"], row["label_2"]} <= {"cat", "dog", ""}
    assert row["label_1"]
    assert row["label_2"] == row["score_2"] == row["index_2"] == ""
    assert row["status"] == "ok"
    (row,) = rows_of(invoke("classify", photos / "a.jpg", *options, "--min-score", "1").out)
    assert (row["label_1"], row["status"]) == ("", "ok")
    assert invoke("classify", photos, *options, "--min-score", "80").code == 2
    labels.write_text("cat\ndog\nbird\n")
    assert invoke("classify", photos, "--weights", "none", "--classes", "2", "--labels", labels).code == 3


def test_manifest_columns_are_carried(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text(f'id,path,note\n7,{photos}/a.jpg,"x, y"\n8,{photos}/gone.jpg,\n')
    result = invoke("classify", "--manifest", manifest, *RANDOM, "--top", "1")
    assert result.code == 4
    first, second = rows_of(result.out)
    assert (first["id"], first["note"], first["status"]) == ("7", "x, y", "ok")
    assert (second["id"], second["status"]) == ("8", "error")
    assert invoke("classify", "--manifest", manifest, *RANDOM, "-o", tmp_path / "out.parquet").code == 4
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column("id").to_pylist() == [7, 8]  # Parquet keeps numbers as numbers
    assert table.column("note").to_pylist() == ["x, y", ""]


@thorough
def test_shards_make_the_whole(invoke: Invoke, tmp_path: Path) -> None:
    save_photos(tmp_path / "in", [f"{n}.jpg" for n in range(7)])
    whole = rows_of(invoke("classify", tmp_path / "in", "--weights", "none").out)
    parts = []
    for shard in (1, 2, 3):
        result = invoke("classify", tmp_path / "in", "--weights", "none", "--shard", f"{shard}/3")
        assert result.code == 0
        assert re.search(r"this shard: \d of 7 images: \d ok in ", result.err)
        parts += rows_of(result.out)
    # Bit for bit: a shard computes in the batch shape of the whole run.
    assert sorted(parts, key=lambda row: row["path"]) == whole


def test_no_images(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("classify", tmp_path, *RANDOM, "-o", tmp_path / "x.csv")
    assert result.code == 0
    assert "no images found" in result.err
    assert rows_of((tmp_path / "x.csv").read_bytes()) == []
    assert (tmp_path / "x.csv").read_bytes().startswith(b"path,status,error,label_1,")


def test_nothing_but_what_is_skipped(invoke: Invoke, tmp_path: Path) -> None:
    for name in ("notes.txt", ".hidden.jpg", "@eaDir/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    result = invoke("classify", tmp_path, *RANDOM)
    assert result.code == 0, result
    assert "no images found (skipped: 1 hidden, 1 not an image, 1 system folder); images are files that" in result.err
    assert ".jpeg, .jpf, .jpg, .jpx, .jxl, .pbm, .pgm, .png" in result.err
    assert "--include PATTERN takes others" in result.err
    assert "--include-system" in result.err


def test_quiet_says_nothing(invoke: Invoke, photos: Path) -> None:
    for args in (["-q", "classify"], ["classify", "-q"]):
        result = invoke(*args, photos, *RANDOM, "--limit", "1")
        assert (result.code, result.err) == (0, "")


def test_the_current_directory_is_said(invoke: Invoke, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    result = invoke("classify", *RANDOM, "--limit", "2")
    assert "taking the current directory" in result.err
    assert [row["path"] for row in rows_of(result.out)] == ["a.jpg", "b.JPG"]


def test_images_of_findings_are_left_out(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    findings, target = tmp_path / "f.csv", tmp_path / "x.csv"
    findings.write_text(f"path,issue\n{photos}/a.jpg,blank\n{photos}/sub/e.jpg,tiny\n")
    command = ("classify", photos, *RANDOM, "--exclude-from", findings, "-o", target)
    result = invoke(*command, "--exclude-kinds", "tiny,dark")
    names = [os.path.basename(row["path"]) for row in rows_of(target.read_bytes())]
    assert names == ["a.jpg", "b.JPG", "c.jpeg", "d.jpg"]
    assert "3 skipped (1 excluded by findings, 1 hidden, 1 not an image)" in result.err
    result = invoke(*command)
    assert (result.code, "other settings" in result.err) == (5, True), result


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--exclude-from", "-"), "is a file, not standard input"),
        (("--exclude-from", "."), "cannot open the table '.': Is a directory; give a CSV or Parquet file"),
        (("--exclude-from", ""), "cannot open the table ''"),
        (("--exclude-from", "none.csv"), "cannot open the table 'none.csv': No such file"),
        (("--exclude-from", "f.csv", "--exclude-kinds", "small"), "'small' is no kind of finding"),
        (("--exclude-kinds", "tiny"), "--exclude-kinds is for --exclude-from FINDINGS"),
        (("--exclude-from", "f.csv", "-o", "f.csv", "--overwrite"), "f.csv is --exclude-from and the output at once"),
        (("--exclude-from", "a.jpg"), "binary data"),
    ],
)
def test_what_cannot_be_excluded_is_refused(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save_photos(tmp_path, ["a.jpg"])
    Path("f.csv").write_text("path,issue\na.jpg,tiny\n")
    result = invoke("classify", "a.jpg", *more)
    assert (result.code, message in result.err) == (2, True), result
    assert result.err.count("\n") == 1


def test_what_cannot_be_excluded_is_refused_without_tensorflow(photos: Path) -> None:
    found = code_and_imports(["classify", str(photos), "--exclude-from", str(photos / "a.jpg")])
    assert (found.startswith("IMPORTED 2 "), "'tensorflow'" in found) == (True, False), found
