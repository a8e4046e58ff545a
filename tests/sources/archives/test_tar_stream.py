"""Compressed tar archives: bytes that members keep, and decompressing again."""

from __future__ import annotations

import gzip
import tracemalloc

import pytest

from tests.archivefiles import contents, header, listing, make
from xcli.core.errors import ImageError
from xcli.images.formats import MAX_FILE_BYTES
from xcli.sources.archives import tar_stream as tarstreams


class TestCompressedTar:
    """Bytes that travel with their member."""

    def test_more_than_may_be_carried_is_unpacked_again(self, here, monkeypatch):
        monkeypatch.setattr(tarstreams, "MAX_CARRIED", 2000)
        entries = [(f"{number}.jpg", bytes([number]) * 900) for number in range(6)]
        refs = list(listing(make("tar.gz", entries)))
        assert [ref.location.carried._data is not None for ref in refs] == [True, True, False, False, False, False]
        assert contents(refs) == [(f"x.tar.gz::{name}", content) for name, content in entries]

    def test_room_is_had_again_when_members_are_read_or_given_up(self, here, monkeypatch):
        monkeypatch.setattr(tarstreams, "MAX_CARRIED", 2000)
        refs = iter(listing(make("tar.gz", [(f"{number}.jpg", bytes(900)) for number in range(6)])))
        first, second = next(refs), next(refs)
        assert len(first.location.read(900)) == 900
        third = next(refs)
        assert third.location.carried._data is not None
        del second
        assert next(refs).location.carried._data is not None

    def test_one_member_is_always_carried(self, here, monkeypatch):
        monkeypatch.setattr(tarstreams, "MAX_CARRIED", 10)
        refs = iter(listing(make("tar.gz", [("a.jpg", bytes(900)), ("b.jpg", bytes(900))])))
        assert next(refs).location.carried._data is not None

    def test_bytes_are_let_go_of_when_they_are_read(self, here):
        (ref,) = listing(make("tar.zst", [("a.jpg", b"x" * 900)]))
        assert ref.location.read(1000) == b"x" * 900
        assert ref.location.carried._data is None

    def test_members_that_lie_too_deep_are_not_unpacked_again(self, here, monkeypatch):
        (_, ref) = listing(make("tar.gz", [("a.jpg", bytes(2000)), ("b.jpg", b"b")]))
        monkeypatch.setattr(tarstreams, "MAX_AGAIN", 1000)
        assert ref.location.read(10) == b"b"
        with pytest.raises(ImageError, match="too-large: it lies 3,072 bytes deep in a compressed archive"):
            ref.location.read(10)

    def test_bombs_are_not_unpacked(self, here):
        block = header(b"bomb.jpg", MAX_FILE_BYTES + 512)
        with gzip.open("x.tgz", "wb", compresslevel=1) as file:
            file.write(header(b"a.jpg", 1) + bytes(512) + block + bytes(1 << 20))
        tracemalloc.start()
        found = contents(listing("x.tgz"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert [(path, reason) for path, reason in found[1:]] == [
            ("x.tgz::bomb.jpg", "too-large"),
            ("x.tgz", "truncated"),
        ]
        assert peak < 8 << 20
