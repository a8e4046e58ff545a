"""Images that are left out of a listing because a table names them."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.archivefiles import tar_bytes
from tests.colournet import save_folders
from xcli.analysis.audit_findings import Finding, findings_batch, findings_schema
from xcli.core.errors import SourceError, UsageError
from xcli.core.finding_kinds import parse_kinds
from xcli.sources.excluded import EXCLUDED
from xcli.sources.exclusions import read_exclusions
from xcli.sources.labelled import leave_out, read_labelled
from xcli.sources.listing import Listing, list_images
from xcli.sources.options import SourceOptions
from xcli.sources.selection import OTHER_SHARD, shard_of
from xcli.tables.formats import create_table

FINDINGS = [
    Finding("a.png", "x", "tiny", 0.5, "30x20 pixels"),
    Finding("b\\\\c.png", "x", "wrong-label", 0.2, "=1", "y", "a.png"),
    Finding(None, "z", "small-class", 0.9, "2 images"),
    Finding("d\n.png", None, "wrong-label", 0.9, "text"),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with `in/`, in which there are images of all kinds of names."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "in"
    folder.mkdir()
    for name in (b"a.jpg", b"b.jpg", b"c\\d.jpg", b"e\xff.jpg", b"f.jpg"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).touch()
    return tmp_path


def listed(names: str, *sources: str, **options: object) -> tuple[list[str], Listing]:
    """Lists without what a CSV file with the column path names."""
    Path("f.csv").write_text("path\n" + names)
    chosen = SourceOptions(sources or ("in",), exclude_from="f.csv", **options)  # type: ignore[arg-type]
    listing = list_images(chosen)
    return [ref.path for ref in listing], listing


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_images_of_findings_are_read_by_kind(tmp_path: Path, form: str) -> None:
    target = str(tmp_path / f"f.{form}")
    with create_table(form, target, findings_schema(), {}, False) as table:
        table.write(findings_batch(FINDINGS))
    assert read_exclusions(target).paths == {"a.png", "b\\\\c.png", "d\n.png"}
    assert read_exclusions(target, ("tiny", "small-class")).paths == {"a.png"}
    assert read_exclusions(target, ("blank",)).paths == set()


def test_of_copies_those_are_kept_that_are_to_be_kept(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("group,path,similarity,keep\n1,a.jpg,1,true\n1,b.jpg,0.9,false\n2,c.jpg,1,False\n")
    assert read_exclusions(str(tmp_path / "c.csv")).paths == {"b.jpg", "c.jpg"}
    pq.write_table(pa.table({"path": ["a.jpg", "b.jpg"], "keep": [True, False]}), tmp_path / "c.parquet")
    assert read_exclusions(str(tmp_path / "c.parquet")).paths == {"b.jpg"}
    (tmp_path / "c.csv").write_text("path,keep\na.jpg,maybe\n")
    with pytest.raises(SourceError, match="holds 'maybe', neither true nor false"):
        read_exclusions(str(tmp_path / "c.csv"))


def test_any_table_will_do(tmp_path: Path) -> None:
    """Also one of `classify` or `features`, whose other columns are not read."""
    columns = {"path": ["a.jpg"], "status": ["ok"], "error": [None], "features": [[1.0, 2.0]]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert read_exclusions(str(tmp_path / "t.parquet")).paths == {"a.jpg"}
    (tmp_path / "t.csv").write_text("path;status;error\na.jpg;ok;\n")
    assert read_exclusions(str(tmp_path / "t.csv")).paths == {"a.jpg"}
    (tmp_path / "t.jsonl").write_text('{"path": "a.jpg", "predictions": []}\n\n{"other": 1}\n{"path": "b\u00e9"}')
    assert read_exclusions(str(tmp_path / "t.jsonl")).paths == {"a.jpg", "b\u00e9"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,issue\na.png,strange\n", "holds 'strange', no finding"),
        ("name\na.png\n", "the table .* has no column 'path'$"),
        ("path\na.png,b,c\n", "line 2 of the table .* has 3 fields"),
        ('{"path": "a.png"}\n{"path": 3}\n', "row 2 of the table .* has a path that is no text"),
        ('{"path": "a.png"}\n{"path": "b.p', "cannot read the table .* beyond row 1: line 2: "),
        ('{"path": "a.png"}\n[1]\n', "beyond row 1: line 2: it is no object"),
        ('{"path": "\\ud800"}\n', "begins like JSON lines but cannot be read: line 1: "),
        ("{" * 100_000, "begins like JSON lines but cannot be read: line 1: "),
        ('{"path": "a.png", "issue": "strange"}\n', "holds 'strange', no finding"),
        ('{"name": "a.png"}\n', "has no column 'path'"),
        (b"PAR1 and nothing else", "the table .* begins like Parquet but cannot be read"),
        (b"\x89PNG\r\n\x1a\n\0\0", "binary data"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    (tmp_path / "f").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SourceError, match=message):
        read_exclusions(str(tmp_path / "f"))


def test_kinds_are_those_of_findings(tmp_path: Path) -> None:
    assert parse_kinds("tiny, blank") == ("tiny", "blank")
    with pytest.raises(UsageError, match="'tine' is no kind"):
        parse_kinds("tiny,tine")
    with pytest.raises(UsageError, match="'tine' is no kind"):
        SourceOptions(exclude_from="f.csv", exclude_kinds=("tine",))
    with pytest.raises(UsageError, match="--exclude-kinds is for --exclude-from"):
        SourceOptions(exclude_kinds=("tiny",))
    (tmp_path / "f.csv").write_text("path\na.png\n")
    with pytest.raises(SourceError, match="no column 'issue', so kinds of findings cannot be chosen"):
        read_exclusions(str(tmp_path / "f.csv"), ("tiny",))


def test_a_listing_is_without_them_and_counts_them(here: Path) -> None:
    paths, listing = listed("in/b.jpg\nin/c\\\\d.jpg\nin/e\\xff.jpg\n")
    assert paths == ["in/a.jpg", "in/f.jpg"]
    assert listing.skipped[EXCLUDED] == 3
    assert (listing.listed, listing.total) == (2, 2)


def test_limit_counts_what_is_left_and_shards_are_those_of_the_whole(here: Path) -> None:
    assert listed("in/a.jpg\n", limit=2)[0] == ["in/b.jpg", "in/c\\\\d.jpg"]
    everything = [ref.path for ref in list_images(SourceOptions(("in",)))]
    found = []
    for shard in (1, 2):
        paths, listing = listed("in/a.jpg\n", shard=(shard, 2))
        keys = {ref.path: ref.key for ref in list_images(SourceOptions(("in",)))}
        assert all(shard_of(keys[path], 2) == shard for path in paths)
        assert listing.skipped[EXCLUDED] == 1
        assert listing.skipped[OTHER_SHARD] == 4 - len(paths)
        assert listing.whole is not None
        assert listing.whole.images == 4
        found += paths
    assert sorted(found) == [one for one in everything if one != "in/a.jpg"]


def test_members_of_archives_and_rows_of_manifests_too(here: Path) -> None:
    (here / "x.tar").write_bytes(tar_bytes([("1.jpg", b"1"), ("2.jpg", b"2")]))
    assert listed("x.tar::2.jpg\n", "x.tar")[0] == ["x.tar::1.jpg"]
    Path("m.csv").write_text("path,id\nin/a.jpg,1\nin/b.jpg,2\n")
    Path("f.csv").write_text("path\nin/a.jpg\n")
    listing = list_images(SourceOptions(manifest="m.csv", exclude_from="f.csv"))
    assert [(ref.path, ref.extra) for ref in listing] == [("in/b.jpg", ("2",))]


def test_a_table_that_names_none_of_the_images_is_a_warning(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    listed("/elsewhere/a.jpg\n")
    assert "none of the 1 images that f.csv names is among the data" in caplog.text
    assert "it has '/elsewhere/a.jpg', the data have 'in/a.jpg'" in caplog.text
    caplog.clear()
    listed("in/f.jpg\n")
    listed("in/f.jpg\n", limit=1)  # where it is not known
    listed("")
    assert "is among the data" not in caplog.text


def test_the_fingerprint_has_the_images_not_the_name_of_the_table(here: Path) -> None:
    _, listing = listed("in/a.jpg\nin/b.jpg\n")
    _, same = listed("in/b.jpg\nin/a.jpg\nin/a.jpg\n")
    _, other = listed("in/b.jpg\n")
    found = listing.options.as_dict()
    assert found == same.options.as_dict()
    assert found["exclude_from"].startswith("2 images, ")
    assert found.keys() - {"exclude_from"} == SourceOptions(("in",)).as_dict().keys()
    assert found != other.options.as_dict()


def test_labelled_images_are_left_out(tmp_path: Path) -> None:
    data = read_labelled(str(save_folders(tmp_path / "data", 2)))
    first, findings = data.samples[0].ref.path, tmp_path / "f.csv"
    findings.write_text(f"path\n{first}\nelsewhere.png\n")
    found = leave_out(data, read_exclusions(str(findings)), trains=True)
    assert [one.ref.path for one in found.samples] == [one.ref.path for one in data.samples[1:]]
    assert found.skipped[EXCLUDED] == 1
    findings.write_text("path\nelsewhere.png\n")
    with pytest.raises(SourceError, match="paths have to be the same"):
        leave_out(data, read_exclusions(str(findings)), trains=False)
    findings.write_text("path\n" + "\n".join(one.ref.path for one in data.samples if one.label == "red"))
    with pytest.raises(SourceError, match="leaves no image of the class 'red'"):
        leave_out(data, read_exclusions(str(findings)), trains=True)
    left = leave_out(data, read_exclusions(str(findings)), trains=False)
    assert {one.label for one in left.samples} == set(data.labels) - {"red"}
