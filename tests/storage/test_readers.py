"""Archives and manifests in object stores, read by ranges: from a server of S3 and a web server on loopback."""

from __future__ import annotations

import gzip
import io
import pickle
import random
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.objectstore import ObjectStore, WebServer
from xcli.core.errors import ImageError
from xcli.core.records import ImageRef
from xcli.outputs.resume import key_of
from xcli.sources.archives import tar_stream as tarstreams
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.storage import readers as ranges
from xcli.storage.object_store import open_store
from xcli.storage.object_store.base import ObjectStore as Store
from xcli.storage.object_store.errors import StoreError
from xcli.storage.object_store.state import ByteRange, Content
from xcli.storage.readers import RemoteReader, open_object

MEMBERS = {f"{number:02}.jpg": random.Random(number).randbytes(700 + 50 * number) for number in range(20)}
MEMBERS["sub/x.png"] = random.Random(99).randbytes(9000)
MEMBERS[".hidden.jpg"] = b"x"
MEMBERS["notes.txt"] = b"x"
IMAGES = {name: data for name, data in MEMBERS.items() if name.endswith(("g",)) and name[0] != "."}


def packed(form: str) -> bytes:
    """An archive of `MEMBERS`."""
    buffer = io.BytesIO()
    if form == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in MEMBERS.items():
                archive.writestr(name, data)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in MEMBERS.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    data = buffer.getvalue()
    if form == "tar.gz":
        return gzip.compress(data)
    return pa.compress(data, codec="zstd", asbytes=True) if form == "tar.zst" else data


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> list[ByteRange]:
    """Blocks of 4 KiB; gives the ranges that are asked for."""
    asked: list[ByteRange] = []
    get = Store.get

    def note(self: Store, limit: int, span: ByteRange | None = None) -> Content:
        assert span is not None
        asked.append(span)
        return get(self, limit, span)

    monkeypatch.setattr(ranges, "BLOCK", 4096)
    monkeypatch.setattr(Store, "get", note)
    return asked


def list_all(*sources: str, **options: Any) -> list[ImageRef]:
    return list(list_images(SourceOptions(sources, missing_ok=bool(sources), **options)))


def test_a_file_of_ranges(s3: ObjectStore, small_blocks: list[ByteRange]) -> None:
    data = random.Random(1).randbytes(30_000)
    url = s3.put(f"{s3.prefix()}/a.bin", data)
    with RemoteReader(url) as archive:
        assert archive.identity.size == 30_000
        for offset, count in ((0, 4), (4090, 10), (29_990, 100), (30_000, 5), (40_000, 5), (0, 30_000), (5, 0)):
            assert archive.read_at(offset, count) == data[offset : offset + count]
        with archive.stream() as file:
            assert file.read() == data
            assert file.seek(-5, io.SEEK_END) == 29_995
            assert file.read() == data[-5:]
            assert file.seek(10) == 10
            assert file.read(3) == data[10:13]


def test_blocks_are_asked_for_once_and_few_are_kept(s3: ObjectStore, small_blocks: list[ByteRange]) -> None:
    data = random.Random(2).randbytes(40 * 4096 + 7)
    url = s3.put(f"{s3.prefix()}/a.bin", data)
    archive = RemoteReader(url)
    for offset in range(0, len(data), 1000):
        assert archive.read_at(offset, 1000) == data[offset : offset + 1000]
        assert len(archive._blocks) <= ranges._CACHED_BLOCKS
    assert sorted(span.start for span in small_blocks) == list(range(0, len(data), 4096))


@pytest.mark.parametrize("form", ["tar", "tar.gz", "tar.zst", "zip"])
def test_members_are_those_of_the_archive_on_a_disk(
    s3: ObjectStore, tmp_path: Path, form: str, small_blocks: list[ByteRange]
) -> None:
    (tmp_path / f"a.{form}").write_bytes(packed(form))
    url = s3.put(f"{s3.prefix()}/a.{form}", packed(form))
    there, here = list_all(url), list_all(str(tmp_path / f"a.{form}"))
    assert [ref.path for ref in there] == [f"{url}::{name}" for name in IMAGES]
    assert [ref.key for ref in there] == [ref.key for ref in here]
    assert [ref.location.read(10_000) for ref in there] == list(IMAGES.values())  # type: ignore[union-attr]
    assert len({key_of(ref) for ref in there}) == len(there)
    assert {ref.location.state() for ref in there} == {open_store(url).state()}


@pytest.mark.parametrize("form", ["tar", "tar.gz", "zip"])
def test_members_travel_without_their_bytes_and_can_be_read_again(s3: ObjectStore, form: str) -> None:
    url = s3.put(f"{s3.prefix()}/a.{form}", packed(form))
    refs = list_all(url)
    sent = pickle.dumps(refs)
    assert len(sent) < 10_000
    for ref, data in zip(pickle.loads(sent), IMAGES.values(), strict=True):
        assert ref.location.read(10_000) == data
    for ref, data in zip(refs, IMAGES.values(), strict=True):
        assert [ref.location.read(10_000) for _ in range(2)] == [data, data]  # type: ignore[union-attr]


def test_a_plain_tar_is_fetched_once(s3: ObjectStore, small_blocks: list[ByteRange]) -> None:
    data = packed("tar")
    refs = list_all(s3.put(f"{s3.prefix()}/a.tar", data))
    assert [ref.location.read(10_000) for ref in refs] == list(IMAGES.values())  # type: ignore[union-attr]
    starts = [span.start for span in small_blocks]
    assert sorted(starts) == list(range(0, len(data), 4096))


def test_members_for_which_there_is_no_room_are_read_where_they_lie(
    s3: ObjectStore, small_blocks: list[ByteRange], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tarstreams, "MAX_CARRIED", 2000)
    monkeypatch.setattr(tarstreams, "MAX_PASSING", 8000)
    refs = list_all(s3.put(f"{s3.prefix()}/a.tar", packed("tar")))
    remote = [ref.location.remote for ref in refs]  # type: ignore[union-attr]
    assert remote == [False, False] + [True] * (len(refs) - 2)
    del small_blocks[:]
    assert [ref.location.read(10_000) for ref in refs] == list(IMAGES.values())  # type: ignore[union-attr]
    assert len(small_blocks) == len(refs) - 2
    assert [ref.location.remote for ref in refs] == [True] * len(refs)  # type: ignore[union-attr]


def test_a_member_of_a_zip_is_one_request(s3: ObjectStore, small_blocks: list[ByteRange]) -> None:
    refs = list_all(s3.put(f"{s3.prefix()}/a.zip", packed("zip")))
    del small_blocks[:]
    assert [ref.location.read(10_000) for ref in refs] == list(IMAGES.values())  # type: ignore[union-attr]
    assert len(small_blocks) == len(refs)
    assert all(ref.location.remote for ref in refs)  # type: ignore[union-attr]


def test_a_single_member(s3: ObjectStore) -> None:
    url = s3.put(f"{s3.prefix()}/a.tar", packed("tar"))
    (ref,) = list_all(f"{url}::notes.txt")
    assert ref.path == f"{url}::notes.txt"
    assert ref.location.read(10) == b"x"  # type: ignore[union-attr]
    (gone,) = list_all(f"{url}::gone.jpg")
    assert str(gone.error) == "missing: the archive has no such member"


def test_archives_below_a_prefix_are_listed_when_asked_for(s3: ObjectStore) -> None:
    prefix = s3.prefix()
    s3.put(f"{prefix}/a.jpg", b"x")
    tar = s3.put(f"{prefix}/shards/b.tar", packed("tar"))
    source = s3.url(f"{prefix}/")
    assert [ref.path for ref in list_all(source)] == [f"{source}a.jpg"]
    refs = list_all(source, archives=True, exclude=("sub/",))
    assert [ref.path for ref in refs] == [f"{source}a.jpg"] + [f"{tar}::{name}" for name in list(IMAGES)[:-1]]
    assert refs[1].key == b"shards/b.tar/00.jpg"
    assert [ref.path for ref in list_all(f"{source}**/*.tar")] == [f"{tar}::{name}" for name in IMAGES]


@pytest.mark.parametrize(("form", "reason"), [("tar", "truncated"), ("tar.gz", "truncated"), ("zip", "truncated")])
def test_an_archive_that_is_cut_off_says_so(s3: ObjectStore, form: str, reason: str) -> None:
    data = packed(form)
    url = s3.put(f"{s3.prefix()}/a.{form}", data[: len(data) // 2])
    refs = list_all(url)
    assert refs[-1].path == url
    assert refs[-1].error is not None
    assert refs[-1].error.reason == reason
    assert all(ref.error is None for ref in refs[:-1])


def test_an_archive_that_is_not_there_or_empty_is_a_row(s3: ObjectStore, web: WebServer) -> None:
    empty = s3.put(f"{s3.prefix()}/a.tar", b"")
    refs = list_all(empty, s3.url("gone.tar"), f"{web.address}/gone.zip")
    assert [str(ref.error) for ref in refs] == [
        "empty: the archive has zero bytes",
        "missing: no such object",
        "missing: no such object",
    ]


def test_an_archive_that_changes_gives_no_bytes_of_another(s3: ObjectStore) -> None:
    key = f"{s3.prefix()}/a.zip"
    refs = list_all(s3.put(key, packed("zip")))
    s3.put(key, packed("zip") + b"x")
    with pytest.raises(ImageError, match="unreadable: the archive has changed since it was listed"):
        refs[0].location.read(10_000)  # type: ignore[union-attr]


def test_an_archive_on_a_web_server_with_ranges_or_without(web: WebServer, small_blocks: list[ByteRange]) -> None:
    web.files["/a.tar"] = packed("tar")
    url = f"{web.address}/a.tar"
    assert [ref.location.read(10_000) for ref in list_all(url)] == list(IMAGES.values())  # type: ignore[union-attr]
    web.ranges = False
    del small_blocks[:]
    assert [ref.location.read(10_000) for ref in list_all(url)] == list(IMAGES.values())  # type: ignore[union-attr]
    assert len(small_blocks) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "MAX_WHOLE", 5000)
        (ref,) = list_all(url)
        assert str(ref.error).startswith("too-large: an object of ")


def test_opening_what_is_not_there(s3: ObjectStore) -> None:
    with pytest.raises(StoreError, match="no such object"):
        open_object(s3.url("gone.csv"))


def test_a_manifest_that_breaks_off_is_a_row(
    s3: ObjectStore, small_blocks: list[ByteRange], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "path\n" + "".join(f"{number:06}.jpg\n" for number in range(2000))
    url = s3.put(f"{s3.prefix()}/m.csv", lines.encode())
    get = Store.get

    def fail(self: Store, limit: int, span: ByteRange | None = None) -> Content:
        if span is not None and span.start >= 8192:
            raise StoreError("unreadable", "the line went dead")
        return get(self, limit, span)

    monkeypatch.setattr(Store, "get", fail)
    refs = list_all(manifest=url)
    assert 8192 // 11 - 2 <= len(refs) <= 8192 // 11 + 2
    assert [ref.error is None for ref in refs] == [True] * (len(refs) - 1) + [False]
    assert str(refs[-1].error).endswith(": the line went dead")
