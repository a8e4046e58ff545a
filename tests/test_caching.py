"""The cache of activations on the disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from xcli import caching
from xcli.caching import Cache, fingerprint
from xcli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

KIB = 1024


def put(cache: Cache, key: str, size: int, used: float) -> None:
    with cache.locked(key) as folder:
        (folder / "data.npy").write_bytes(os.urandom(size))
        cache.finish(key, {"errors": {}})
    os.utime(cache.folder / key, (used, used))


def kept(cache: Cache) -> set[str]:
    return {path.name for path in cache.folder.iterdir() if path.is_dir()}


def test_an_entry_counts_once_it_is_finished(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "new" / "cache", 1 << 20)
    with cache.locked("one") as folder:
        assert folder.is_dir()
        assert cache.description("one") is None
    cache.finish("one", {"errors": {"3": "empty"}})
    assert cache.description("one") == {"errors": {"3": "empty"}}
    (cache.folder / "one" / "entry.json").write_text("{")
    assert cache.description("one") is None


def test_those_used_longest_ago_make_room(tmp_path: Path) -> None:
    older = Cache(tmp_path, 1 << 30)
    for number, key in enumerate(("a", "b", "c", "d")):
        put(older, key, 100 * KIB, 1000 + number)
    older.touch("a")
    cache = Cache(tmp_path, 320 * KIB)
    cache.reserve({"new"}, 100 * KIB)
    assert kept(cache) == {"a", "d"}
    assert cache.size() <= 220 * KIB
    assert not list(tmp_path.glob("b*"))


def test_what_the_run_needs_stays(tmp_path: Path) -> None:
    put(Cache(tmp_path, 1 << 30), "a", 100 * KIB, 1000)
    put(Cache(tmp_path, 1 << 30), "b", 100 * KIB, 2000)
    cache = Cache(tmp_path, 150 * KIB)
    cache.reserve({"a"}, 120 * KIB)
    assert kept(cache) == {"a"}


def test_an_entry_that_another_process_makes_is_not_dropped(tmp_path: Path) -> None:
    other = Cache(tmp_path, 1 << 30)
    with other.locked("busy") as folder:
        (folder / "data.npy").write_bytes(os.urandom(100 * KIB))
        Cache(tmp_path, 1).trim(0)
        assert kept(other) == {"busy"}
    Cache(tmp_path, 1).trim(0)
    assert kept(other) == set()


def test_refuses_what_can_never_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"take 2\.00 GiB, but --cache-size allows 1\.00 GiB"):
        Cache(tmp_path, 1 << 30).reserve({"a"}, 2 << 30)
    usage = caching.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(caching.shutil, "disk_usage", lambda path: usage._replace(free=300 << 20))
    with pytest.raises(OutputError, match=r"has only 0\.04 GiB free: choose another --cache-dir"):
        Cache(tmp_path, 1 << 30).reserve({"a"}, 100 << 20)
    Cache(tmp_path, 1 << 30).reserve({"a"}, 10 << 20)


def test_refuses_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another --cache-dir"):
        Cache(tmp_path / "file", 1)


def test_the_fingerprint_tells_descriptions_apart() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
