"""After `--update` a table is byte for byte that of a fresh run, and only what is new or has changed was computed."""

from __future__ import annotations

import os
import shutil
import tarfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.stubrun import StubRun
from tests.thorough import WHOLE
from xcli.checks.findings import Findings
from xcli.checks.verify import verify
from xcli.core.errors import OutputError, UsageError
from xcli.outputs import base_table
from xcli.outputs.comparison import StaleOutputError
from xcli.outputs.dataset import Dataset
from xcli.outputs.options import Output, SaveOptions, check_output_options
from xcli.outputs.partial_file import PartialFile
from xcli.outputs.save import save
from xcli.outputs.target import parse_target
from xcli.tables.formats import open_table

KINDS = [("features", "csv"), ("features", "parquet"), ("features", "npy"), ("classify", "csv"), ("classify", "jsonl")]


class Killed(BaseException):
    pass


def run(
    source: Path,
    target: Path,
    command: str,
    *,
    die_after: int | None = None,
    shard: Any = None,
    archives: bool = False,
    exclude_from: str | None = None,
    **options: Any,
) -> list[str]:
    """Runs into a file; returns the names of the images that were computed, which a run that is killed raises."""
    second, is_manifest = "features_out" in options, source.suffix == ".csv"
    sources: dict[str, Any] = (
        {"manifest": str(source), "manifest_base": str(source.parent)}
        if is_manifest
        else {"shard": shard, "archives": archives}
    )
    sources["exclude_from"] = exclude_from
    stub: Any = StubRun([] if is_manifest else [f"{source}/"], command, with_features=second, **sources)
    source = source.parent / "in"
    computed: list[str] = []

    def on_batch(batch: Any) -> None:
        computed.extend(os.path.relpath(ref.path, source) for ref in batch.refs)
        if die_after is not None and len(computed) >= die_after:
            raise Killed(computed)

    output = Output(
        command, parse_target(str(target) if target.suffix else f"{target}/"), target.suffix[1:] or "parquet"
    )
    save(stub, output, SaveOptions(**{"part_rows": 2, **options}), on_batch=on_batch)
    return computed


def files_of(target: Path) -> dict[str, bytes]:
    """The table, its companion and the states of its rows, by the end of their names."""
    names = [name for name in os.listdir(target.parent) if name.startswith(target.name)]
    chosen = [name for name in names if not name.endswith((".meta.json", ".partial"))]
    return {name.removeprefix(target.name): (target.parent / name).read_bytes() for name in chosen}


NAMES = [f"{folder}{letter}.jpg" for folder in ("", "b/", "b/c/") for letter in "abcde"]
trees = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3), max_size=12)


def plant(folder: Path, tree: dict[str, int], moment: int) -> None:
    """Makes files of these sizes; those of no bytes are errors."""
    for name, size in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        os.utime(path, ns=(moment, moment))


@settings(
    max_examples=400 if WHOLE else 12,
    deadline=None,
    derandomize=not WHOLE,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    kind=st.sampled_from(KINDS),
    before=trees,
    added=trees,
    touched=st.sets(st.sampled_from(NAMES), max_size=4),
    removed=st.sets(st.sampled_from(NAMES), max_size=6),
    kills=st.lists(st.integers(1, 4), max_size=3),
    two=st.booleans(),
    shard=st.sampled_from([None, (1, 2)]),
)
@example(
    kind=("classify", "jsonl"),
    before={"a.jpg": 1, "b/b.jpg": 2, "c.jpg": 0},
    added={"b/a.jpg": 1, "a.jpg": 2},
    touched={"c.jpg"},
    removed={"b/b.jpg"},
    kills=[1],
    two=True,
    shard=None,
)
def test_an_updated_table_is_that_of_a_fresh_run(
    kind: tuple[str, str],
    before: dict[str, int],
    added: dict[str, int],
    touched: set[str],
    removed: set[str],
    kills: list[int],
    two: bool,
    shard: Any,
) -> None:
    command, form = kind
    with TemporaryDirectory() as name:
        folder = Path(name)
        source, target = folder / "in", folder / f"t.{form}"
        source.mkdir()
        options: dict[str, Any] = {"shard": shard}
        if two and command == "classify":
            options["features_out"] = str(folder / "u.npy")
        plant(source, before, 10**18)
        run(source, target, command, **options)
        plant(source, added, 2 * 10**18)
        for path in touched:
            with suppress(FileNotFoundError):
                os.utime(source / path, ns=(0, 3 * 10**18))
        for path in removed - added.keys():
            with suppress(FileNotFoundError):
                (source / path).unlink()
        old = files_of(target)
        computed = []
        for after in kills:
            try:
                computed += run(source, target, command, die_after=after, update=True, **options)
            except Killed as killed:
                computed += killed.args[0]
                assert files_of(target) == old, "until it is replaced, the table stays what it is"
        computed += run(source, target, command, update=True, drop_missing=True, **options)
        updated = files_of(target) | ({} if not options.get("features_out") else files_of(folder / "u.npy"))
        assert run(source, target, command, **options) == [], "it is up to date"
        (folder / "old").mkdir()
        for path in folder.glob("[tu].*"):
            shutil.move(path, folder / "old")
        fresh = run(source, target, command, **options)
        assert updated == files_of(target) | ({} if not options.get("features_out") else files_of(folder / "u.npy"))
        expected = (added.keys() | (touched & before.keys())) & set(fresh)
        assert set(computed) == expected
        if not kills:
            assert len(computed) == len(expected)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    plant(tmp_path / "in", {f"{n:02}.jpg": n % 5 for n in range(30)}, 10**18)
    return tmp_path / "in"


def test_many_rows_are_not_dropped_unasked(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "t.csv"
    run(source, target, "features")
    old = files_of(target)
    source.rename(tmp_path / "elsewhere")
    source.mkdir()
    with pytest.raises(OutputError, match=r"was not changed: 30 of its 30 rows .* --drop-missing") as caught:
        run(source, target, "features", update=True)
    assert (caught.value.exit_code, files_of(target)) == (5, old)
    plant(source, {"new.jpg": 1}, 10**18)
    with pytest.raises(OutputError, match="--drop-missing"):
        run(source, target, "features", update=True)
    assert files_of(target) == old
    assert run(source, target, "features", update=True, drop_missing=True) == ["new.jpg"], "nothing was computed before"
    assert target.read_text().count("\n") == 2


def test_the_last_rows_are_not_dropped_unasked(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "t.csv"
    plant(source, {"a.jpg": 1, "b.jpg": 2}, 10**18)
    run(source, target, "features")
    old = files_of(target)
    for image in source.iterdir():
        image.unlink()
    with pytest.raises(OutputError, match=r"was not changed: 2 of its 2 rows .* --drop-missing"):
        run(source, target, "features", update=True)
    assert files_of(target) == old
    assert run(source, target, "features", update=True, drop_missing=True) == []
    assert target.read_text().count("\n") == 1


def test_errors_that_may_have_passed_are_tried_again(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "t.csv"
    (source / "x.jpg").symlink_to("nowhere")
    run(source, target, "features")
    assert run(source, target, "features", update=True) == ["x.jpg"]
    assert run(source, target, "features", update=True, retry_errors=True) == [
        *(f"{n:02}.jpg" for n in range(0, 30, 5)),
        "x.jpg",
    ]


@pytest.mark.parametrize("name", ["t.csv", "t.npy", "out"])
def test_an_error_that_stays_writes_nothing(source: Path, tmp_path: Path, name: str) -> None:
    manifest, target = tmp_path / "list.csv", tmp_path / name
    paths = ["in/01.jpg", "in/no.jpg", "in/no.jpg", "in/02.jpg", "in/never.jpg"]
    manifest.write_text("\n".join(["path", *paths]))
    run(manifest, target, "features")

    def files() -> dict[str, tuple[int, bytes]]:
        found = [path for path in (target, *tmp_path.glob(f"{name}.*"), *tmp_path.glob(f"{name}/*")) if path.is_file()]
        return {path.name: (path.stat().st_ino, path.read_bytes()) for path in found}

    before = files()
    assert len(run(manifest, target, "features", update=True)) == 3
    assert files() == before
    if name != "out":  # whose order is not that of the sources
        manifest.write_text("\n".join(["path", *paths[::-1]]))
        run(manifest, target, "features", update=True)
        assert files() != before
    (source / "no.jpg").write_bytes(b"x")
    assert len(run(manifest, target, "features", update=True)) == 3
    assert not any(error is not None and "no.jpg" in path for path, error in errors_of(target))
    assert run(manifest, target, "features") == []


def errors_of(target: Path) -> list[tuple[str, str | None]]:
    rows = [batch.to_pylist() for batch in open_table(f"{target}/" if not target.suffix else str(target)).batches()]
    return [(row["path"], row["error"]) for batch in rows for row in batch]


def test_two_updates_at_once(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "t.csv"
    run(source, target, "features")
    with PartialFile(str(target)), pytest.raises(OutputError, match="process"):
        run(source, target, "features", update=True)


def test_an_older_output_needs_trust(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "t.csv"
    run(source, target, "features")
    whole = files_of(target)
    (tmp_path / "t.csv.states").unlink()
    with pytest.raises(OutputError, match=r"t\.csv\.states is missing.*--trust-existing"):
        run(source, target, "features", update=True)
    assert run(source, target, "features", update=True, trust_existing=True) == []
    assert files_of(target) == whole


def test_a_table_that_was_changed_by_hand_is_not_updated(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "t.csv"
    run(source, target, "features")
    head, first, *lines = target.read_text().splitlines(keepends=True)
    (source / "99.jpg").write_bytes(b"x")
    for content in ([head, *lines, first], [head, *lines], [head, first, *lines, first]):
        target.write_text("".join(content))
        with pytest.raises(OutputError, match="cannot be updated: it is damaged, or was changed"):
            run(source, target, "features", update=True)
        assert target.read_text() == "".join(content)


def test_other_settings_are_named(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "t.csv"
    run(source, target, "features")
    with pytest.raises(
        OutputError, match=r"rows of a run with no --csv-bom, but .* --csv-bom\. Use .*, or --overwrite"
    ):
        run(source, target, "features", update=True, csv_bom=True)


def test_what_cannot_be_updated_is_refused(source: Path, tmp_path: Path) -> None:
    cases: list[tuple[str, dict[str, Any], bool]] = [
        ("s3://bucket/out/", {"update": True}, False),
        ("t.csv", {"update": True}, True),
        ("t.csv", {"drop_missing": True}, False),
        ("t.csv", {"trust_existing": True}, False),
    ]
    for name, options, overwrite in cases:
        target = parse_target(name if "://" in name else f"{tmp_path}/{name}")
        output = Output("features", target, os.path.splitext(name)[1][1:] or "parquet", overwrite)
        with pytest.raises(UsageError):
            check_output_options(output, SaveOptions(**options))


def test_without_a_finished_table_it_is_an_ordinary_run(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "t.npy"
    with pytest.raises(Killed):
        run(source, target, "features", update=True, die_after=4)
    computed = run(source, target, "features", update=True)
    assert 0 < len(computed) < 30
    assert run(source, target, "features") == []


@pytest.mark.parametrize(("command", "form"), KINDS)
def test_values_of_a_manifest_are_taken_over_without_computing(
    source: Path, tmp_path: Path, command: str, form: str
) -> None:
    manifest, target = tmp_path / "list.csv", tmp_path / f"t.{form}"

    def write(*rows: tuple[int, str]) -> None:
        lines = (f"in/{number:02}.jpg,{note}\n" for number, note in rows)
        manifest.write_text("path,note\n" + "".join(lines))

    write(*((number, f"note {number}") for number in range(30)))
    run(manifest, target, command)
    # Other notes, another order, some rows twice, one gone, one new.
    (source / "30.jpg").write_bytes(b"x")
    rows = [((number * 7) % 31, f"{'other ' * (number % 3)}{number}") for number in range(30)]
    write(*rows, rows[3], (rows[5][0], "again"))
    assert run(manifest, target, command, update=True) == ["30.jpg"]
    updated = files_of(target)
    assert run(manifest, target, command) == []
    write(*rows, rows[3], (rows[5][0], "and again"))
    with pytest.raises(StaleOutputError, match="1 image has other values in the manifest"):
        run(manifest, target, command)
    write(*rows, rows[3], (rows[5][0], "again"))
    for name in files_of(target):
        (tmp_path / f"t.{form}{name}").unlink()
    run(manifest, target, command)
    assert files_of(target) == updated


def test_images_in_another_order_are_not_computed(source: Path, tmp_path: Path) -> None:
    """Rows that go back and forth in the table are copied, to be read at random."""
    manifest, target = tmp_path / "list.csv", tmp_path / "t.parquet"
    names = [f"in/{number:02}.jpg" for number in range(30)]
    manifest.write_text("\n".join(["path", *names]))
    run(manifest, target, "features")
    manifest.write_text("\n".join(["path", *reversed(names)]))
    with pytest.raises(StaleOutputError, match="the images come in another order"):
        run(manifest, target, "features")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_table, "_MOST_RESTARTS", -1)
        patch.setattr(base_table, "_SPILLED_ROWS", 4)
        assert run(manifest, target, "features", update=True) == []
    updated = files_of(target)
    for name in updated:
        (tmp_path / f"t.parquet{name}").unlink()
    run(manifest, target, "features")
    assert files_of(target) == updated


def rows_of(folder: Path) -> dict[str, str]:
    """The rows of a directory by path, as texts, in which NaN is equal to itself."""
    found = [str(row) for part in sorted(folder.glob("part-*")) for row in pq.read_table(part).to_pylist()]
    rows = {row.split(",", 1)[0]: row for row in found}
    assert len(rows) == len(found), "each path once"
    return rows


@pytest.mark.parametrize("kills", [(), (1,)])
def test_parts_without_a_change_keep_their_files(source: Path, tmp_path: Path, kills: tuple[int, ...]) -> None:
    target = tmp_path / "out"
    run(source, target, "features")
    before = {path.name: (path.stat().st_ino, path.read_bytes()) for path in target.iterdir()}
    assert run(source, target, "features", update=True) == []
    assert {path.name: (path.stat().st_ino, path.read_bytes()) for path in target.iterdir()} == before
    (source / "new.jpg").write_bytes(b"x")
    (source / "x").mkdir()
    (source / "x" / "y.jpg").write_bytes(b"xy")
    (source / "03.jpg").unlink()
    (source / "06.jpg").write_bytes(b"other than before")
    for name in ("20.jpg", "21.jpg"):  # a whole part
        (source / name).unlink()
    computed = []
    for after in kills:
        with pytest.raises(Killed) as killed:
            run(source, target, "features", update=True, die_after=after, part_rows=1)
        computed += killed.value.args[0]
        assert {path.name: (path.stat().st_ino, path.read_bytes()) for path in target.iterdir()} == before
    computed += run(source, target, "features", update=True)
    assert sorted(set(computed)) == ["06.jpg", "new.jpg", "x/y.jpg"]
    assert not (tmp_path / "out.partial").exists()
    after = {path.name: path.stat().st_ino for path in target.glob("part-*")}
    changed = {name for name, (inode, _) in before.items() if name.startswith("part-") and after.get(name) != inode}
    assert changed == {"part-00001.parquet", "part-00003.parquet", "part-00010.parquet"}
    assert verify(open_table(f"{target}/"), None, Findings()).passed
    assert run(source, target, "features") == []
    fresh = tmp_path / "fresh"
    run(source, fresh, "features")
    assert rows_of(target) == rows_of(fresh)


@pytest.mark.parametrize("dies", [False, True])
def test_parts_whose_values_of_the_manifest_stay_keep_their_files(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    manifest, target, fresh = tmp_path / "list.csv", tmp_path / "out", tmp_path / "fresh"

    def write(rows: list[tuple[int, str]]) -> None:
        manifest.write_text("\n".join(["path,note", *(f"in/{number:02}.jpg,{note}" for number, note in rows)]) + "\n")

    def content(folder: Path) -> list[str]:
        return sorted(str(row) for part in folder.glob("part-*") for row in pq.read_table(part).to_pylist())

    rows = [(number, f"note {number}") for number in range(20)]
    write([*rows, (3, "twice")])
    run(manifest, target, "features")
    before = {path.name: path.stat().st_ino for path in target.glob("part-*")}
    assert run(manifest, target, "features", update=True) == []
    assert {path.name: path.stat().st_ino for path in target.glob("part-*")} == before
    rows[4] = (4, "other")
    rows[5] = (5, "others")
    rows[9] = (9, "other")
    del rows[12]
    plant(source, {"15.jpg": 7}, 2 * 10**18)
    write([*rows, (25, "new"), (25, "new twice"), (3, "twice again"), (8, "now twice")])
    if dies:

        def die(*_: Any) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Dataset, "_rewrite", die)
            with pytest.raises(Killed):
                run(manifest, target, "features", update=True)
        assert run(manifest, target, "features", update=True) == [], "the new rows are there"
    else:
        assert sorted(run(manifest, target, "features", update=True)) == ["15.jpg", "25.jpg", "25.jpg"]
    run(manifest, fresh, "features")
    assert content(target) == content(fresh)
    assert run(manifest, target, "features") == []
    after = {path.name: path.stat().st_ino for path in target.glob("part-*")}
    kept = {name for name, inode in before.items() if after.get(name) == inode}
    assert kept == {f"part-{number:05}.parquet" for number in (0, 1, 3, 5, 8, 9)}
    assert verify(open_table(f"{target}/"), None, Findings()).passed
    if not dies:
        write(rows[:3])
        assert run(manifest, target, "features", update=True, drop_missing=True) == []
        assert sorted(path.name for path in target.glob("part-*")) == ["part-00000.parquet", "part-00001.parquet"]


def test_a_directory_that_is_interrupted_while_it_is_changed_is_an_unfinished_run(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    run(source, target, "features")
    (source / "new.jpg").write_bytes(b"x")
    (source / "06.jpg").write_bytes(b"other than before")

    def die(self: Dataset, order: Any) -> int:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "drop_stale_rows", die)
        with pytest.raises(Killed):
            run(source, target, "features", update=True)
    assert run(source, target, "features", update=True) == [], "the new rows are there"
    assert not (tmp_path / "out.partial").exists()
    fresh = tmp_path / "fresh"
    run(source, fresh, "features")
    assert rows_of(target) == rows_of(fresh)


def test_members_of_archives(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "t.csv"
    source.mkdir()

    def pack(name: str, *sizes: int) -> None:
        with tarfile.open(source / name, "w") as archive:
            for size in sizes:  # two members of one name are two images
                member = tarfile.TarInfo("same.jpg")
                member.size = size
                archive.addfile(member, BytesIO(bytes(size)))

    pack("a.tar", 1, 2)
    pack("b.tar", 0, 3)
    run(source, target, "features", archives=True)
    assert run(source, target, "features", archives=True, update=True) == []
    pack("b.tar", 0, 3, 4)
    assert len(run(source, target, "features", archives=True, update=True)) == 3
    updated = files_of(target)
    for name in updated:
        (tmp_path / f"t.csv{name}").unlink()
    run(source, target, "features", archives=True)
    assert files_of(target) == updated
    (tmp_path / "t.csv.states").unlink()
    with pytest.raises(OutputError, match="does not take over members of archives"):
        run(source, target, "features", archives=True, update=True, trust_existing=True)


@pytest.mark.parametrize("second", [None, "u.npy", "u.csv"])
def test_texts_that_csv_safe_has_changed_are_taken_over(
    second: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, target = tmp_path / "in", tmp_path / "t.csv"
    names = ["=a.jpg", "'=a.jpg", "-b.jpg", "c.jpg", "'d.jpg", "'+.jpg"]
    plant(folder, dict.fromkeys(names, 1) | {"@empty.jpg": 0}, 10**18)
    monkeypatch.chdir(folder)
    options: dict[str, Any] = {"csv_safe": True, "errors_out": str(tmp_path / "errors.csv")}
    options |= {"features_out": str(tmp_path / second)} if second else {}

    def now(**more: Any) -> tuple[int, dict[str, bytes]]:
        lines = [f"{name},=1+{number}" for number, name in enumerate([*names, "@empty.jpg"])]
        Path("list.csv").write_text("\n".join(["path,@note", *lines]) + "\n")
        stub: Any = StubRun([], "classify", with_features=second is not None, manifest="list.csv")
        output = Output("classify", parse_target(str(target)), "csv", more.pop("overwrite", False))
        computed: list[Any] = []
        save(stub, output, SaveOptions(**options, **more), on_batch=lambda batch: computed.extend(batch.refs))
        kept = [one for one in tmp_path.iterdir() if one.is_file() and not one.name.endswith(".meta.json")]
        return len(computed), {one.name: one.read_bytes() for one in kept}

    now()
    names[3:3] = ["+new.jpg"]
    names.remove("-b.jpg")
    plant(folder, {"+new.jpg": 2}, 10**18)
    computed, updated = now(update=True)
    assert computed == 1
    assert b"'=a.jpg" in updated["t.csv"]
    assert updated == now(overwrite=True)[1]


def test_excluded_images_stay_out_and_belong_to_the_run(tmp_path: Path) -> None:
    folder, target, findings = tmp_path / "in", tmp_path / "t.csv", tmp_path / "f.csv"
    folder.mkdir()
    for name in "abcdef":
        (folder / f"{name}.jpg").write_bytes(b"x")
    findings.write_text(f"path\n{folder}/b.jpg\n")
    options = {"exclude_from": str(findings)}
    with pytest.raises(Killed):
        run(folder, target, "features", die_after=2, **options)
    # A run that was begun without some images is not continued without others.
    message = r"--exclude-from \(1 image, .*, but this run has --exclude-from \(2 images, .* Use the same settings"
    findings.write_text(f"path\n{folder}/b.jpg\n{folder}/c.jpg\n")
    with pytest.raises(OutputError, match=message):
        run(folder, target, "features", **options)
    with pytest.raises(OutputError, match="but this run has no --exclude-from"):
        run(folder, target, "features")
    # The same images, whatever the table is called.
    findings.unlink()
    (tmp_path / "g.csv").write_text(f"path,why\n{folder}/b.jpg,old\n")
    options = {"exclude_from": str(tmp_path / "g.csv")}
    assert run(folder, target, "features", **options) == ["d.jpg", "e.jpg", "f.jpg"]
    (folder / "b.jpg").write_bytes(b"it has changed")
    (folder / "g.jpg").write_bytes(b"x")
    assert run(folder, target, "features", update=True, **options) == ["g.jpg"]
    fresh = tmp_path / "fresh.csv"
    run(folder, fresh, "features", **options)
    assert files_of(target) == files_of(fresh)
    with pytest.raises(OutputError, match="--overwrite"):
        run(folder, target, "features", update=True)
