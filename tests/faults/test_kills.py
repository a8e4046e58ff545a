"""kill -9 at any moment, then the same command again: the output of an undisturbed run, byte for byte."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import run_process, save_photos
from tests.faults.harness import TALLY, WHOLE, Job, features, jobs, kill_at, paths_of, run_with
from tests.thorough import thorough

RANDOM_KILLS = 20
INSIDE = ["kill-append:40", "kill-fsync:3", "kill-replace:3", "kill-link:1", "kill-write:3", "kill-unlink:1"]
"""In a part; before a part is on the disk; between that and its name; around the finished file."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Many photographs and few, an empty file and no image among each."""
    root = tmp_path_factory.mktemp("sources")
    for name, count in (("many", 250), ("few", 30)):
        save_photos(root / name, [f"{n:03}.jpg" for n in range(count)])
        (root / name / "013x.jpg").write_bytes(b"")
        (root / name / "021x.jpg").write_bytes(b"no image")
    return root / "many", root / "few"


@pytest.fixture(scope="module")
def undisturbed(sources: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[Job, dict[str, bytes]]:
    """What each kind of job leaves when nothing happens to it; computed when first asked for."""

    class Cache(dict[Job, dict[str, bytes]]):
        """Files by name; and under the empty name the paths of the table, one a line."""

        def __missing__(self, job: Job) -> dict[str, bytes]:
            folder = tmp_path_factory.mktemp("undisturbed")
            result = job.run(folder)
            assert result.code == 4, result
            self[job] = job.content(folder) | {"": "\n".join(job.table(folder)).encode()}
            return self[job]

    return Cache()


def check_again(job: Job, folder: Path, expected: dict[str, bytes]) -> None:
    """The same command again ends well, and leaves what an undisturbed run leaves, and nothing else."""
    result = job.run(folder)
    assert result.code in (0, 4), result
    assert "Traceback" not in result.err
    expected = dict(expected)
    TALLY.hold(job.table(folder), expected.pop("").decode().split("\n"))
    assert (TALLY.lost, TALLY.doubled) == (0, 0)
    found = job.content(folder)
    assert found.keys() == expected.keys()
    if any(name.startswith("out/") for name in found):
        # Where parts are cut depends on the moment; the rows do not.
        assert rows_of(folder) == rows_of_parts(expected)
    else:
        assert found == expected
    if WHOLE:
        again = job.run(folder)
        assert (again.code in (0, 4), "finished and up to date" in again.err) == (True, True), again


def rows_of(folder: Path) -> object:
    import pyarrow.dataset as ds

    return ds.dataset(folder / "out", format="parquet").to_table().combine_chunks()


def rows_of_parts(files: dict[str, bytes]) -> object:
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = [pq.read_table(pa.BufferReader(files[name])) for name in sorted(files) if "part-" in name]
    return pa.concat_tables(parts).combine_chunks()


@thorough
@pytest.mark.parametrize("number", range(RANDOM_KILLS))
def test_a_random_moment(
    number: int, sources: tuple[Path, Path], undisturbed: dict[Job, dict[str, bytes]], tmp_path: Path
) -> None:
    kinds = jobs(*sources)
    job = kinds[number % len(kinds)]
    expected = undisturbed[job]
    killed = kill_at(job, tmp_path, random.Random(number), 2.0)
    if killed and number % 4 == 0:
        kill_at(job, tmp_path, random.Random(-number), 1.0)
    check_again(job, tmp_path, expected)


@thorough
@pytest.mark.parametrize("fault", INSIDE)
def test_a_worse_moment(
    fault: str, sources: tuple[Path, Path], undisturbed: dict[Job, dict[str, bytes]], tmp_path: Path
) -> None:
    check_worse(fault, features(sources[0]), undisturbed, tmp_path)


@thorough
@pytest.mark.parametrize("fault", ["kill-link:1", "kill-link:2", "kill-link:3", "kill-write:4"])
def test_between_two_tables(
    fault: str, sources: tuple[Path, Path], undisturbed: dict[Job, dict[str, bytes]], tmp_path: Path
) -> None:
    check_worse(fault, jobs(*sources)[-1], undisturbed, tmp_path)


def check_worse(fault: str, job: Job, undisturbed: dict[Job, dict[str, bytes]], tmp_path: Path) -> None:
    expected = undisturbed[job]
    result = run_with(fault, job, tmp_path)
    assert result.code == -signal.SIGKILL, result
    check_again(job, tmp_path, expected)


@pytest.mark.skipif(not WHOLE, reason="takes minutes: make test-faults")
def test_eight_shards_each_killed_once(sources: tuple[Path, Path], tmp_path: Path) -> None:
    source = sources[0]
    whole = tmp_path / "whole.parquet"
    arguments = ("features", source, "--weights", "none", "--image-size", "71", "--batch-size", "1")
    assert run_process(*arguments, "-o", whole).code == 4
    shards, killed = [], 0
    for number in range(1, 9):
        job = Job(
            (*map(str, arguments), "--shard", f"{number}/8", "--part-rows", "4"), ("-o", f"shard-{number}.parquet")
        )
        folder = tmp_path / str(number)
        folder.mkdir()
        killed += kill_at(job, folder, random.Random(number), 0.2)
        result = job.run(folder)
        assert result.code in (0, 4), result
        shards.append(folder / f"shard-{number}.parquet")
    assert killed == 8
    merged = run_process("merge", *shards, "-o", tmp_path / "merged.parquet", "--source", source)
    assert merged.code == 0, merged
    TALLY.hold(paths_of(tmp_path, "merged.parquet"), paths_of(tmp_path, "whole.parquet"))
    assert (tmp_path / "merged.parquet").read_bytes() == whole.read_bytes()


@thorough
@pytest.mark.parametrize("output", ["out.csv", "out.npy", "out/"])
@pytest.mark.parametrize("fault", [*INSIDE, "kill-link:2", "kill-replace:1", "kill-unlink:5"])
def test_an_update(fault: str, output: str, tmp_path: Path) -> None:
    source, made, fresh = (tmp_path / name for name in ("in", "made", "fresh"))
    made.mkdir()
    fresh.mkdir()
    save_photos(source, [f"{n:03}.jpg" for n in range(60)])
    job = features(source, output)
    assert job.run(made).code == 0
    old = job.content(made)
    save_photos(source, [f"{n:03}x.jpg" for n in range(60)])
    for n in (7, 8, 30):
        (source / f"{n:03}.jpg").unlink()
    update = Job((*job.arguments, "--update"), job.outputs)
    killed = run_with(fault, update, made)
    assert killed.code in (0, -signal.SIGKILL), killed
    assert job.run(fresh).code == 0
    expected = job.content(fresh)
    if output != "out/":
        there = {name: data for name, data in job.content(made).items() if ".partial/" not in name}
        assert there in (old, expected), "the old table, or the new one"
    assert update.run(made).code == 0
    TALLY.hold(sorted(job.table(made)), sorted(job.table(fresh)))
    assert (TALLY.lost, TALLY.doubled) == (0, 0)
    assert output == "out/" or job.content(made) == expected
    assert sorted(path.name for path in made.iterdir()) == sorted(path.name for path in fresh.iterdir())
    again = job.run(made)
    assert (again.code, "finished and up to date" in again.err) == (0, True), again
