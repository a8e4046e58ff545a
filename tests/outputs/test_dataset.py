"""`-o DIR/`: parts that are a table at every moment, and a whole one at the end."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from tests.cli.conftest import save_photos
from tests.outputs.test_save import Killed, Recorder
from tests.thorough import slow
from xcli.core.errors import CheckError, OutputError, TooManyErrors, UsageError
from xcli.models.loader import load_model
from xcli.models.network import LoadedModel
from xcli.outputs.dataset import Dataset, check_directory
from xcli.outputs.target import Directory, parse_target
from xcli.storage.disk import System
from xcli.tables.formats import open_table

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def models() -> dict[str, LoadedModel]:
    return {"features": load_model(weights="none", include_top=False, image_size=71)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    save_photos(folder, [f"{n:02}.jpg" for n in range(11)])
    (folder / "04x.jpg").write_bytes(b"")
    (folder / "07x.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture
def recorder(models: dict[str, LoadedModel], photos: Path, tmp_path: Path) -> Recorder:
    return Recorder(models, "features", photos, tmp_path / "out")


def table(folder: Path) -> pa.Table:
    """As any reader of Arrow's takes the directory."""
    return ds.dataset(folder, format="parquet").to_table()


def rows_of(folder: Path) -> list[str]:
    """The rows as texts, in which NaN of error rows is equal to itself."""
    found = table(folder)
    return [str(found.schema.remove_metadata()), *map(str, found.to_pylist())]


def names(folder: Path) -> list[str]:
    return [os.path.basename(path) for path in table(folder).column("path").to_pylist()]


def test_after_any_deaths_the_rows_are_those_of_an_undisturbed_run(
    models: dict[str, LoadedModel], recorder: Recorder, tmp_path: Path
) -> None:
    undisturbed = Recorder(models, "features", recorder.photos, tmp_path / "whole")
    undisturbed()
    for after in (4, 2, 4):
        with pytest.raises(Killed):
            recorder(die_after=after)
        content = os.listdir(recorder.target)
        assert "_SUCCESS" not in content
        assert all(name.startswith(("_", "part-")) for name in content)
        assert names(recorder.target) == sorted(os.listdir(recorder.photos))[: len(names(recorder.target))]
        with pytest.raises(CheckError, match="its run has not finished"):
            open_table(str(recorder.target))
    report = recorder()
    assert (report.listed, report.ok, report.failed) == (13, 11, 2)
    assert report.resumed == 13 - len(recorder.computed) > 0
    assert rows_of(recorder.target) == rows_of(undisturbed.target)
    content = sorted(os.listdir(recorder.target))
    assert content[:3] == ["_SUCCESS", "_meta.json", "_states"]
    assert all(name.startswith("part-") for name in content[3:])
    meta = json.loads((recorder.target / "_meta.json").read_text())
    assert meta["images"]["listed"] == 13
    assert open_table(f"{recorder.target}/").meta == meta


@slow
@pytest.mark.parametrize("survivors", range(4))
def test_a_finished_dataset_whose_sidecars_were_not_all_removed_is_finished(
    survivors: int, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, or out of luck with its disk, after the last row was in its place."""
    monkeypatch.setattr(Dataset, "_clean_up", lambda self: None)
    recorder()
    monkeypatch.undo()
    whole = rows_of(recorder.target)
    sidecars = sorted(recorder.target.glob("_part-*"))
    assert len(sidecars) > 3
    for path in sidecars[survivors:]:
        path.unlink()
    recorder.computed.clear()
    recorder()
    assert recorder.computed == []
    assert rows_of(recorder.target) == whole
    assert {name for name in os.listdir(recorder.target) if name.startswith("_")} == {
        "_SUCCESS",
        "_meta.json",
        "_states",
    }
    recorder.sources = (str(recorder.photos / "00.jpg"),)
    with pytest.raises(OutputError, match="exists, from a run with other settings"):
        recorder()
    assert rows_of(recorder.target) == whole


def test_a_finished_dataset_that_nobody_can_vouch_for_is_not_added_to(recorder: Recorder) -> None:
    recorder()
    whole = rows_of(recorder.target)
    (recorder.target / "_meta.json").write_text("")
    with pytest.raises(OutputError, match=r"is finished, but has no _meta\.json, which records its settings"):
        recorder()
    assert rows_of(recorder.target) == whole


def test_changed_and_new_and_vanished_inputs(recorder: Recorder) -> None:
    with pytest.raises(Killed):
        recorder(die_after=12)
    os.utime(recorder.photos / "01.jpg", (1, 1))
    os.unlink(recorder.photos / "03.jpg")
    save_photos(recorder.photos, ["00a.jpg"])
    report = recorder()
    assert sorted(names(recorder.target)) == sorted(os.listdir(recorder.photos))
    assert (report.listed, report.rows, report.resumed) == (13, 13, 13 - len(recorder.computed))


def test_a_path_that_is_listed_twice_has_two_rows_after_a_death_too(recorder: Recorder) -> None:
    recorder.sources = (str(recorder.photos), str(recorder.photos))
    with pytest.raises(Killed):
        recorder(die_after=20)
    assert recorder().rows == 26
    expected = sorted(2 * os.listdir(recorder.photos))
    assert sorted(names(recorder.target)) == expected


def test_from_part_100_000_on_the_order_is_that_of_numbers(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    number = Dataset._next_number

    def late(self: Dataset) -> int:
        if not self._part_names():
            self._next = 99_998
        return number(self)

    monkeypatch.setattr(Dataset, "_next_number", late)
    with pytest.raises(Killed):
        recorder(die_after=9)
    kept = names(recorder.target)
    os.utime(recorder.photos / "00.jpg")
    report = recorder()
    assert (report.listed, report.ok, report.failed) == (13, 11, 2)
    assert "part-100000.parquet" in os.listdir(recorder.target)
    found = [
        os.path.basename(path)
        for batch in open_table(str(recorder.target)).batches(["path"])
        for path in batch.column(0).to_pylist()
    ]
    assert found == [*sorted(set(kept) - {"00.jpg"}), *recorder.computed]
    assert sorted(found) == sorted(os.listdir(recorder.photos)), "each once"


@slow
def test_death_while_the_parts_are_put_in_order(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Killed):
        recorder(die_after=12)
    for name in ("01.jpg", "05.jpg"):
        os.utime(recorder.photos / name, (1, 1))
    published: list[str] = []

    def die_at(step: int) -> None:
        def rename(self: System, source: Path, target: Path) -> None:
            published.append(os.path.basename(target))
            if len(published) > step:
                raise Killed
            os.replace(source, target)

        published.clear()
        monkeypatch.setattr(System, "rename", rename)

    step = parts = 0
    while not (recorder.target / "_SUCCESS").exists():
        die_at(step)
        with suppress(Killed):
            recorder()
        monkeypatch.undo()
        parts = max(parts, published.count("part-00000.parquet"))
        step += 1
    assert (step > 5, parts) == (True, 1), "a part keeps its number"
    assert sorted(names(recorder.target)) == sorted(os.listdir(recorder.photos))
    assert not list(recorder.target.glob("*.damaged"))


def test_a_part_without_its_sidecar_is_computed_again(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Killed):
        recorder(die_after=12)
    os.unlink(recorder.target / "_part-00001.arrow")
    recorder()
    assert "part-00001.parquet is damaged" in caplog.text
    assert sorted(names(recorder.target)) == sorted(os.listdir(recorder.photos))


def test_a_finished_dataset_is_recognised_and_overwritten_when_asked(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "xcli")
    recorder()
    assert (recorder().listed, recorder.computed) == (13, [])
    assert "finished and up to date" in caplog.text
    with pytest.raises(OutputError, match="exists, from a run with other settings"):
        recorder(batch_size=3)
    assert (recorder.target / "_SUCCESS").exists()
    with pytest.raises(Killed):
        recorder(batch_size=3, overwrite=True, die_after=3)
    assert not (recorder.target / "_SUCCESS").exists()
    assert recorder(batch_size=3, overwrite=True).resumed > 0
    assert len(names(recorder.target)) == 13


def test_what_a_run_had_no_time_to_drop_does_not_come_back(recorder: Recorder) -> None:
    recorder()
    os.unlink(recorder.target / "_SUCCESS")
    os.unlink(recorder.target / "part-00001.parquet")
    with pytest.raises(OutputError, match=r"_run\.json cannot be used, it is missing, .*Use --restart"):
        recorder(batch_size=3)
    recorder(batch_size=3, overwrite=True)
    assert names(recorder.target) == sorted(os.listdir(recorder.photos))


def test_what_a_dead_process_was_writing_goes(recorder: Recorder) -> None:
    with pytest.raises(Killed):
        recorder(die_after=4)
    left = ["_part-00007.parquet.4711-00c0ffee.tmp", "_part-00007.arrow.4711-00c0ffee.tmp"]
    left += ["_run.json.tmp", "_run.json.4711-00c0ffee.tmp", "_SUCCESS.4711-00c0ffee.tmp"]
    for name in left:
        (recorder.target / name).write_bytes(b"half")
    check_directory(Directory(str(recorder.target)), "parquet")
    with pytest.raises(Killed):
        recorder(die_after=2)
    assert not set(left) & set(os.listdir(recorder.target))
    assert not any(name.endswith(".tmp") for name in os.listdir(recorder.target))


def test_files_of_others_are_left_alone(recorder: Recorder) -> None:
    recorder.target.mkdir()
    (recorder.target / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"contains notes\.txt"):
        check_directory(Directory(str(recorder.target)), "parquet")
    with pytest.raises(OutputError, match=r"contains notes\.txt"):
        recorder(overwrite=True, restart=True)
    os.unlink(recorder.target / "notes.txt")
    (recorder.target / "part-00000.parquet").write_text("mine")
    with pytest.raises(OutputError, match=r"contains part-00000\.parquet"):
        recorder(overwrite=True)
    assert (recorder.target / "part-00000.parquet").read_text() == "mine"


def test_a_directory_that_was_there_stays_when_nothing_was_done(recorder: Recorder) -> None:
    recorder.sources = ("no/such/*.jpg",)
    for existed in (False, True):
        if existed:
            recorder.target.mkdir()
        with pytest.raises(UsageError, match="matches nothing"):
            recorder()
        assert recorder.target.exists() == existed
        if existed:
            assert os.listdir(recorder.target) == []


def test_no_images_make_a_table_without_rows(recorder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    recorder.sources = (str(tmp_path / "none"),)
    recorder()
    assert table(recorder.target).num_rows == 0
    assert table(recorder.target).schema.names == ["path", "status", "error", "features"]


def test_errors_are_listed(recorder: Recorder, tmp_path: Path) -> None:
    errors = tmp_path / "failed"
    with pytest.raises(TooManyErrors):
        recorder(max_errors=0, errors_out=str(errors))
    assert errors.read_bytes() == os.fsencode(recorder.photos / "04x.jpg") + b"\0"
    recorder(errors_out=str(errors))
    assert errors.read_bytes().count(b"\0") == 2


def test_what_is_a_dataset(tmp_path: Path) -> None:
    assert isinstance(parse_target("new/"), Directory)
    assert isinstance(parse_target(str(tmp_path)), Directory)
    assert not any(
        isinstance(parse_target(name), Directory) for name in (None, "-", "new", str(tmp_path / "new.parquet"))
    )
    check_directory(Directory(f"{tmp_path}/new/"), "parquet")
    with pytest.raises(UsageError, match="for csv give a file name"):
        check_directory(Directory(f"{tmp_path}/new/"), "csv")
    with pytest.raises(OutputError, match=r"the directory '.*/no' does not exist$"):
        check_directory(Directory(f"{tmp_path}/no/such/"), "parquet")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="it is a file"):
        check_directory(Directory(f"{tmp_path}/file/"), "parquet")
