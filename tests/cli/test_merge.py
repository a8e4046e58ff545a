"""`xception merge`, from real runs to the file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import COMMAND, Invoke, clean_environment, code_and_imports, save_photos
from tests.thorough import slow, thorough
from tests.writtentables import provenance, rows_of, write
from xcli.tables.provenance import PROVENANCE_KEYS

SMALL = ("--weights", "none", "--image-size", "71", "--batch-size", "32")
TINY = ("--weights", "none", "--classes", "3", "--batch-size", "8", "--top", "2")
HOSTILE = [b"not-utf8-\xff.jpg", b"new\nline.jpg", b'quote",.jpg', b"back\\x41.jpg"]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 tiny photographs, some with names that need care, one of them broken."""
    root = tmp_path_factory.mktemp("many")
    folder = root / "many"
    save_photos(folder, [f"{n:03}.jpg" for n in range(200 - len(HOSTILE))], (12, 10))
    for number, name in enumerate(HOSTILE):
        shutil.copy(os.fsencode(folder / f"{number:03}.jpg"), os.fsencode(folder) + b"/" + name)
    (folder / "100.jpg").write_bytes(b"\xff\xd8\xff nothing")
    return root


def runs(invoke: Invoke, folder: Path, name: str, count: int, *args: str | Path) -> list[Path]:
    """One run to `whole-NAME`, and `count` shards; gives the shards."""
    assert invoke(*args, "-o", folder / f"whole-{name}").code in (0, 4)
    shards = []
    for k in range(1, count + 1):
        shards.append(folder / f"{k}-{name}")
        assert invoke(*args, "--shard", f"{k}/{count}", "-o", shards[-1]).code in (0, 4)
    return shards


@slow
@pytest.mark.parametrize("extension", ["csv", pytest.param("npy", marks=thorough)])
def test_four_shards_are_the_one_run(
    invoke: Invoke, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: str
) -> None:
    monkeypatch.chdir(many)
    name = f"x.{extension}"
    shards = runs(invoke, tmp_path, name, 4, "features", "many", *SMALL)
    result = invoke("merge", *shards, "--source", "many", "-o", tmp_path / name)
    assert result.code == 0, result
    assert "every source has its row" in result.err
    for suffix in ("", ".csv") if extension == "npy" else ("",):
        assert (tmp_path / (name + suffix)).read_bytes() == (tmp_path / f"whole-{name}{suffix}").read_bytes()
    assert invoke("verify", tmp_path / name, "many").code == 0
    # The report holds what is missing, the terminal the first of it.
    result = invoke(
        "merge", *shards[1:], "--source", "many", "-o", tmp_path / f"y.{extension}", "--report", tmp_path / "report"
    )
    assert result.code == 6
    lines = [json.loads(line) for line in (tmp_path / "report").read_text().splitlines()]
    assert {line["check"] for line in lines} == {"shard"}
    assert f"images of shard 1/4, which is missing: {len(lines)}" in result.err
    assert not any(line["name"] in result.err for line in lines)
    assert not (tmp_path / f"y.{extension}").exists()


@thorough
def test_shards_of_classify_by_a_manifest(
    invoke: Invoke, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(many)
    manifest = tmp_path / "m.csv"
    rows = [f'many/{n:03}.jpg,"note ""{n}"""' for n in range(90, 110)] + ["many/095.jpg,again"]
    manifest.write_text("file,note\n" + "\n".join(rows) + "\n")
    listed = ("--manifest", manifest, "--path-column", "file")
    shards = runs(invoke, tmp_path, "x.jsonl", 2, "classify", *listed, *TINY)
    assert invoke("merge", *shards, *listed, "-o", tmp_path / "x.jsonl").code == 0
    assert (tmp_path / "x.jsonl").read_bytes() == (tmp_path / "whole-x.jsonl").read_bytes()
    assert invoke("verify", tmp_path / "x.jsonl", *listed).code == 0
    again = invoke("merge", *shards, *listed, "-o", tmp_path / "x.jsonl")
    assert (again.code, "--overwrite" in again.err) == (5, True)


def test_runs_that_differ_are_refused(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "1.parquet", tmp_path / "2.parquet"
    assert invoke("features", photos, *SMALL, "--shard", "1/2", "-o", one).code == 0
    cases = {
        "model.sha256": ("--seed", "1"),
        "options.normalize": ("--normalize",),
        "options.pooling": ("--pooling", "max"),
        "preprocessing.resize": ("--resize", "pad"),
    }
    for key, extra in cases.items():
        assert invoke("features", photos, *SMALL, "--shard", "2/2", *extra, "-o", two, "--overwrite").code == 0
        result = invoke("merge", one, two, "--source", photos, "-o", tmp_path / "x.parquet")
        assert result.code == 6, result
        assert key in result.err
        assert str(one) in result.err
        assert str(two) in result.err
        assert len(result.err.splitlines()) == 1


def test_provenance_has_the_members_that_are_compared(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    """A new member of FILE.meta.json must be said to be of the rows, or of the run alone."""
    target = tmp_path / "x.parquet"
    assert invoke("features", photos, *SMALL, "-o", target).code == 0
    assert json.loads(pq.read_metadata(target).metadata[b"xception"]).keys() == set(PROVENANCE_KEYS)


def test_without_sources_the_order_is_that_which_the_shards_recorded(
    invoke: Invoke, photos: Path, tmp_path: Path
) -> None:
    shards = runs(invoke, tmp_path, "x.csv", 2, "features", photos, *SMALL)
    result = invoke("merge", *reversed(shards), "-o", "-")
    assert (result.code, result.out) == (0, (tmp_path / "whole-x.csv").read_bytes())
    assert "every image that the shards listed has its row, in the order of one run" in result.err
    os.unlink(f"{shards[0]}.states")
    result = invoke("merge", *shards, "-o", "-")
    assert result.code == 0, result
    assert "--source" in result.err, "the order is not known"
    assert sorted(result.out.splitlines()) == sorted((tmp_path / "whole-x.csv").read_bytes().splitlines())


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["merge"], 2, "SHARD"),
        (["merge", "x.csv"], 2, "--output"),
        (["merge", "no-such.csv", "-o", "y.csv"], 2, "no-such.csv"),
        (["merge", "empty.csv", "-o", "y.csv"], 6, "empty.csv"),
        (["merge", "empty.csv", "./empty.csv", "-o", "y.csv"], 6, "same file"),
        (["merge", "empty.csv", "--include", "*.png", "-o", "y.csv"], 2, "--source"),
        (["verify"], 2, "OUT"),
        (["verify", "no-such.csv"], 2, "no-such.csv"),
        (["verify", "empty.csv"], 6, "empty.csv"),
        (["verify", "empty.csv", "--shard", "1/2"], 2, "SOURCE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_errors_are_one_line(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.csv").write_text("")
    result = invoke(*args)
    assert result.code == code, result
    assert message in result.err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["empty.csv"]


def test_a_shard_is_not_overwritten(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    shard = tmp_path / "1.csv"
    assert invoke("features", photos, *SMALL, "-o", shard).code == 0
    before = shard.read_bytes()
    result = invoke("merge", shard, "--source", photos, "-o", shard, "--overwrite")
    assert (result.code, shard.read_bytes()) == (2, before)


def test_no_tensorflow(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    shards = runs(invoke, tmp_path, "x.parquet", 2, "features", photos, *SMALL)
    labels = write(tmp_path / "labels.csv", rows_of("classify", []), provenance("classify"))
    for args in (
        ["merge", *map(str, shards), "--source", str(photos), "-o", str(tmp_path / "x.parquet")],
        ["verify", str(tmp_path / "x.parquet"), str(photos)],
        ["report", labels, "-o", str(tmp_path / "report.html")],
    ):
        assert code_and_imports(args) == "IMPORTED 0 []"
    done = subprocess.run([*COMMAND, "merge", "--help"], capture_output=True, env=clean_environment(), check=True)
    assert b"--mixed-machines" in done.stdout
