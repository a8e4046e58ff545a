"""The state of the image of each row, as every run records it."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from tests.stubrun import StubRun
from tests.writtentables import make_files
from xcli.checks.findings import Findings
from xcli.checks.merge import Shards, merge
from xcli.checks.verify import verify
from xcli.core.errors import CheckError
from xcli.outputs.options import Output, SaveOptions
from xcli.outputs.resume import plain_key
from xcli.outputs.save import save
from xcli.outputs.target import parse_target
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.tables.formats import open_table
from xcli.tables.states import read_states, states_name

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = make_files(tmp_path / "in", [b"empty.jpg"])
    for n in range(7):
        (folder / f"{n}.jpg").write_bytes(bytes(n + 1))
    return folder


def written(photos: Path, target: str, command: str = "features", **options: Any) -> dict[str, Any]:
    """Runs into a file or a directory; returns its `.meta.json`."""
    run: Any = StubRun(
        [str(photos)], command, with_features="features_out" in options, shard=options.pop("shard", None)
    )
    form = os.path.splitext(target)[1][1:] or "parquet"
    save(run, Output(command, parse_target(target), form), SaveOptions(part_rows=3, **options))
    meta: dict[str, Any] = open_table(target).meta or {}
    return meta


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.npy", "out/"])
def test_every_run_records_the_state_of_each_row(photos: Path, tmp_path: Path, name: str) -> None:
    target = f"{tmp_path}/{name}"
    meta = written(photos, target)
    path = states_name(target.rstrip("/"), parts=name == "out/")
    found = pq.read_table(path).to_pydict()
    paths = [path for batch in open_table(target).batches(["path"]) for path in batch.column(0).to_pylist()]
    stats = [os.stat(one) for one in paths]
    assert found["key"] == [plain_key(one) for one in paths]
    assert (found["size"], found["mtime"]) == ([s.st_size for s in stats], [s.st_mtime_ns for s in stats])
    assert found["reason"] == [*7 * [None], "empty"]
    assert (found["carried"], found["position"]) == (8 * [None], 8 * [None])
    states = read_states(path, meta)
    assert states is not None
    assert states.rows.to_pydict() == found
    assert states.fingerprint is not None
    assert states.fingerprint["sources"]["sources"] == [str(photos)]
    with open(path, "ab") as file:
        file.write(b"x")
    with pytest.raises(CheckError, match="is damaged, or that of another table"):
        read_states(path, meta)
    os.unlink(path)
    with pytest.raises(CheckError, match="is missing"):
        read_states(path, meta)
    assert read_states(path, {}) is None


def test_both_tables_of_one_pass_have_their_states(photos: Path, tmp_path: Path) -> None:
    written(photos, f"{tmp_path}/a.csv", "classify", features_out=f"{tmp_path}/b.npy")
    assert (tmp_path / "a.csv.states").read_bytes() == (tmp_path / "b.npy.states").read_bytes()
    assert json.loads((tmp_path / "b.npy.meta.json").read_text())["states"].startswith("8 ")


def test_a_row_takes_less_than_40_bytes(photos: Path, tmp_path: Path) -> None:
    for n in range(2000):
        path = photos / f"x{n}.jpg"
        path.write_bytes(bytes(n * 7919 % 4001 + 1))
        os.utime(path, ns=(0, 1_700_000_000_000_000_000 + n * 987_654_321_987 % 10**16))
    written(photos, f"{tmp_path}/t.csv")
    assert os.path.getsize(tmp_path / "t.csv.states") < 40 * 2008


def shards_of(photos: Path, folder: Path) -> list[str]:
    names = [f"{folder}/shard-{k}.csv" for k in (2, 1)]
    for k, name in zip((2, 1), names, strict=True):
        written(photos, name, shard=(k, 2))
    return names


@pytest.mark.parametrize("unaided", [False, True])
def test_a_merge_carries_the_states_on(photos: Path, tmp_path: Path, unaided: bool) -> None:
    """The states of the shards become those of one run, and with them its fingerprint."""
    names = shards_of(photos, tmp_path)
    whole = written(photos, f"{tmp_path}/whole.csv")
    shards = Shards(names)
    sources = SourceOptions(sources=(str(photos),))
    with nullcontext() if unaided else list_images(sources) as listing:
        merge(shards, listing, "csv", f"{tmp_path}/merged.csv", overwrite=False, findings=Findings())
    assert (tmp_path / "merged.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert (tmp_path / "merged.csv.states").read_bytes() == (tmp_path / "whole.csv.states").read_bytes()
    merged = open_table(f"{tmp_path}/merged.csv")
    assert merged.meta is not None
    assert (merged.meta["fingerprint"], merged.meta["states"]) == (whole["fingerprint"], whole["states"])
    findings = Findings()
    assert verify(merged, None, findings).passed
    content = (tmp_path / "merged.csv").read_text().replace("2.jpg", "x.jpg", 1)
    (tmp_path / "merged.csv").write_text(content)
    findings = Findings()
    assert [one.check for one in verify(open_table(merged.name), None, findings).findings] == ["states"]


def test_shards_of_other_listings_are_not_merged_without_sources(photos: Path, tmp_path: Path) -> None:
    def join(names: list[str]) -> None:
        merge(Shards(names), None, "csv", f"{tmp_path}/merged.csv", overwrite=False, findings=Findings())

    first, second = shards_of(photos, tmp_path)
    # The same number of images, and a shard that has not seen the new one.
    (photos / "6.jpg").rename(photos / "9.jpg")
    os.rename(second, f"{tmp_path}/old.csv")
    for suffix in (".meta.json", ".states"):
        os.rename(second + suffix, f"{tmp_path}/old.csv{suffix}")
    written(photos, second, shard=(1, 2))
    with pytest.raises(CheckError, match=r"were made when the sources had other images: .*--update.*--source"):
        join([first, second])
    with pytest.raises(CheckError, match="are not the shards of one run, each once"):
        join([second, f"{tmp_path}/old.csv"])
    old = tmp_path / "old.csv"
    old.write_text(old.read_text().replace(".jpg", ".jpx", 1))
    with pytest.raises(CheckError, match="paths have changed since they were written"):
        join([first, f"{tmp_path}/old.csv"])
