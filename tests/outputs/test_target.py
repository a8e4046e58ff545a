"""What `-o` names."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from xcli.core.errors import OutputError, UsageError
from xcli.inference.options import Pinned
from xcli.outputs.options import Output, SaveOptions, check_output_options
from xcli.outputs.target import Directory, EarlierRun, File, Stream, parse_file, parse_target

if TYPE_CHECKING:
    from pathlib import Path

    from tests.objectstore import ObjectStore


def test_names_on_a_disk(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "old.csv").write_text("")
    (tmp_path / "there").mkdir()
    for name in (None, "-", "/dev/stdout", "/dev/fd/2", str(tmp_path / "fifo")):
        assert parse_target(name) == Stream(name)
    for name in ("new.csv", str(tmp_path / "old.csv"), str(tmp_path / "no" / "new.parquet")):
        assert parse_target(name) == File(name)
    for name in ("new/", str(tmp_path / "there")):
        assert parse_target(name) == Directory(name)
    with pytest.raises(UsageError, match="the name of the output is empty"):
        parse_target("")
    with pytest.raises(UsageError, match=r"--features-out takes the name of a file; received '-'"):
        parse_file("-", "--features-out")


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("overwrite", [False, True], ids=["", "overwrite"])
@pytest.mark.parametrize("name", ["photos", "folders", "hidden", "link", "photos.parquet"])
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path, name: str, overwrite: bool, slash: str) -> None:
    for file in ("photos/a.jpg", "folders/cats/a.jpg", "hidden/.DS_Store", "photos.parquet/part-00000.parquet"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"mine")
    (tmp_path / "link").symlink_to("photos")
    before = sorted(tmp_path.rglob("*"))
    target = parse_target(f"{tmp_path}/{name}{slash}")
    assert isinstance(target, Directory)
    with pytest.raises(OutputError, match=r"contains .*, which is not from an unfinished run. Use a new or an empty"):
        check_output_options(Output("features", target, "parquet", overwrite), SaveOptions())
    assert sorted(tmp_path.rglob("*")) == before


def test_a_directory_with_the_name_of_a_file_needs_the_slash(tmp_path: Path) -> None:
    for name in ("x.csv", "x.jsonl", "x.npy", "x.parquet", "run.2024"):
        (tmp_path / name).mkdir()
        (tmp_path / f"link-{name}").symlink_to(name)
        assert parse_target(f"{tmp_path}/{name}/") == Directory(f"{tmp_path}/{name}/")
    for name in ("x.parquet", "run.2024"):
        assert parse_target(f"{tmp_path}/{name}") == Directory(f"{tmp_path}/{name}")
    for name in ("x.csv", "x.jsonl", "x.npy"):
        with pytest.raises(UsageError, match="is a directory; add a slash to write Parquet parts there, or give a"):
            parse_target(f"{tmp_path}/{name}")
        with pytest.raises(UsageError, match="is a directory; add a slash"):
            parse_file(f"{tmp_path}/{name}", "--features-out")
    for name in ("link-x.parquet", "link-x.csv", "link-run.2024"):
        with pytest.raises(UsageError, match=r"is a link to the directory /.*; add a slash"):
            parse_target(f"{tmp_path}/{name}")


def test_names_in_a_store(s3: ObjectStore) -> None:
    url = s3.put(f"{s3.prefix()}/out.csv", b"x")
    folder = url.rpartition("/")[0]
    assert parse_target(url) == File(url)
    assert parse_target(folder) == Directory(folder)
    assert parse_target(f"{folder}/new/") == Directory(f"{folder}/new/")
    assert (File(url).exists(), File(url).is_finished(), File(url[:-1]).exists()) == (True, True, False)
    assert File(url).real_name == url


def test_one_file_by_two_names(tmp_path: Path) -> None:
    path, link = File(str(tmp_path / "a")), File(str(tmp_path / "b"))
    os.symlink(path.name, link.name)
    assert (path.exists(), link.exists(), link.is_finished()) == (False, True, False)
    assert link.real_name == path.real_name


def test_what_an_earlier_run_left(tmp_path: Path) -> None:
    for target, content in ((File(f"{tmp_path}/a.csv"), "a.csv"), (Directory(f"{tmp_path}/d/"), "d/_SUCCESS")):
        (tmp_path / content).parent.mkdir(exist_ok=True)
        assert target.recorded_run() is None
        with open(target.meta_name, "w", encoding="utf-8") as file:
            json.dump({"fingerprint": "f", "batch_size": 8}, file)
        assert target.recorded_run() == EarlierRun("f", Pinned(8))
        assert target.finished_run() is None
        (tmp_path / content).write_text("")
        assert target.finished_run() == EarlierRun("f", Pinned(8))
        assert (target.holds("f"), target.holds("g")) == (True, False)
        with open(target.meta_name, "w", encoding="utf-8") as file:
            file.write("{")
        assert target.recorded_run() is None


@pytest.mark.parametrize("missing", [["out.csv"], ["out.csv", "out.csv.meta.json"]])
def test_a_file_whose_process_died_as_it_got_its_name_is_no_foreign_file(tmp_path: Path, missing: list[str]) -> None:
    target = File(str(tmp_path / "out.csv"))
    private = tmp_path / "out.csv.partial"
    private.mkdir()
    (private / "lock").write_text("process 1 on host\n")
    (tmp_path / "out.csv.meta.json").write_text('{"fingerprint": "x"}')
    notes = []
    for number, name in enumerate(["out.csv.meta.json", "out.csv"]):
        notes.append({"staged": f"staged-ab-{number}", "final": f"../{name}", "replace": name != "out.csv"})
        if name in missing:
            (private / f"staged-ab-{number}").write_text('{"fingerprint": "x"}')
    (private / "publish.json").write_text(json.dumps(notes))
    if len(missing) == 2:
        (tmp_path / "out.csv.meta.json").unlink()
    check_output_options(Output("classify", target, "csv"), SaveOptions())
    assert target.finished_run() == EarlierRun("x", Pinned())
    assert sorted(os.listdir(tmp_path)) == ["out.csv", "out.csv.meta.json"]
