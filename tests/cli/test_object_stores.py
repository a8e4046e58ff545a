"""Sources in object stores, from the command line: the rows are those of the same files on a disk."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest

from tests.archivefiles import make
from tests.cli.conftest import Invoke, save_photos
from tests.objectstore import ObjectStore, WebServer
from xcli.sources.locations import RemoteObject
from xcli.storage.object_store.state import Content

FAST = ("--weights", "none", "--image-size", "71", "--precision", "float32", "--batch-size", "4")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    save_photos(root, [f"{number:02}.jpg" for number in range(6)])
    save_photos(root / "sub", ["e.jpg", ".hidden.jpg", "f.jpg"])
    (root / "07.jpg").write_bytes(b"no image")
    (root / "empty.jpg").write_bytes(b"")
    (root / "notes.txt").write_text("not an image")
    return root


@pytest.fixture(scope="module")
def mirror(s3: ObjectStore, tree: Path) -> str:
    return s3.upload(tree, s3.prefix()).rstrip("/")


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_rows_of_a_prefix_are_those_of_the_directory(invoke: Invoke, tree: Path, mirror: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here.csv", tmp_path / "there.csv"
    local = invoke("features", tree, *FAST, "-o", here)
    remote = invoke("features", mirror, *FAST, "-o", there)
    assert (local.code, remote.code) == (4, 4), remote
    assert local.err.splitlines()[-1].split(" in ")[0] == remote.err.splitlines()[-1].split(" in ")[0]
    expected = here.read_text().replace(str(tree), mirror)
    assert there.read_text() == expected.replace("empty: the file has", "empty: the object has")
    assert len(table(expected)) == 10
    result = invoke("verify", there, mirror)
    assert result.code == 0, result
    result = invoke("verify", there, f"{mirror}/sub")
    assert result.code == 6, result


def test_a_list_of_everything(
    invoke: Invoke, tree: Path, mirror: str, s3: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{mirror}/00.jpg", str(tree / "01.jpg"), f"{mirror}/gone.jpg", f"{mirror}/sub/", "s3://nowhere/a.jpg"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(names).encode())))
    result = invoke("features", "-", *FAST, "--format", "csv")
    assert result.code == 4, result
    rows = table(result.text)
    assert [(row["path"], row["error"]) for row in rows] == [
        (f"{mirror}/00.jpg", ""),
        (str(tree / "01.jpg"), ""),
        (f"{mirror}/gone.jpg", "missing: no such object"),
        (f"{mirror}/sub/e.jpg", ""),
        (f"{mirror}/sub/f.jpg", ""),
        ("s3://nowhere/a.jpg", "missing: there is no such bucket"),
    ]


@pytest.mark.parametrize("listed", [True, False], ids=["prefix", "manifest"])
def test_a_run_goes_on_with_what_is_new_or_has_changed(
    invoke: Invoke, tree: Path, s3: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    prefix = s3.prefix()
    photos = [tree / f"{number:02}.jpg" for number in range(6)]
    keys = [f"{prefix}/{photo.name}" for photo in photos]
    for key, photo in zip(keys, photos, strict=True):
        s3.put(key, photo.read_bytes())
    s3.put(f"{prefix}/x.jpg", b"no image")
    manifest = tmp_path / "m.csv"
    manifest.write_text("path\n" + "".join(f"{s3.url(key)}\n" for key in [*keys, f"{prefix}/x.jpg"]))
    source = (s3.url(prefix),) if listed else ("--manifest", manifest)
    command = ("features", *source, *FAST[:-1], "2", "--part-rows", "2", "-o")
    target = tmp_path / "out.csv"
    result = invoke(*command, target, "--max-errors", "0")
    assert (result.code, target.exists()) == (4, False), result

    s3.put(keys[1], photos[2].read_bytes())
    fetched: list[str] = []
    fetch = RemoteObject.fetch

    def note(self: RemoteObject, max_bytes: int) -> Content:
        fetched.append(self.file)
        return fetch(self, max_bytes)

    monkeypatch.setattr(RemoteObject, "fetch", note)
    assert invoke(*command, target).code == 4
    assert fetched == [s3.url(keys[1])]
    rows = table(target.read_text())
    assert [row["path"] for row in rows] == [*map(s3.url, keys), s3.url(f"{prefix}/x.jpg")]
    assert rows[1] == {**rows[2], "path": rows[1]["path"]}
    assert rows[0]["f0"] != rows[1]["f0"] != ""


def test_archives_and_web_servers(
    invoke: Invoke, tree: Path, s3: ObjectStore, web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = [tree / f"{number:02}.jpg" for number in range(4)]
    expected = invoke("features", *photos, *FAST, "--format", "csv").text.splitlines()
    tar = make("tar", [(photo.name, photo.read_bytes()) for photo in photos[:2]])
    url = s3.put(f"{s3.prefix()}/x.tar", Path(tar).read_bytes())
    web.files = {f"/{photo.name}": photo.read_bytes() for photo in photos[2:]}
    sources = [url, *(f"{web.address}/{photo.name}" for photo in photos[2:])]
    result = invoke("features", *sources, *FAST, "--format", "csv")
    rows = [line.replace(f"{url}::", f"{tree}/").replace(web.address, str(tree)) for line in result.text.splitlines()]
    assert rows == expected, result


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("classify", "s3://nowhere/photos/"), "cannot list 's3://nowhere/photos/': there is no such bucket"),
        (("classify", "https://host/photos/"), "web servers have no listing"),
        (("classify", "--manifest", "s3://nowhere/m.csv"), "cannot open the manifest 's3://nowhere/m.csv'"),
        (("evaluate", "s3://nowhere/photos/", "--model", "m"), "class folders are read on this machine only"),
    ],
    ids=["bucket", "web", "manifest", "class folders"],
)
def test_what_cannot_be_listed_is_exit_2(
    invoke: Invoke, s3: ObjectStore, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], text: str
) -> None:
    # Before the model: it would take long, and here it could not be had at all.
    result = invoke(*arguments, "--offline", "--weights-dir", "/nowhere")
    assert (result.code, text in result.err) == (2, True), result


def test_info_looks_at_objects(invoke: Invoke, mirror: str) -> None:
    result = invoke("info", mirror, "--json")
    found = json.loads(result.text)["sources"]
    assert (found["listed"], found["formats"], found["failed"]) == (10, {"JPEG": 8}, 2)
