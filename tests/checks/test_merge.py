"""Shards joined: the table of one run, or nothing."""

from __future__ import annotations

import itertools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from tests.faults.simulation.system import Fault, FaultySystem
from tests.thorough import WHOLE, thorough
from tests.writtentables import HOSTILE, make_files, provenance, rows_of, write, write_shards
from xcli.checks.findings import Findings
from xcli.checks.merge import Merged, MergeError, Shards, merge
from xcli.checks.source_order import in_source_order
from xcli.checks.verify import verify
from xcli.cli.main import run_command
from xcli.cli.verbosity import Messages
from xcli.core.errors import CheckError, OutputError, UsageError
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.storage import disk
from xcli.tables.formats import open_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

FORMATS = [("classify", "csv"), ("classify", "parquet"), ("classify", "jsonl")]
FORMATS += [("features", "csv"), ("features", "parquet"), ("features", "npy")]


def join(shards: list[str], target: str, sources: SourceOptions | None, **more: bool) -> Merged:
    opened = Shards(shards, mixed_machines=more.get("mixed_machines", False))
    form = Path(target).suffix[1:]
    opened.check_format(form)
    if sources is None:
        return merge(opened, None, form, target, overwrite=False, findings=Findings())
    with list_images(sources) as listing:
        return merge(opened, listing, form, target, overwrite=False, findings=Findings())


def test_a_merge_that_dies_at_any_call_is_completed_by_the_same_command(tmp_path: Path, photos: SourceOptions) -> None:
    _, shards = write_shards(tmp_path, "csv", "classify", photos, 2)
    whole = tmp_path / "first.csv"
    command = ["xception", "merge", *shards, "-o"]
    assert run_merge([*command, str(whole)]) == 0
    for call in itertools.count(0, 1 if WHOLE else 4):
        target = tmp_path / str(call) / "merged.csv"
        target.parent.mkdir()
        if run_merge([*command, str(target)], FaultySystem(str(target.parent), Fault(call, "SIGKILL-before"))) == 0:
            break
        if target.exists():
            assert Path(f"{target}.meta.json").exists(), call
        noted = Path(f"{target}.partial/publish.json").exists()
        if noted and target.exists():
            findings = Findings()
            verify(open_table(str(target)), None, findings)
            assert [one.check for one in findings.failures] == ["unfinished"], call
        # Once the note has gone the merge is finished, and an existing file is not replaced.
        expected = 5 if target.exists() and not noted else 0
        assert run_merge([*command, str(target)]) == expected, call
        assert target.read_bytes() == whole.read_bytes()
        assert sorted(os.listdir(target.parent)) == ["merged.csv", "merged.csv.meta.json"], call
    assert call > 15


def test_a_merge_that_is_interrupted_when_its_file_appears_is_completed_by_the_same_command(
    tmp_path: Path, photos: SourceOptions
) -> None:
    _, shards = write_shards(tmp_path, "csv", "classify", photos, 2)
    target = tmp_path / "merged.csv"

    class Interrupting(disk.System):
        def link(self, source: disk.Path, target: disk.Path) -> None:
            super().link(source, target)
            signal.raise_signal(signal.SIGINT)

    command = ["xception", "merge", *shards, "-o", str(target)]
    assert run_merge(command, Interrupting()) == 130
    assert target.exists()
    before = target.read_bytes()
    assert run_merge(command) == 0
    assert target.read_bytes() == before
    assert not Path(f"{target}.partial").exists()


def run_merge(command: list[str], system: disk.System | None = None) -> int:
    """Runs the command in a process of its own; returns its exit code, or the negative number of a signal."""
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        disk.system = system or disk.system
        sys.argv = command
        os._exit(run_command(Messages()))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def same(one: str, other: str) -> bool:
    suffixes = ("", ".csv") if one.endswith(".npy") else ("",)
    return all(Path(one + suffix).read_bytes() == Path(other + suffix).read_bytes() for suffix in suffixes)


@pytest.fixture
def photos(tmp_path: Path) -> SourceOptions:
    """A directory of 200 names of all kinds."""
    names = [f"{n:03}.jpg".encode() for n in range(200 - len(HOSTILE))]
    return SourceOptions((str(make_files(tmp_path / "p", [*names, *HOSTILE])),))


def found(shards: list[str], tmp_path: Path, sources: SourceOptions) -> dict[str, tuple[int, list[str]]]:
    """What a refused merge lists; nothing may have been written."""
    target = tmp_path / f"never{Path(shards[0]).suffix}"
    with pytest.raises(MergeError) as caught:
        join(shards, str(target), sources)
    assert not target.exists()
    assert caught.value.exit_code == 6
    return {finding.check: (finding.count, finding.examples) for finding in caught.value.findings}


@pytest.mark.parametrize(("command", "extension"), FORMATS)
def test_shards_become_the_file_of_one_run(tmp_path: Path, photos: SourceOptions, command: str, extension: str) -> None:
    whole, shards = write_shards(tmp_path, extension, command, photos, 4)
    target = str(tmp_path / f"merged.{extension}")
    merged = join(shards[::-1], target, photos)
    assert same(target, whole)
    meta, expected = (json.loads(Path(name + ".meta.json").read_text()) for name in (target, whole))
    assert meta["images"] == expected["images"] == merged.counts.as_dict()
    assert [Path(one["file"]).name for one in meta["merged"]] == [Path(one).name for one in shards[::-1]]
    assert sum(one["rows"] for one in meta["merged"]) == 200


@pytest.mark.parametrize("extension", ["csv", "jsonl"])
@pytest.mark.parametrize("options", [{"label_type": "both"}, {"min_score": 0.9}, {"min_score": 2.0}])
def test_predictions_left_out_and_wnids(
    tmp_path: Path, photos: SourceOptions, extension: str, options: dict[str, object]
) -> None:
    whole, shards = write_shards(tmp_path, extension, "classify", photos, 4, **options)
    join(shards, str(tmp_path / f"merged.{extension}"), photos)
    assert same(str(tmp_path / f"merged.{extension}"), whole)


def test_maps(tmp_path: Path, photos: SourceOptions) -> None:
    for extension in ("parquet", "npy"):
        for dtype in ("float32", "float16"):
            folder = tmp_path / dtype
            folder.mkdir(exist_ok=True)
            whole, shards = write_shards(folder, extension, "features", photos, 3, shape=(2, 2, 3), dtype=dtype)
            join(shards, str(folder / f"merged.{extension}"), photos)
            assert same(str(folder / f"merged.{extension}"), whole)


@pytest.mark.parametrize(("command", "extension"), FORMATS)
def test_columns_of_a_manifest(tmp_path: Path, command: str, extension: str) -> None:
    lines = (
        ["path,note,n"] + [f'{n}.jpg,"a ""{n}"", b",0{n}' for n in range(50)] + ["7.jpg,again,1", "7.jpg,,2", "8.jpg"]
    )
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    sources = SourceOptions(manifest=str(tmp_path / "m.csv"))
    whole, shards = write_shards(tmp_path, extension, command, sources, 5)
    join(shards, str(tmp_path / f"merged.{extension}"), sources)
    assert same(str(tmp_path / f"merged.{extension}"), whole)


def test_long_rows_are_put_in_order_a_few_at_a_time(
    tmp_path: Path, photos: SourceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, shards = write_shards(tmp_path, "csv", "classify", photos, 3)
    sizes = list[int]()

    def small(*args: Any) -> Iterator[pa.RecordBatch]:
        for batch in in_source_order(*args):
            sizes.append(batch.nbytes)
            yield batch

    monkeypatch.setattr("xcli.checks.source_order.GATHERED_BYTES", 1000)
    monkeypatch.setattr("xcli.checks.merge.in_source_order", small)
    target = str(tmp_path / "merged.csv")
    join(shards, target, photos)
    assert same(target, whole)
    assert len(sizes) > 10
    assert max(sizes) <= 1000


def test_typed_columns_of_a_manifest(tmp_path: Path) -> None:
    import pyarrow as pa

    table = pa.table(
        {
            "path": [f"{n}.jpg" for n in range(30)],
            "x": pa.array([n / 7 for n in range(30)], pa.float32()),
            "list": pa.array([[n, None, 0.1] for n in range(30)]),
            "flag": [None, True, False] * 10,
        }
    )
    pq.write_table(table, tmp_path / "m.parquet")
    sources = SourceOptions(manifest=str(tmp_path / "m.parquet"))
    for command, extension in FORMATS:
        whole, shards = write_shards(tmp_path, extension, command, sources, 3)
        target = str(tmp_path / f"merged-{command}.{extension}")
        join(shards, target, sources)
        assert same(target, whole), extension


def test_a_path_listed_twice_is_two_rows(tmp_path: Path, photos: SourceOptions) -> None:
    # The same file by two sources has two keys, and so may lie in two shards.
    folder = photos.sources[0]
    sources = SourceOptions((folder, f"{folder}/007.jpg", f"{folder}/*9.jpg", folder, str(Path(folder).parent / "p")))
    for extension in ("csv", "npy"):
        command = "features" if extension == "npy" else "classify"
        whole, shards = write_shards(tmp_path, extension, command, sources, 4)
        join(shards, str(tmp_path / f"merged.{extension}"), sources)
        assert same(str(tmp_path / f"merged.{extension}"), whole)


def test_parquet_becomes_any_format_and_others_only_their_own(tmp_path: Path, photos: SourceOptions) -> None:
    _, shards = write_shards(tmp_path, "parquet", "classify", photos, 3)
    for extension in ("csv", "jsonl"):
        whole, others = write_shards(tmp_path, extension, "classify", photos, 3)
        join(shards, str(tmp_path / f"merged.{extension}"), photos)
        assert same(str(tmp_path / f"merged.{extension}"), whole)
        with pytest.raises(UsageError, match=f"the shards are {extension}"):
            join(others, str(tmp_path / "merged.parquet"), photos)


def test_a_lost_shard_is_listed(tmp_path: Path, photos: SourceOptions) -> None:
    for extension in ("csv", "parquet", "jsonl"):
        _, shards = write_shards(tmp_path, extension, "classify", photos, 4)
        lost = list(list_images(SourceOptions(photos.sources, shard=(2, 4))))
        result = found(shards[:1] + shards[2:], tmp_path, photos)
        assert result == {"missing": (len(lost), [ref.path for ref in lost][:20])}


def test_the_cause_of_many_missing_rows_is_said_once(tmp_path: Path, photos: SourceOptions, monkeypatch) -> None:
    _, shards = write_shards(tmp_path, "csv", "classify", photos, 3)
    for number, name in enumerate(shards, 1):
        meta = Path(f"{name}.meta.json")
        meta.write_text(json.dumps(json.loads(meta.read_text()) | {"shard": f"{number}/3"}))
    lost = list(list_images(SourceOptions(photos.sources, shard=(2, 3))))
    two = [shards[0], shards[2]]
    assert found(two, tmp_path, photos) == {"shard": (len(lost), [])}
    with pytest.raises(MergeError, match=f"^images of shard 2/3, which is missing: {len(lost)}$"):
        join(two, str(tmp_path / "never.csv"), photos)
    with pytest.raises(MergeError, match=r"^images of other shards: this table is shard 1/3 \(give --shard\): \d+$"):
        join(shards[:1], str(tmp_path / "never.csv"), photos)


@pytest.mark.parametrize("spelling", ["p", "./p", "q/../p", "p/."])
def test_the_same_files_by_other_names_are_one_finding(
    tmp_path: Path, photos: SourceOptions, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    _, shards = write_shards(tmp_path, "csv", "classify", photos, 2)
    (tmp_path / "q").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MergeError) as caught:
        join(shards, str(tmp_path / "never.csv"), SourceOptions((spelling,)))
    (finding,) = caught.value.findings
    assert (finding.check, finding.count, finding.examples) == ("spelling", 200, [])
    assert re.match(
        r"images that go by other names: the sources say '(q/../|./)?p/.*', the table says '/", finding.what
    )


def test_a_copy_of_a_shard_is_listed(tmp_path: Path, photos: SourceOptions) -> None:
    _, shards = write_shards(tmp_path, "csv", "classify", photos, 4)
    copy = tmp_path / "copy.csv"
    copy.write_bytes(Path(shards[1]).read_bytes())
    (tmp_path / "copy.csv.meta.json").write_bytes(Path(shards[1] + ".meta.json").read_bytes())
    paths = [ref.path for ref in list_images(SourceOptions(photos.sources, shard=(2, 4)))]
    assert found([*shards, str(copy)], tmp_path, photos) == {"duplicate": (len(paths), paths[:20])}
    with pytest.raises(CheckError, match="same file"):
        Shards([*shards, shards[0]])
    os.symlink(shards[0], tmp_path / "link.csv")
    with pytest.raises(CheckError, match="same file"):
        Shards([*shards, str(tmp_path / "link.csv")])


def test_a_row_of_no_source_is_listed(tmp_path: Path, photos: SourceOptions) -> None:
    _, shards = write_shards(tmp_path, "parquet", "classify", photos, 4)
    folder = Path(photos.sources[0])
    (folder / "000.jpg").unlink()
    (folder / "new.jpg").write_text("")
    assert found(shards, tmp_path, photos) == {
        "missing": (1, [f"{folder}/new.jpg"]),
        "unknown": (1, [f"{folder}/000.jpg"]),
    }


def test_a_shard_that_lost_rows_is_named(tmp_path: Path, photos: SourceOptions) -> None:
    _, shards = write_shards(tmp_path, "csv", "classify", photos, 2)
    lines = Path(shards[1]).read_bytes().splitlines(keepends=True)
    Path(shards[1]).write_bytes(b"".join(lines[:-1]))
    result = found(shards, tmp_path, photos)
    assert result["missing"][0] == 1
    assert "shard-2.csv" in result["counts"][1][0]
    with pytest.raises(MergeError, match="counts"):
        join(shards, str(tmp_path / "never.csv"), None)
    assert not (tmp_path / "never.csv").exists()


@pytest.mark.parametrize("extension", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model__sha256", "cd" * 32),
        ("precision", "tf32"),
        ("options__label_type", "both"),
        ("preprocessing__size", 299),
        ("tool__version", "0.2.0"),
        ("versions__python", "3.12"),
        ("device", "/GPU:0"),
        ("batch_size", 8),
    ],
)
def test_mixed_provenance_is_refused(
    tmp_path: Path, photos: SourceOptions, extension: str, key: str, value: object
) -> None:
    _, shards = write_shards(tmp_path, extension, "classify", photos, 2)
    (tmp_path / "other").mkdir()
    _, others = write_shards(tmp_path / "other", extension, "classify", photos, 2, changes={key: value})
    mixed = [shards[0], others[1]]
    with pytest.raises(CheckError) as caught:
        Shards(mixed)
    message = str(caught.value)
    for part in (key.replace("__", "."), str(value), *mixed):
        assert part in message
    if key in ("device", "batch_size"):
        join(mixed, str(tmp_path / f"m.{extension}"), photos, mixed_machines=True)
        assert len(json.loads((tmp_path / f"m.{extension}.meta.json").read_text())[key]) == 2
    else:
        with pytest.raises(CheckError):
            Shards(mixed, mixed_machines=True)


def test_where_a_file_lay_is_no_difference(tmp_path: Path, photos: SourceOptions) -> None:
    _, shards = write_shards(tmp_path, "csv", "classify", photos, 2)
    (tmp_path / "other").mkdir()
    _, others = write_shards(tmp_path / "other", "csv", "classify", photos, 2, changes={"model__name": "elsewhere"})
    assert join([shards[0], others[1]], str(tmp_path / "m.csv"), photos).counts.rows == 200


def test_other_columns_formats_and_commands_are_refused(tmp_path: Path, photos: SourceOptions) -> None:
    made = provenance("classify")
    one = write(tmp_path / "1.csv", rows_of("classify", []), made)
    two = write(tmp_path / "2.csv", rows_of("classify", [], top=2), made)
    carried = write(tmp_path / "3.csv", rows_of("classify", [], [("note", None)]), made)
    parquet = write(tmp_path / "4.parquet", rows_of("classify", []), made)
    features = write(tmp_path / "5.csv", rows_of("features", []), provenance("features"))
    bare = write(tmp_path / "6.csv", rows_of("classify", []), made, meta=False)
    for other, what in ((two, "label_3"), (carried, "note"), (parquet, "format"), (features, "command")):
        with pytest.raises(CheckError, match=what):
            Shards([one, other])
    with pytest.raises(CheckError, match="no provenance"):
        Shards([one, bare])


def test_empty_shards(tmp_path: Path) -> None:
    sources = SourceOptions((str(make_files(tmp_path / "p", [b"a.jpg", b"b.jpg"])),))
    for command, extension in FORMATS:
        whole, shards = write_shards(tmp_path, extension, command, sources, 9)
        target = str(tmp_path / f"merged-{command}.{extension}")
        join(shards, target, sources)
        assert same(target, whole)
    (tmp_path / "nothing").mkdir()
    nothing = SourceOptions((str(tmp_path / "nothing"),))
    (tmp_path / "sub").mkdir()
    for command, extension in FORMATS:
        whole, shards = write_shards(tmp_path / "sub", extension, command, nothing, 2)
        target = str(tmp_path / "sub" / f"merged-{command}.{extension}")
        assert join(shards, target, nothing).counts.rows == 0
        assert same(target, whole)


def test_without_sources_one_stands_behind_the_other(tmp_path: Path, photos: SourceOptions) -> None:
    whole, shards = write_shards(tmp_path, "csv", "classify", photos, 3)
    merged = join(shards, str(tmp_path / "merged.csv"), None)
    assert not merged.ordered
    header, *rows = (Path(shards[0]).read_bytes(), *(Path(one).read_bytes() for one in shards[1:]))
    first = len(header.split(b"\n", 1)[0]) + 1
    assert (tmp_path / "merged.csv").read_bytes() == header + b"".join(one[first:] for one in rows)
    # And what was joined so is put in order later.
    join([str(tmp_path / "merged.csv")], str(tmp_path / "again.csv"), photos)
    assert same(str(tmp_path / "again.csv"), whole)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (("1/3", "2/3", "3/3"), None),
        (("3/3", "1/3", "2/3"), None),
        (("1/4", "2/4", "3/4"), "shards are missing: 4/4; give every shard of the run once"),
        (("1/3", "2/3", "2/3"), "not the shards of one run, each once: 1/3, 2/3, 2/3"),
        (("1/3", "2/3", "3/4"), "not the shards of one run"),
        (("1/4", None, "2/4"), None),
    ],
)
def test_without_sources_the_set_of_shards_must_be_whole(
    tmp_path: Path, photos: SourceOptions, numbers: tuple[str | None, ...], message: str | None
) -> None:
    _, shards = write_shards(tmp_path, "csv", "classify", photos, 3)
    for name, number in zip(shards, numbers, strict=True):
        meta = Path(f"{name}.meta.json")
        meta.write_text(json.dumps(json.loads(meta.read_text()) | {"shard": number}))
    target = tmp_path / "merged.csv"
    if message is None:
        join(shards, str(target), None)
    else:
        with pytest.raises(CheckError, match=message):
            join(shards, str(target), None)
    assert target.exists() == (message is None)


def test_sources_in_quite_another_order_are_refused(tmp_path: Path) -> None:
    folder = make_files(tmp_path / "p", [f"{n:04}.jpg".encode() for n in range(600)])
    names = sorted(str(path) for path in folder.iterdir())
    _, shards = write_shards(tmp_path, "csv", "classify", SourceOptions((str(folder),)), 2)
    with pytest.raises(CheckError, match="order"):
        join(shards, str(tmp_path / "m.csv"), SourceOptions(tuple(reversed(names))))
    assert not (tmp_path / "m.csv").exists()


def test_an_existing_file_stays(tmp_path: Path, photos: SourceOptions) -> None:
    _, shards = write_shards(tmp_path, "csv", "classify", photos, 2)
    (tmp_path / "m.csv").write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        join(shards, str(tmp_path / "m.csv"), photos)
    assert (tmp_path / "m.csv").read_text() == "mine"


def test_more_shards_than_files_may_be_open(tmp_path: Path) -> None:
    sources = SourceOptions((str(make_files(tmp_path / "p", [f"{n:04}.jpg".encode() for n in range(400)])),))
    whole, shards = write_shards(tmp_path, "npy", "features", sources, 80)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
    try:
        join(shards, str(tmp_path / "m.npy"), sources)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert same(str(tmp_path / "m.npy"), whole)


MEASURE = """
import re, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.checks.test_merge import join
from tests.checks.test_verify import check
from xcli.sources.listing import SourceOptions
for folder in {folders!r}:
    sources = SourceOptions(manifest=folder + "/m.csv")
    join([folder + f"/shard-{{k}}.parquet" for k in (1, 2, 3, 4)], folder + "/merged.parquet", sources)
    assert check(folder + "/merged.parquet", sources).findings == []
    # Not ru_maxrss, which begins with the parent's.
    print(re.search(r"VmHWM:\\s*([0-9]+) kB", Path("/proc/self/status").read_text())[1])
"""


@thorough
def test_memory_is_flat(tmp_path: Path) -> None:
    """Another 200,000 rows, 51 MB of numbers and 20 MB of paths as objects, take what the index takes, about 8 MB."""
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    folders = []
    for rows in (100_000, 300_000):
        folder = tmp_path / str(rows)
        folder.mkdir()
        manifest = folder / "m.csv"
        manifest.write_text("path\n" + "".join(f"/data/images/{n:08}.jpg\n" for n in range(rows)))
        write_shards(folder, "parquet", "features", SourceOptions(manifest=str(manifest)), 4, shape=(64,))
        folders.append(str(folder))
    code = MEASURE.format(root=str(Path(__file__).parents[2]), folders=folders)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    small, large = (int(number) / 1024 for number in done.stdout.split())
    assert large - small < 40, (small, large)
    for folder_ in folders:
        assert same(f"{folder_}/merged.parquet", f"{folder_}/whole.parquet")
    shutil.rmtree(tmp_path)
