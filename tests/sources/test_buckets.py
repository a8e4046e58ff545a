"""Prefixes and globs of an object store: what a directory with the same files gives, from a server on loopback."""

from __future__ import annotations

import io
import lzma
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.archivefiles import tar_bytes
from tests.objectstore import ObjectStore, WebServer, forget
from xcli.core.errors import ImageError, SourceError, SourceNotFoundError, UsageError
from xcli.core.records import ImageRef
from xcli.images.formats import MAX_FILE_BYTES
from xcli.sources.listing import list_images
from xcli.sources.locations import RemoteObject
from xcli.sources.options import SourceOptions
from xcli.sources.selection import shard_of
from xcli.storage import urls as cloud
from xcli.storage.local import LocalFile
from xcli.storage.object_store import errors, open_store
from xcli.storage.object_store import s3 as s3_store

NAMES = (
    "a.jpg b.JPG notes.txt .hidden.jpg sub/e.jpg sub/deep/f.png sub/deep/g.gif sub/.secret/1.jpg sub/.secret/2.jpg "
    "thumbs/1.jpg thumbs/2.jpg x/y/z/1.jpeg x/y/z/raw.img ümläut.jpg"
).split()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


@pytest.fixture(scope="module")
def mirror(s3: ObjectStore, tree: Path) -> str:
    """The same files in the bucket: their prefix, without a slash at the end."""
    return s3.upload(tree, s3.prefix()).rstrip("/")


def list_all(*sources: str, stdin: bytes = b"", **options: Any) -> tuple[list[ImageRef], dict[str, int]]:
    listing = list_images(SourceOptions(sources, missing_ok=bool(sources), **options), stdin=io.BytesIO(stdin))
    return list(listing), dict(listing.skipped)


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"include": ("*.jpg",)},
        {"include": ("sub/**", "*.img")},
        {"exclude": ("thumbs/", "*.png")},
        {"exclude": ("sub/deep",), "include": ("*.jp*g", "*.gif")},
        {"shard": (1, 3)},
        {"shard": (2, 3)},
        {"limit": 3},
    ],
    ids=str,
)
def test_a_prefix_is_listed_like_a_directory(
    tree: Path, mirror: str, options: dict[str, Any], slash: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_store, "PAGE", 3)
    there, skipped_there = list_all(mirror + slash, **options)
    here, skipped_here = list_all(f"{tree}{slash}", **options)
    assert here
    assert [ref.path for ref in there] == [ref.path.replace(str(tree), mirror) for ref in here]
    assert [ref.key for ref in there] == [ref.key for ref in here]
    assert skipped_there == skipped_here
    assert all(isinstance(ref.location, RemoteObject) and ref.location.listed_state is not None for ref in there)
    assert there[-1].location.read(1000).decode() == there[-1].path.removeprefix(mirror + "/")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "pattern",
    ["*.jpg", "**/*.jpg", "sub/**", "*/deep/*", "**/[12].*", "thumbs*/", "s*", "?/*/z", "**", "x/*/z/raw.img"],
)
def test_a_glob_matches_what_it_matches_on_a_disk(tree: Path, mirror: str, pattern: str) -> None:
    there, skipped_there = list_all(f"{mirror}/{pattern}")
    here, skipped_here = list_all(f"{tree}/{pattern}")
    assert here
    assert [ref.path for ref in there] == [ref.path.replace(str(tree), mirror) for ref in here]
    assert skipped_there == skipped_here
    assert [ref.key.decode() for ref in there] == [ref.path for ref in there]


def test_a_glob_without_a_match_is_refused_at_once(mirror: str) -> None:
    with pytest.raises(SourceError, match=r"'.*/\*.tiff' \(as a pattern it matches no object\)"):
        list_images(SourceOptions((f"{mirror}/*.tiff",)))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("s3://no-such-bucket/photos/", "cannot list 's3://no-such-bucket/photos/': there is no such bucket"),
        ("s3://no-such-bucket/photos", "there is no such bucket"),
        ("s3://no-such-bucket/*.jpg", "there is no such bucket"),
        ("s3://b*/a.jpg", "the bucket of 's3://b[*]/a.jpg' is a pattern"),
        ("s3://B@D/photos/", "no bucket or object can have this name"),
        ("s3://b/*/../a.jpg", "has '..' after a wildcard"),
        ("https://host/photos/", "web servers have no listing"),
    ],
)
def test_what_cannot_be_listed_is_refused_at_once(s3: ObjectStore, source: str, text: str) -> None:
    with pytest.raises(SourceError, match=text):
        list_images(SourceOptions((source,)))


def test_a_server_that_is_not_there_is_refused_at_once(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(errors, "_FIRST_WAIT", 0.01)
    forget()
    try:
        with pytest.raises(
            SourceError, match=r"cannot list 's3://b/p/': the server cannot be reached .*127\.0\.0\.1:9"
        ):
            list_images(SourceOptions(("s3://b/p/",)))
    finally:
        forget()


def test_without_credentials_a_prefix_is_refused_at_once(
    s3: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    forget()
    try:
        with pytest.raises(SourceError, match="no usable credentials: set AWS_ACCESS_KEY_ID"):
            list_images(SourceOptions(("s3://b/p/",)))
    finally:
        forget()


def test_a_listing_that_breaks_off_is_a_row(s3: ObjectStore, mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_store, "PAGE", 4)
    asked = s3_store.S3Store._page

    def fail(self: Any, prefix: str, **options: Any) -> dict[str, Any]:
        if options:
            raise PermissionError("Access Denied")
        return asked(self, prefix, **options)

    monkeypatch.setattr(s3_store.S3Store, "_page", fail)
    refs, _ = list_all(mirror + "/")
    assert [ref.error is None for ref in refs] == [True, True, False]
    assert refs[-1].path == mirror + "/"
    assert "unreadable: cannot list all of it: access is denied (Access Denied)" in str(refs[-1].error)


def test_only_as_many_pages_are_asked_for_as_are_wanted(mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_store, "PAGE", 2)
    pages = []
    asked = s3_store.S3Store._page
    monkeypatch.setattr(s3_store.S3Store, "_page", lambda *given, **more: pages.append(given) or asked(*given, **more))
    with list_images(SourceOptions((mirror + "/",))) as listing:
        assert len(pages) == 1
        refs = iter(listing)
        next(refs)
        assert len(pages) == 1
        assert len(list(refs)) == 8
    assert len(pages) == len(NAMES) / 2


def test_an_object_is_taken_whatever_its_name(s3: ObjectStore) -> None:
    prefix = s3.prefix()
    for name in ("raw", "raw.img", "a[1].jpg", "what?.jpg", "raw-2/x.jpg", "with space.jpg"):
        s3.put(f"{prefix}/{name}", name.encode())
        refs, skipped = list_all(s3.url(f"{prefix}/{name}"), exclude=("raw*",))
        assert [(ref.path, ref.key) for ref in refs] == [(s3.url(f"{prefix}/{name}"),) * 1 + (refs[0].path.encode(),)]
        assert refs[0].location.read(100) == name.encode()  # type: ignore[union-attr]
        assert not skipped


def test_a_prefix_named_without_its_slash_is_no_longer_name(s3: ObjectStore) -> None:
    prefix = s3.prefix()
    for name in ("cats-2/x.jpg", "cats.jpg", "cats/1.jpg", "catsup/2.jpg"):
        s3.put(f"{prefix}/{name}", b"x")
    refs, _ = list_all(s3.url(f"{prefix}/cats"))
    assert [ref.path for ref in refs] == [s3.url(f"{prefix}/cats/1.jpg")]


def test_a_whole_bucket_comes_in_the_order_of_its_keys(s3: ObjectStore) -> None:
    s3.client.create_bucket(Bucket="whole")
    keys = ["a-b/1.jpg", "a.jpg", "a/1.jpg", "a//2.jpg", "ab/1.jpg", "é.jpg"]
    for key in (*keys, "a/", "empty/"):
        s3.client.put_object(Bucket="whole", Key=key, Body=b"" if key.endswith("/") else b"x")
    for source in ("s3://whole", "s3://whole/"):
        refs, skipped = list_all(source)
        assert [ref.key.decode() for ref in refs] == sorted(keys, key=str.encode)
        assert [ref.path for ref in refs] == [f"s3://whole/{key}" for key in sorted(keys, key=str.encode)]
        assert not skipped
    s3.client.create_bucket(Bucket="nothing")
    assert list_all("s3://nothing/") == ([], {})
    assert list_all("s3://whole/empty/") == ([], {})


def test_what_is_not_there_is_refused_or_a_row(s3: ObjectStore, mirror: str, web: WebServer) -> None:
    web.files = {"/a.jpg": b"a"}
    gone = {
        s3.url("nothing"): "no such object, and none below it",
        s3.url("nothing/"): "no such object, and none below it",
        s3.url("nothing.jpg"): "no such object",
        s3.url("nothing.tar"): "no such object",
        "s3://nowhere/a.jpg": "no such object",
        f"{web.address}/b.jpg": "no such object",
    }
    listed = ", ".join(f"'{url}' ({reason})" for url, reason in gone.items())
    with pytest.raises(SourceNotFoundError, match=re.escape(f"6 sources do not exist: {listed}; --missing-ok makes")):
        list_images(SourceOptions((f"{mirror}/a.jpg", f"{web.address}/a.jpg", *gone)))
    for name in ("nothing", "nothing/"):
        refs, _ = list_all(s3.url(name))
        assert [str(ref.error) for ref in refs] == ["missing: no such object, and none below it"]
        assert refs[0].path == s3.url(name)


def test_what_goes_between_listing_and_reading_is_a_row(s3: ObjectStore) -> None:
    key = f"{s3.prefix()}/a.jpg"
    (ref,) = list_all(s3.put(key, b"x"))[0]
    (listed,) = list_all(s3.url(key.rpartition("/")[0]))[0]
    s3.delete(key)
    for location in (ref.location, listed.location, RemoteObject(ref.path)):
        with pytest.raises(ImageError, match="missing: no such object"):
            location.read(MAX_FILE_BYTES)


def test_a_backslash_in_a_key_is_escaped(s3: ObjectStore) -> None:
    prefix = s3.prefix()
    s3.put(f"{prefix}/back\\slash.jpg", b"here")
    ref = list_all(s3.url(prefix))[0][0]
    assert ref.path == s3.url(f"{prefix}/back\\\\slash.jpg")
    assert ref.location.read(10) == b"here"  # type: ignore[union-attr]


def test_urls_on_standard_input(s3: ObjectStore, mirror: str, tmp_path: Path) -> None:
    (tmp_path / "local.jpg").write_bytes(b"x")
    entries = [
        f"{mirror}/a.jpg",
        str(tmp_path / "local.jpg"),
        f"{mirror}/sub",
        f"{mirror}/thumbs/",
        f"{mirror}/x/y/z/raw.img",
        f"{mirror}/*.jpg",
        "s3://no-such-bucket/x/",
        "s3://",
        "https://host/dir/",
    ]
    refs, skipped = list_all("-", stdin="\n".join(entries).encode(), exclude=("deep/",))
    assert [(ref.path, str(ref.error or "")) for ref in refs] == [
        (f"{mirror}/a.jpg", ""),
        (str(tmp_path / "local.jpg"), ""),
        (f"{mirror}/sub/e.jpg", ""),
        (f"{mirror}/thumbs/1.jpg", ""),
        (f"{mirror}/thumbs/2.jpg", ""),
        (f"{mirror}/x/y/z/raw.img", ""),
        (f"{mirror}/*.jpg", ""),  # an entry of a list is no pattern
        ("s3://no-such-bucket/x/", "missing: cannot list all of it: there is no such bucket"),
        ("s3://", "missing: the URL names nothing but a kind of store"),
        (
            "https://host/dir/",
            "unreadable: 'https://host/dir/' ends in a slash, but web servers have no listing; name the files one by "
            "one, on standard input ('-') or with --manifest",
        ),
    ]
    assert skipped == {"hidden": 1, "excluded": 1}


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_manifest_mixes_paths_and_urls_and_may_be_one(
    s3: ObjectStore, mirror: str, tmp_path: Path, form: str
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "local.jpg").write_bytes(b"x")
    paths = [f"{mirror}/a.jpg", str(tmp_path / "local.jpg"), f"{mirror}/gone.jpg", f"{mirror}/sub/deep/f.png", "s3://"]
    manifest = tmp_path / f"m.{form}"
    if form == "csv":
        manifest.write_text("label,path\n" + "".join(f"{number},{path}\n" for number, path in enumerate(paths)))
    else:
        pq.write_table(pa.table({"label": [str(number) for number in range(5)], "path": paths}), manifest)
    url = s3.put(f"{s3.prefix()}/m.{form}", manifest.read_bytes())
    for name in (str(manifest), url):
        refs, skipped = list_all(manifest=name, exclude=("*.png",))
        assert [ref.path for ref in refs] == [*paths[:3], paths[4]]
        assert [ref.extra for ref in refs] == [("0",), ("1",), ("2",), ("4",)]
        assert [type(ref.location) for ref in refs] == [RemoteObject, LocalFile, RemoteObject, LocalFile]
        assert [ref.error is None for ref in refs] == [True, True, True, False]
        assert refs[0].location == RemoteObject(f"{mirror}/a.jpg")
        assert refs[0].key == refs[0].path.encode()
        assert skipped == {"excluded": 1}


def test_a_manifest_that_is_not_there_is_refused(s3: ObjectStore) -> None:
    with pytest.raises(SourceError, match=r"cannot open the manifest 's3://.*/m\.csv': no such object; give"):
        list_images(SourceOptions(manifest=s3.url("m.csv")))


def test_objects_of_a_web_server_are_named_one_by_one(web: WebServer) -> None:
    web.files = {"/a.jpg": b"a", "/b?size=[1]*": b"b"}
    refs, _ = list_all(f"{web.address}/a.jpg", f"{web.address}/b?size=[1]*")
    assert not web.seen
    assert [ref.path for ref in refs] == [f"{web.address}/a.jpg", f"{web.address}/b?size=[1]*"]
    assert refs[0].location.read(10) == b"a"  # type: ignore[union-attr]


def test_another_store_is_listed_directory_by_directory(tree: Path) -> None:
    """Through the calls that all of fsspec's file systems have; its own in memory stands for them."""
    from xcli.storage.urls import SCHEMES

    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for name in NAMES:
        memory.pipe(f"/bucket/tree/{name}", name.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cloud, "SCHEMES", (*SCHEMES, "memory"))
        there, skipped_there = list_all("memory://bucket/tree/", exclude=("thumbs",))
        here, skipped_here = list_all(f"{tree}/", exclude=("thumbs",))
        assert [ref.key for ref in there] == [ref.key for ref in here]
        assert skipped_there == skipped_here
        assert there[0].location.read(10) == b"a.jpg"  # type: ignore[union-attr]
        assert there[0].location.state() == open_store("memory://bucket/tree/a.jpg").state()  # type: ignore[union-attr]
        assert str(list_all("memory://bucket/none.jpg")[0][0].error or "") == ""
        with pytest.raises(SourceError, match="no such object"):
            list_all("memory://bucket/none/")
    memory.rm("/bucket", recursive=True)


def test_shards_of_a_bucket_are_those_of_the_directory(tree: Path, mirror: str) -> None:
    for ref in list_all(mirror)[0]:
        assert shard_of(ref.key, 5) == shard_of(str(Path(ref.path).relative_to(Path(mirror))).encode(), 5)
    parts = [list_all(mirror, shard=(number, 5))[0] for number in range(1, 6)]
    assert sorted(ref.path for part in parts for ref in part) == sorted(ref.path for ref in list_all(mirror)[0])


def test_a_url_that_names_nothing_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="names no bucket"):
        list_images(SourceOptions(("s3://",)))


@pytest.mark.parametrize("extension", ["tar", "tar.xz"])
def test_hard_links_and_system_folders_in_a_bucket(s3: ObjectStore, extension: str) -> None:
    link = tarfile.TarInfo("b.jpg")
    link.type, link.linkname = tarfile.LNKTYPE, "a.jpg"
    data = tar_bytes([("a.jpg", b"a"), link, ("@eaDir/a.jpg", b"thumbnail")])
    prefix = s3.prefix()
    url = s3.put(f"{prefix}x.{extension}", lzma.compress(data) if extension == "tar.xz" else data)
    refs, skipped = list_all(url)
    assert [(ref.path, ref.location.read(9)) for ref in refs] == [(f"{url}::a.jpg", b"a"), (f"{url}::b.jpg", b"a")]
    assert skipped == {"system folder": 1}
    s3.put(f"{prefix}photos/@eaDir/a.jpg", b"thumbnail")
    s3.put(f"{prefix}photos/a.jpg", b"a")
    refs, skipped = list_all(s3.url(f"{prefix}photos"))
    assert ([ref.key for ref in refs], skipped) == ([b"a.jpg"], {"system folder": 1})
    refs, skipped = list_all(s3.url(f"{prefix}photos/**/*.jpg"))
    assert ([ref.key.rpartition(b"/")[2] for ref in refs], skipped) == ([b"a.jpg"], {"system folder": 1})
