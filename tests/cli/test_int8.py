"""`--precision int8`: calibrated once, and the same rows whatever happens to the run, with the whole Xception."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import COMMAND, clean_environment, code_and_imports, run_process, save_photos
from tests.cli.test_engine import vectors
from tests.inference.conftest import until
from tests.thorough import slow
from xcli.core.errors import ExitCode
from xcli.core.process import has_int8

if TYPE_CHECKING:
    from tests.cli.conftest import Invoke

pytest.importorskip("openvino", reason="the extra [openvino] is not installed")
needs_int8 = pytest.mark.skipif(not has_int8(), reason="this processor has no instructions for int8")

IMAGES = 70
MODEL = ("--weights", "none", "--image-size", "71", "--engine", "openvino")
INT8 = (*MODEL, "--precision", "int8", "--calibration", "32", "--min-agreement", "0")


def test_without_openvino_it_is_a_usage_error(invoke: Invoke, photos: Path) -> None:
    result = invoke("features", photos, "--weights", "none", "--precision", "int8")
    assert result.code == ExitCode.USAGE
    assert "--precision int8 is computed by OpenVINO only: add --engine openvino" in result.err


@pytest.mark.parametrize("command", ["finetune", "audit"])
def test_commands_that_do_not_have_it_say_so(invoke: Invoke, photos: Path, command: str) -> None:
    result = invoke(command, photos, "--precision", "int8")
    assert result.code == ExitCode.USAGE
    assert "'int8' is not one of" in result.err


@needs_int8
def test_few_images_and_lists_are_refused_with_a_way_out(invoke: Invoke, photos: Path) -> None:
    few = invoke("features", photos, *INT8)
    assert few.code == ExitCode.USAGE
    assert "at least 64 images, and 5 are listed" in few.err
    listed = invoke("features", "-", *INT8)
    assert listed.code == ExitCode.USAGE
    assert "--calibration-model FILE" in listed.err


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    save_photos(folder, [f"{number:03}.jpg" for number in range(IMAGES)])
    return folder


@pytest.fixture(scope="module")
def whole(many: Path, caches: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of an undisturbed run, which has also filled the cache."""
    table = tmp_path_factory.mktemp("whole") / "whole.parquet"
    run = run_process("features", many, *INT8, "-o", table, timeout=300, XDG_CACHE_HOME=str(caches))
    assert run.code == ExitCode.OK, run.err
    assert "int8: calibrating on 32 images and measuring on 32 others" in run.err
    assert "int8, calibrated on 32 images; against float32 on 32 others" in run.err
    return table


@pytest.fixture
def kept(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(caches))


@slow
@needs_int8
def test_the_features_are_those_of_float32_and_the_provenance_says_what_differs(
    whole: Path, many: Path, invoke: Invoke, tmp_path: Path, kept: None
) -> None:
    table = tmp_path / "float32.parquet"
    assert invoke("features", many, *MODEL, "-o", table).code == ExitCode.OK
    ours, theirs = vectors(whole), vectors(table)
    cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosines.min() > 0.99
    assert not np.array_equal(ours, theirs)
    meta = json.loads(Path(f"{whole}.meta.json").read_text())
    assert meta["precision"] == "int8"
    calibration = meta["calibration"]
    assert len(set(calibration["images"])) == 32
    assert set(calibration["images"]) <= set(pq.read_table(whole)["path"].to_pylist())
    assert calibration["loss"]["images"] == 32
    assert calibration["integer_layers"] > 30
    assert invoke("verify", whole, many).code == ExitCode.OK


@slow
@needs_int8
def test_the_same_command_again_finds_the_output_and_imports_no_tensorflow(
    whole: Path, many: Path, invoke: Invoke, tmp_path: Path, kept: None
) -> None:
    again = invoke("features", many, *INT8, "-o", whole)
    assert again.code == ExitCode.OK
    assert "is finished and up to date" in again.err
    command = ["features", str(many), *INT8, "-o", str(tmp_path / "second.parquet")]
    assert code_and_imports(command) == "IMPORTED 0 []"
    assert (tmp_path / "second.parquet").read_bytes() == whole.read_bytes()


@slow
@needs_int8
@pytest.mark.parametrize("layer", ["block6_sepconv2_act", "block13_sepconv2_bn"])
def test_layers_in_the_middle_take_the_same_calibration(
    whole: Path, many: Path, invoke: Invoke, tmp_path: Path, kept: None, layer: str
) -> None:
    tables = tmp_path / "int8.parquet", tmp_path / "float32.parquet"
    for table, options in zip(tables, (INT8, MODEL), strict=True):
        result = invoke("features", many, *options, "--layer", layer, "--pooling", "avg", "-o", table)
        assert result.code == ExitCode.OK, result.err
        assert "calibrating on" not in result.err
    ours, theirs = map(vectors, tables)
    cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosines.min() > 0.99
    assert not np.array_equal(ours, theirs)


@slow
@needs_int8
def test_a_killed_run_goes_on_with_its_calibration(
    whole: Path, many: Path, caches: Path, tmp_path: Path, kept: None
) -> None:
    table = tmp_path / "killed.parquet"
    command = ("features", str(many), *INT8, "--part-rows", "16", "-o", str(table))
    process = subprocess.Popen([*COMMAND, *command], env=clean_environment(), stderr=subprocess.DEVNULL)
    partial = Path(f"{table}.partial")
    assert until(lambda: any(partial.glob("part-*.arrow")) or process.poll() is not None, 60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not table.exists(), "it was over before it was killed"
    run = run_process(*command)
    assert run.code == ExitCode.OK, run.err
    assert "rows are kept from before" in run.err
    assert "calibrating on" not in run.err
    assert table.read_bytes() == whole.read_bytes()


@slow
@needs_int8
def test_an_update_keeps_the_calibration(whole: Path, invoke: Invoke, tmp_path: Path, kept: None) -> None:
    folder, table = tmp_path / "photos", tmp_path / "table.parquet"
    names = [f"{number:03}.jpg" for number in range(IMAGES)]
    save_photos(folder, names)
    assert invoke("features", folder, *INT8, "-o", table).code == ExitCode.OK
    before = json.loads(Path(f"{table}.meta.json").read_text())["calibration"]
    save_photos(folder, [*names, *(f"new-{number}.jpg" for number in range(40))])
    updated = invoke("features", folder, *INT8, "--update", "-o", table)
    assert updated.code == ExitCode.OK, updated.err
    assert "calibrating on" not in updated.err
    assert pq.read_table(table).num_rows == IMAGES + 40
    assert json.loads(Path(f"{table}.meta.json").read_text())["calibration"] == before


@slow
@needs_int8
def test_shards_together_are_the_undisturbed_run(
    whole: Path, many: Path, invoke: Invoke, tmp_path: Path, kept: None
) -> None:
    shards = [tmp_path / f"{number}.parquet" for number in (1, 2, 3)]
    for number, shard in enumerate(shards, start=1):
        assert invoke("features", many, *INT8, "--shard", f"{number}/3", "-o", shard).code == ExitCode.OK
    assert invoke("merge", *shards, "-o", tmp_path / "merged.parquet").code == ExitCode.OK
    assert (tmp_path / "merged.parquet").read_bytes() == whole.read_bytes()


@slow
@needs_int8
def test_a_file_serves_lists_and_other_machines(
    whole: Path, many: Path, caches: Path, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: None
) -> None:
    file = tmp_path / "photos.int8"
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    assert invoke("features", many, *INT8, "--calibration-model", file, "-o", first).code == ExitCode.OK
    assert first.read_bytes() == whole.read_bytes()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    names = "\n".join(map(str, sorted(many.iterdir()))).encode()
    size = ("--batch-size", "16")
    listed = run_process("features", "-", *INT8, *size, "--calibration-model", file, "-o", second, stdin=names)
    assert listed.code == ExitCode.OK, listed.err
    assert "calibrating on" not in listed.err
    assert np.array_equal(vectors(second), vectors(whole))


@slow
@needs_int8
def test_a_damaged_calibration_in_the_cache_is_made_again_by_one_of_two(
    many: Path, whole: Path, tmp_path: Path
) -> None:
    env, tables = {"XDG_CACHE_HOME": str(tmp_path / "caches")}, [tmp_path / "1.parquet", tmp_path / "2.parquet"]
    folder = tmp_path / "caches" / "xception"

    def both() -> list[str]:
        processes = [
            subprocess.Popen(
                [*COMMAND, "features", str(many), *INT8, "--overwrite", "-o", str(table)],
                env=clean_environment(**env),
                stderr=subprocess.PIPE,
                text=True,
            )
            for table in tables
        ]
        said = [process.communicate(timeout=300)[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], said
        return said

    said = both()
    assert sum("calibrating on" in text for text in said) == 1
    assert all(table.read_bytes() == whole.read_bytes() for table in tables)
    for file in folder.glob("*/*.model"):
        file.write_bytes(file.read_bytes()[:-1] + b"\0")
    said = both()
    assert sum("calibrating on" in text for text in said) == 1
    assert any("it is damaged; it is made again" in text for text in said)
    assert all(table.read_bytes() == whole.read_bytes() for table in tables)
