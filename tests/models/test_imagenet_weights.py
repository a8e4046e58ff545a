"""Where the ImageNet weights are looked for, with small files in place of the real ones."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import platformdirs
import pytest

from tests.models.test_download import Server, give, say, serving
from xcli.core.errors import ExitCode, WeightsError
from xcli.models import download
from xcli.models import imagenet_weights as weights
from xcli.models.imagenet_weights import Candidate, WeightsFile, find_imagenet, locate_imagenet

if TYPE_CHECKING:
    from collections.abc import Iterator

OFFICIAL_TOP, OFFICIAL_NO_TOP = weights.IMAGENET_TOP, weights.IMAGENET_NO_TOP
TOP, NO_TOP = b"with the top", b"without"


@dataclass
class World:
    """The three directories in the order they are looked at, and the server behind the official address."""

    given: Path
    cache: Path
    keras: Path
    server: Server


def named(name: str, content: bytes) -> WeightsFile:
    return WeightsFile(name, len(content), hashlib.sha256(content).hexdigest())


def put(directory: Path, name: str, content: bytes) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_bytes(content)
    return path


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("KERAS_HOME", "XCEPTION_WEIGHTS_DIR", "XCEPTION_WEIGHTS_URL"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(weights, "IMAGENET_TOP", named("top.h5", TOP))
    monkeypatch.setattr(weights, "IMAGENET_NO_TOP", named("notop.h5", NO_TOP))
    monkeypatch.setattr(download, "time", SimpleNamespace(sleep=lambda seconds: None))
    with serving() as server:
        monkeypatch.setattr(weights, "BASE_URL", server.url.replace("file.h5", "official/"))
        cache = platformdirs.user_cache_path("xception") / "weights"
        yield World(tmp_path / "given", cache, home / ".keras" / "models", server)


def test_files_are_those_of_keras() -> None:
    """Against the source of the installed Keras, which is read rather than imported."""
    spec = importlib.util.find_spec("keras")
    assert spec is not None
    assert spec.origin is not None
    source = (Path(spec.origin).parent / "src" / "applications" / "xception.py").read_text()
    joined = source.replace('"\n    "', "")
    for file in (OFFICIAL_TOP, OFFICIAL_NO_TOP):
        assert f'"{weights.BASE_URL}{file.name}"' in joined
        assert len(bytes.fromhex(file.sha256)) == 32
    assert OFFICIAL_TOP.size - OFFICIAL_NO_TOP.size > 4 * (2048 * 1000 + 1000)  # the classification layer, float32


def test_nothing_anywhere_is_downloaded_into_the_cache(world: World) -> None:
    world.server.script = [give(TOP)]
    assert locate_imagenet(True) == world.cache / "top.h5"
    assert (world.cache / "top.h5").read_bytes() == TOP
    assert locate_imagenet(True) == world.cache / "top.h5"
    assert [request.path for request in world.server.log] == ["/official/top.h5"]


def test_a_weights_directory_is_only_read(world: World) -> None:
    world.given.mkdir()
    world.server.script = [give(NO_TOP)]
    assert locate_imagenet(False, weights_dir=str(world.given)) == world.cache / "notop.h5"
    assert list(world.given.iterdir()) == []


def test_order_of_places(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = [put(place, "top.h5", TOP) for place in (world.given, tmp_path / "env", world.cache, world.keras)]
    monkeypatch.setenv("XCEPTION_WEIGHTS_DIR", str(tmp_path / "env"))
    assert locate_imagenet(True, weights_dir=str(world.given), offline=True) == expected[0]
    for path in expected[1:]:
        assert locate_imagenet(True, offline=True) == path
        path.unlink()
    assert world.server.log == []


def test_keras_home(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put(world.keras, "top.h5", TOP)
    path = put(tmp_path / "keras-home" / "models", "top.h5", TOP)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras-home"))
    assert locate_imagenet(True, offline=True) == path


def test_home_is_expanded_in_a_weights_directory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(world.keras.parents[1] / "mine", "top.h5", TOP)
    monkeypatch.setenv("XCEPTION_WEIGHTS_DIR", "~/mine")
    assert locate_imagenet(True, offline=True) == path


def test_weights_directory_that_does_not_exist(world: World, caplog: pytest.LogCaptureFixture) -> None:
    path = put(world.keras, "top.h5", TOP)
    assert locate_imagenet(True, weights_dir=str(world.given), offline=True) == path
    assert f"{world.given} is not a directory" in caplog.text


def test_without_top_prefers_the_file_without_top_anywhere(world: World) -> None:
    with_top = put(world.given, "top.h5", TOP)
    without = put(world.keras, "notop.h5", NO_TOP)
    assert locate_imagenet(False, weights_dir=str(world.given), offline=True) == without
    without.unlink()
    assert locate_imagenet(False, weights_dir=str(world.given), offline=True) == with_top


def test_with_top_never_takes_the_file_without(world: World) -> None:
    put(world.given, "notop.h5", NO_TOP)
    with pytest.raises(WeightsError, match=r"^top\.h5 is not on this machine"):
        locate_imagenet(True, weights_dir=str(world.given), offline=True)


@pytest.mark.parametrize("bad", [b"With the top", b"short"], ids=["digest", "size"])
def test_bad_file_in_the_cache_is_replaced(world: World, bad: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = put(world.cache, "top.h5", bad)
    caplog.set_level(logging.INFO, "xcli")
    world.server.script = [give(TOP)]
    assert locate_imagenet(True) == path
    assert path.read_bytes() == TOP
    said = [record for record in caplog.records if record.name == "xcli.models.imagenet_weights"]
    assert [record.levelno for record in said] == [logging.WARNING, logging.INFO]
    assert said[0].getMessage().startswith(f"not using {path}: ")
    assert said[1].getMessage().startswith("downloading ")


def test_bad_file_in_the_weights_directory_is_passed_over(world: World, caplog: pytest.LogCaptureFixture) -> None:
    bad = put(world.given, "top.h5", b"With the top")
    good = put(world.keras, "top.h5", TOP)
    assert locate_imagenet(True, weights_dir=str(world.given), offline=True) == good
    assert bad.read_bytes() == b"With the top"
    assert f"not using {bad}: it is not the official file (SHA-256 " in caplog.text


def test_bad_file_is_never_returned_offline(world: World, caplog: pytest.LogCaptureFixture) -> None:
    bad = put(world.cache, "top.h5", b"With the top")
    with pytest.raises(WeightsError):
        locate_imagenet(True, offline=True)
    assert bad.exists()
    assert str(bad) in caplog.text


def assert_ways_out(message: str, url: str, cache: Path) -> None:
    assert "\n" not in message
    for needed in (
        f"(1) fetch {url} (12 bytes)",
        f"put it in '{cache}'",
        "--weights FILE",
        "(2) set XCEPTION_WEIGHTS_URL",
        "XCEPTION_WEIGHTS_DIR",
        "(3) --weights none",
        "--model FILE",
    ):
        assert needed in message


def test_offline(world: World) -> None:
    with pytest.raises(WeightsError) as caught:
        locate_imagenet(True, offline=True)
    assert caught.value.exit_code == ExitCode.MODEL
    assert "--offline forbids" in str(caught.value)
    assert_ways_out(str(caught.value), weights.BASE_URL + "top.h5", world.cache)
    assert world.server.log == []
    assert not world.cache.exists()


def test_no_network(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        base = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    monkeypatch.setattr(weights, "BASE_URL", base)
    with pytest.raises(WeightsError) as caught:
        locate_imagenet(True)
    assert "refused" in str(caught.value)
    assert_ways_out(str(caught.value), base + "top.h5", world.cache)


def test_file_that_the_server_does_not_have(world: World) -> None:
    world.server.script = [say(404)]
    with pytest.raises(WeightsError, match="HTTP 404 Not Found") as caught:
        locate_imagenet(True)
    assert_ways_out(str(caught.value), weights.BASE_URL + "top.h5", world.cache)
    assert len(world.server.log) == 1


@pytest.mark.parametrize("slash", ["", "/", " "])
def test_mirror(world: World, monkeypatch: pytest.MonkeyPatch, slash: str) -> None:
    monkeypatch.setenv("XCEPTION_WEIGHTS_URL", world.server.url.replace("file.h5", "a/mirror") + slash)
    world.server.script = [give(NO_TOP)]
    locate_imagenet(False)
    assert [request.path for request in world.server.log] == ["/a/mirror/notop.h5"]


@pytest.mark.parametrize("mirror", ["file:///srv/weights", "/srv/weights", "ftp://h/w", "https://h/w?token=1"])
def test_mirror_that_cannot_be_used(world: World, monkeypatch: pytest.MonkeyPatch, mirror: str) -> None:
    monkeypatch.setenv("XCEPTION_WEIGHTS_URL", mirror)
    with pytest.raises(WeightsError) as caught:
        locate_imagenet(True)
    assert str(caught.value).startswith(f"XCEPTION_WEIGHTS_URL: {mirror!r}")
    path = put(world.keras, "top.h5", TOP)
    assert locate_imagenet(True) == path  # not needed, so not looked at


def test_empty_variables_count_as_unset(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XCEPTION_WEIGHTS_DIR", "XCEPTION_WEIGHTS_URL", "KERAS_HOME"):
        monkeypatch.setenv(name, "")
    world.server.script = [give(TOP)]
    assert [candidate.path.parent for candidate in find_imagenet(True)] == [world.cache, world.keras]
    assert locate_imagenet(True) == world.cache / "top.h5"
    assert world.server.log[0].path == "/official/top.h5"


def unreachable_home(name: str) -> Path:
    raise RuntimeError(name)


@pytest.mark.parametrize("cache_path", [unreachable_home, lambda name: Path("~/.cache")])
def test_no_home_directory(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache_path: object) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", cache_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="set HOME or XDG_CACHE_HOME; three ways out"):
        locate_imagenet(True)
    assert world.server.log == []
    assert not (tmp_path / "~").exists()
    path = put(world.keras, "top.h5", TOP)
    assert locate_imagenet(True) == path


def test_find_names_every_place(world: World) -> None:
    put(world.given, "notop.h5", b"Without")
    put(world.cache, "notop.h5", NO_TOP)
    put(world.keras, "top.h5", TOP)
    no_top, top = weights.IMAGENET_NO_TOP, weights.IMAGENET_TOP
    detail = f"SHA-256 {hashlib.sha256(b'Without').hexdigest()} where {no_top.sha256} is expected"
    assert find_imagenet(False, str(world.given)) == [
        Candidate(no_top, "weights directory", world.given / "notop.h5", "wrong digest", detail),
        Candidate(no_top, "cache", world.cache / "notop.h5", "verified"),
        Candidate(no_top, "Keras cache", world.keras / "notop.h5", "absent"),
        Candidate(top, "weights directory", world.given / "top.h5", "absent"),
        Candidate(top, "cache", world.cache / "top.h5", "absent"),
        Candidate(top, "Keras cache", world.keras / "top.h5", "verified"),
    ]
    assert [candidate.state for candidate in find_imagenet(True, str(world.given))] == ["absent", "absent", "verified"]


def test_find_looks_at_a_directory_once(world: World) -> None:
    found = find_imagenet(True, str(world.cache))
    assert [(candidate.place, candidate.path) for candidate in found] == [
        ("weights directory", world.cache / "top.h5"),
        ("Keras cache", world.keras / "top.h5"),
    ]


def test_file_that_cannot_be_read(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.given.mkdir()
    loop = world.given / "top.h5"
    loop.symlink_to(loop)
    assert find_imagenet(True, str(world.given))[0].state == "unreadable"
    good = put(world.keras, "top.h5", TOP)
    assert locate_imagenet(True, weights_dir=str(world.given), offline=True) == good
    assert f"not using {loop}: it is not readable (" in caplog.text


def test_no_file_is_read_beyond_the_first_verified(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(world.cache, "top.h5", TOP)
    put(world.keras, "top.h5", TOP)
    read = []
    monkeypatch.setattr(download, "sha256_of", lambda path: read.append(path) or hashlib.sha256(TOP).hexdigest())
    assert locate_imagenet(True) == path
    assert read == [path]
