"""What is kept of models: found again, checked when they are read, few enough, made by one of several processes."""

from __future__ import annotations

import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from xcli.storage.model_cache import LOCK, SUFFIX, CacheEntry, ModelCache, user_folder

KEY, OTHER, THIRD = "a" * 64, "b" * 64, "c" * 64
SCHEMA = {"outputs": [str]}
CONTENT = bytes(range(256)) * 40


class Builder:
    """Makes a model, and counts how often."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content, self.count = content, 0

    def __call__(self) -> CacheEntry:
        self.count += 1
        return CacheEntry(self.content, {"outputs": ["x:0"]})


def cache_in(folder: Path, limit: int = 1 << 30, *, quiet: bool = False) -> ModelCache:
    return ModelCache(folder, "compiled model", limit, quiet=quiet)


def path_of(folder: Path, key: str = KEY) -> Path:
    return folder / f"{key}{SUFFIX}"


def test_a_model_is_built_once_and_found_again(tmp_path: Path) -> None:
    build, folder = Builder(), tmp_path / "made" / "here"
    made = cache_in(folder).get(KEY, SCHEMA, build)
    found = cache_in(folder).get(KEY, SCHEMA, build)
    assert build.count == 1
    assert bytes(found.content) == bytes(made.content) == CONTENT
    assert found.facts["outputs"] == ["x:0"]
    assert sorted(os.listdir(folder)) == sorted([path_of(folder).name, LOCK])
    assert folder.stat().st_mode & 0o077 == 0


DAMAGES = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "without its last byte": lambda data: data[:-1],
    "a flipped bit": lambda data: data[:3000] + bytes([data[3000] ^ 4]) + data[3001:],
    "a flipped bit of the facts": lambda data: data[:70] + bytes([data[70] ^ 1]) + data[71:],
    "another digest": lambda data: b"0" * 64 + data[64:],
    "foreign": lambda data: b"PK\x03\x04" + b"\0" * 100_000,
    "no line": lambda data: b"x" * 200_000,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_noticed_and_made_again(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build, cache = Builder(), cache_in(tmp_path)
    cache.get(KEY, SCHEMA, build)
    file = path_of(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(DAMAGES[damage](whole))
    found = cache.get(KEY, SCHEMA, build)
    assert bytes(found.content) == CONTENT
    assert build.count == 2
    assert file.read_bytes() == whole
    assert "not using the compiled model" in caplog.text
    caplog.clear()
    cache.get(KEY, SCHEMA, build)
    assert build.count == 2
    assert not caplog.text


def test_the_file_of_another_model_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache, other = cache_in(tmp_path), Builder(b"other")
    cache.get(OTHER, SCHEMA, other)
    path_of(tmp_path, OTHER).rename(path_of(tmp_path))
    assert bytes(cache.get(KEY, SCHEMA, Builder()).content) == CONTENT
    assert "it belongs to another model" in caplog.text


@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
def test_what_is_no_file_is_not_read(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "cache"
    cache = cache_in(folder)
    cache.get(OTHER, SCHEMA, Builder())
    if kind == "link":
        path_of(folder).symlink_to(path_of(folder, OTHER))
    elif kind == "directory":
        path_of(folder).mkdir()
    else:
        os.mkfifo(path_of(folder))
    assert bytes(cache.get(KEY, SCHEMA, Builder()).content) == CONTENT
    assert "it is not a regular file" in caplog.text
    assert path_of(folder, OTHER).is_file()


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with path_of(tmp_path).open("wb") as file:
        file.truncate(1 << 40)
    assert bytes(cache_in(tmp_path).get(KEY, SCHEMA, Builder()).content) == CONTENT
    assert "it has 1,099,511,627,776 bytes" in caplog.text


def test_several_at_once_build_it_once(tmp_path: Path) -> None:
    begun = threading.Event()

    class Slow(Builder):
        def __call__(self) -> CacheEntry:
            begun.set()
            time.sleep(0.3)
            return super().__call__()

    build = Slow()

    def late() -> CacheEntry:
        begun.wait(10)
        return cache_in(tmp_path).get(KEY, SCHEMA, build)

    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(late) for _ in range(3)]
        first = cache_in(tmp_path).get(KEY, SCHEMA, build)
        found = [other.result() for other in others]
    assert build.count == 1
    assert {bytes(one.content) for one in (first, *found)} == {CONTENT}


def test_those_used_least_recently_make_room(tmp_path: Path) -> None:
    cache = cache_in(tmp_path, 25_000)
    for age, key in ((300, KEY), (200, OTHER)):
        cache.get(key, SCHEMA, Builder())
        os.utime(path_of(tmp_path, key), (time.time() - age,) * 2)
    (tmp_path / f"{OTHER}{SUFFIX}.tmp").write_bytes(b"left by a killed process")
    (tmp_path / "photograph.jpg").write_bytes(b"x" * 100_000)
    cache.get(KEY, SCHEMA, Builder())  # now it is used more recently than the other
    cache.get(THIRD, SCHEMA, Builder())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [f"{KEY}{SUFFIX}", f"{THIRD}{SUFFIX}", LOCK, "photograph.jpg"]
    )


def test_a_model_above_the_limit_is_not_kept(tmp_path: Path) -> None:
    cache = cache_in(tmp_path, 100)
    assert bytes(cache.get(KEY, SCHEMA, Builder()).content) == CONTENT
    assert os.listdir(tmp_path) == [LOCK]


def test_without_a_usable_directory_models_are_compiled_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "link"):
        caplog.clear()
        build = Builder()
        cache = cache_in(folder)
        for _ in range(2):
            assert bytes(cache.get(KEY, SCHEMA, build).content) == CONTENT
        assert build.count == 2, folder
        assert "cannot keep compiled models in" in caplog.text
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


def test_an_entry_that_took_no_time_is_found_or_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache, entry = cache_in(tmp_path), Builder()()
    assert cache.find(KEY, SCHEMA) is None
    cache.keep(KEY, entry)
    found = cache.find(KEY, SCHEMA)
    assert found is not None
    assert bytes(found.content) == CONTENT
    assert not caplog.text
    nowhere = ModelCache(None, "compiled model", 1 << 30)
    nowhere.keep(KEY, entry)
    assert nowhere.find(KEY, SCHEMA) is None
    assert bytes(nowhere.get(KEY, SCHEMA, Builder()).content) == CONTENT


def test_a_quiet_one_says_what_is_wrong_only_as_a_detail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache_in(tmp_path / "file", quiet=True).get(KEY, SCHEMA, Builder())
    assert "cannot keep compiled models in" in caplog.text
    assert all(record.levelno < logging.INFO for record in caplog.records)


def test_a_disk_that_cannot_be_written_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("xcli.storage.disk.replace_file", full)
    assert bytes(cache_in(tmp_path).get(KEY, SCHEMA, Builder()).content) == CONTENT
    assert "No space left on device" in caplog.text


def test_the_directory_is_that_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_folder("models") == tmp_path / "xception" / "models"


@pytest.fixture(autouse=True)
def _all_messages(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "xcli")
