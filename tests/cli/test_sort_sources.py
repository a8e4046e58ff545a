"""`xception sort` of what is not a file by itself: objects of stores, files of web servers, members of archives."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from tests.analysis.test_sort import content, write_table
from tests.archivefiles import make
from tests.cli.conftest import Invoke
from tests.objectstore import ObjectStore, WebServer
from xcli.core.text import unescape_path

NAMES = ("a.jpg", "sub/a.jpg", "sub/deeper/a.jpg", "with space & é.jpg", "new\nline.jpg", "back\\slash.jpg", "100%.jpg")
"""Of which three have the same last part, and some are none that a shell likes."""

LEAVES = ("a.jpg", "with space & é.jpg", "new\nline.jpg", "back\\slash.jpg", "100%.jpg")


def check_copies(invoke: Invoke, tmp_path: Path, sources: dict[str, bytes]) -> dict[str, bytes]:
    """Sorts files, twice, and takes that back; returns what the destination holds, without the log.

    All of them are of one class, so names that are equal collide.
    """
    table, out = write_table(tmp_path / "t.csv", [(source, 0, 0.9) for source in sources]), tmp_path / "out"
    dry = invoke("sort", table, out, "--dry-run")
    assert (dry.code, out.exists()) == (0, False), dry
    result = invoke("sort", table, out)
    assert (result.code, f"{len(sources)} files in their places" in result.err) == (0, True), result
    found = content(out)
    log = next(name for name in found if name.startswith("_sort-"))
    rows = csv.DictReader(io.StringIO(dry.text, newline=""))
    assert sorted(unescape_path(row["to"]) for row in rows) == sorted({*found} - {log})
    again = invoke("sort", table, out)
    assert (again.code, content(out)) == (0, found), again
    del found[log]
    assert sorted(found.values()) == sorted(sources.values())
    assert {Path(name).parent.name for name in found} == {"cat"}
    result = invoke("sort", "--undo", out / log)
    assert (result.code, out.exists()) == (0, False), result
    return found


def check_names(found: dict[str, bytes], *missing: str) -> None:
    """Files keep their names; the first of equal ones keeps it, the others have a digest of their path."""
    leaves, expected = {Path(name).name for name in found}, {*LEAVES} - {*missing}
    assert leaves > expected
    assert len(leaves) == len(expected) + 2
    assert all(name.startswith("a~") and len(name) == len("a~12345678.jpg") for name in leaves - expected)


def test_objects_of_a_store(invoke: Invoke, s3: ObjectStore, tmp_path: Path) -> None:
    prefix, sources = s3.prefix(), {}
    for name in NAMES:
        if "\n" not in name:  # which the server of the tests does not take
            data = f"content of {name}".encode() * 999
            sources[s3.put(f"{prefix}/{name}", data)] = data
    found = check_copies(invoke, tmp_path, sources)
    check_names(found, "new\nline.jpg")
    assert found["cat/a.jpg"] == sources[s3.url(f"{prefix}/a.jpg")]


def test_objects_that_are_gone(invoke: Invoke, s3: ObjectStore, tmp_path: Path) -> None:
    prefix = s3.prefix()
    there, gone = s3.put(f"{prefix}/a.jpg", b"there"), s3.url(f"{prefix}/b.jpg")
    table, out = write_table(tmp_path / "t.csv", [(gone, 0, 0.9), (there, 0, 0.9)]), tmp_path / "out"
    result = invoke("sort", table, out)
    assert (result.code, f"{gone}: missing: no such object" in result.err) == (4, True), result
    assert (out / "cat" / "a.jpg").read_bytes() == b"there"
    s3.put(f"{prefix}/b.jpg", b"late")
    assert invoke("sort", table, out).code == 0
    assert (out / "cat" / "b.jpg").read_bytes() == b"late"
    # A copy whose object has changed, or is gone, may be the only one.
    s3.put(f"{prefix}/a.jpg", b"other")
    s3.delete(f"{prefix}/b.jpg")
    result = invoke("sort", "--undo", next(out.glob("_sort-*.jsonl")))
    assert result.code == 4, result
    assert [name for name in content(out) if "/" in name] == ["cat/a.jpg", "cat/b.jpg"]


def test_files_of_a_web_server(invoke: Invoke, web: WebServer, tmp_path: Path) -> None:
    web.files = {"/x/a.jpg": b"one", "/y/a.jpg": b"two", "/b.jpg": b"three"}
    found = check_copies(invoke, tmp_path, {f"{web.address}{name}": data for name, data in web.files.items()})
    assert {"cat/a.jpg", "cat/b.jpg"} < {*found}


@pytest.mark.parametrize("kind", ["tar", "tgz", "tar.zst", "zip"])
def test_members_of_archives(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    members = [(name, f"content of {name}".encode() * 999) for name in NAMES]
    archive = tmp_path / make(kind, members)
    found = check_copies(invoke, tmp_path, {f"{archive}::{name}": data for name, data in members})
    check_names(found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_members_that_would_leave(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["../../up.jpg", "/root.jpg", "x/../../..", "..", "CON.jpg", "-rf.jpg"]
    archive = tmp_path / make(kind, [(name, name.encode()) for name in names])
    table, out = write_table(tmp_path / "t.csv", [(f"{archive}::{name}", 0, 0.9) for name in names]), tmp_path / "out"
    before = {*content(tmp_path.parent)}
    result = invoke("sort", table, out)
    assert result.code in (0, 4), result
    placed = [name for name in content(out) if "/" in name]
    assert len(placed) + result.err.count("missing:") == len(names)
    assert {Path(name).parent.name for name in placed} == {"cat"}
    assert all(f"/{out.name}/" in name for name in {*content(tmp_path.parent)} - before)


def test_archives_in_a_store(invoke: Invoke, s3: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    members = [(name, name.encode()) for name in ("a.jpg", "b/a.jpg")]
    url = s3.put(f"{s3.prefix()}/x.tar", Path(make("tar", members)).read_bytes())
    found = check_copies(invoke, tmp_path, {f"{url}::{name}": data for name, data in members})
    assert "cat/a.jpg" in found
