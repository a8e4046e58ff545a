"""The cache of activations on the disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from xcli.core.errors import OutputError, UsageError
from xcli.training import activation_cache as caching
from xcli.training.activation_cache import ActivationCache, entry_key

if TYPE_CHECKING:
    from pathlib import Path

KIB = 1024

ONE, A, B, C, D, NEW, BUSY = (f"{number:032x}" for number in range(7))


def put(cache: ActivationCache, key: str, size: int, used: float) -> None:
    with cache.exclusive(key) as folder:
        (folder / "data.npy").write_bytes(os.urandom(size))
        cache.mark_complete(key, {"errors": {}})
    os.utime(cache.folder / key, (used, used))


def kept(cache: ActivationCache) -> set[str]:
    return {path.name for path in cache.folder.iterdir() if path.is_dir()}


def test_an_entry_counts_once_it_is_finished(tmp_path: Path) -> None:
    cache = ActivationCache(tmp_path / "new" / "cache", 1 << 20)
    with cache.exclusive(ONE) as folder:
        assert folder.is_dir()
        assert cache.description(ONE) is None
    cache.mark_complete(ONE, {"errors": {"3": "empty"}})
    assert cache.description(ONE) == {"errors": {"3": "empty"}}
    (cache.folder / ONE / "entry.json").write_text("{")
    assert cache.description(ONE) is None


def test_those_used_longest_ago_make_room(tmp_path: Path) -> None:
    older = ActivationCache(tmp_path, 1 << 30)
    for number, key in enumerate((A, B, C, D)):
        put(older, key, 100 * KIB, 1000 + number)
    older.touch(A)
    cache = ActivationCache(tmp_path, 320 * KIB)
    cache.reserve({NEW}, 100 * KIB)
    assert kept(cache) == {A, D}
    assert cache.size() <= 220 * KIB
    assert not list(cache.folder.glob(f"{B}*"))


def test_what_the_run_needs_stays(tmp_path: Path) -> None:
    put(ActivationCache(tmp_path, 1 << 30), A, 100 * KIB, 1000)
    put(ActivationCache(tmp_path, 1 << 30), B, 100 * KIB, 2000)
    cache = ActivationCache(tmp_path, 150 * KIB)
    cache.reserve({A}, 120 * KIB)
    assert kept(cache) == {A}


def test_an_entry_that_another_process_makes_is_not_dropped(tmp_path: Path) -> None:
    other = ActivationCache(tmp_path, 1 << 30)
    with other.exclusive(BUSY) as folder:
        (folder / "data.npy").write_bytes(os.urandom(100 * KIB))
        ActivationCache(tmp_path, 1).trim(0)
        assert kept(other) == {BUSY}
    ActivationCache(tmp_path, 1).trim(0)
    assert kept(other) == set()


def test_nothing_of_others_is_removed_or_written_to(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A directory that somebody has files in may be named as the place of the cache."""
    caplog.set_level("DETAIL", logger="xcli")
    home = tmp_path / "home"
    put(ActivationCache(home, 1 << 30), A, 100 * KIB, 1000)
    inside = home / "xception-activations"
    theirs = [home / ".ssh" / "id", home / "thesis" / "entry.json", home / B / "data.npy", inside / "photos" / "a.jpg"]
    theirs += [inside / C / "entry.json", inside / "b.lock"]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(200 * KIB))
    (inside / D).symlink_to(home / B)
    cache = ActivationCache(home, 1)
    cache.trim(0)
    assert cache.size() == 0
    assert not (inside / A).exists()
    assert [path for path in theirs if not path.is_file()] == []
    assert [record.getMessage() for record in caplog.records] == [
        f"cache: removing {inside / A}, the least recently used entry"
    ]
    for key in (C, D):
        with pytest.raises(OutputError, match="was not made by this program; choose another --cache-dir"):
            cache.exclusive(key).__enter__()


def test_a_link_in_place_of_the_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "xception-activations").symlink_to(tmp_path / "thesis")
    with pytest.raises(OutputError, match="it is a symbolic link; choose another --cache-dir"):
        ActivationCache(tmp_path / "cache", 1 << 30)
    assert list((tmp_path / "thesis").iterdir()) == []


def test_refuses_what_can_never_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"take 2\.00 GiB, but --cache-size allows 1\.00 GiB"):
        ActivationCache(tmp_path, 1 << 30).reserve({A}, 2 << 30)
    usage = caching.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(caching.shutil, "disk_usage", lambda path: usage._replace(free=300 << 20))
    with pytest.raises(OutputError, match=r"has only 0\.04 GiB free: choose another --cache-dir"):
        ActivationCache(tmp_path, 1 << 30).reserve({A}, 100 << 20)
    ActivationCache(tmp_path, 1 << 30).reserve({A}, 10 << 20)


def test_refuses_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another --cache-dir"):
        ActivationCache(tmp_path / "file", 1)


def test_different_descriptions_have_different_keys() -> None:
    assert entry_key({"a": 1, "b": 2}) == entry_key({"b": 2, "a": 1})
    assert entry_key({"a": 1}) != entry_key({"a": 2})
