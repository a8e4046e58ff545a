"""What a training run leaves on the disk, whose it is, and what is removed of it."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from xcli.core.errors import OutputError, UsageError
from xcli.storage import disk
from xcli.training.checkpoints import Checkpoints, RunPaths, check_paths, clear_leftovers, exclusive, publish

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = {"seed": 1, "recipe": {"epochs": 3, "views": [1, 2]}, "data": "abc"}


def test_arrays_and_state_come_back(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, SETTINGS)
    assert kept.load() is None
    arrays = {"weight:a/kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3), "steps": np.asarray(7)}
    kept.write("last-0001.npz", arrays)
    kept.commit({"epoch": 1}, {"last-0001.npz"})
    again = Checkpoints(tmp_path, SETTINGS)
    assert again.load() == {"epoch": 1}
    found = again.arrays("last-0001.npz")
    assert {name: array.tolist() for name, array in found.items()} == {
        name: array.tolist() for name, array in arrays.items()
    }


def test_older_arrays_go_only_when_the_state_does_without(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, SETTINGS)
    for epoch in range(3):
        name = f"last-{epoch}.npz"
        kept.write(name, {"x": np.zeros(1)})
        if epoch:
            assert (tmp_path / f"last-{epoch - 1}.npz").exists()
        kept.commit({"epoch": epoch}, {name})
    assert [path.name for path in tmp_path.glob("*.npz")] == ["last-2.npz"]


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    Checkpoints(tmp_path, SETTINGS).commit({}, set())
    other = {"seed": 2, "recipe": {"epochs": 4, "views": [1, 2]}, "data": "abc", "new": None}
    with pytest.raises(UsageError, match=r"other settings \(recipe\.epochs, seed\).*--restart"):
        Checkpoints(tmp_path, other).load()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"settings": {}}', '{"settings": 1, "state": {}}'])
def test_a_damaged_state_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(OutputError, match=r"state\.json cannot be read.*--restart"):
        Checkpoints(tmp_path, SETTINGS).load()


def test_damaged_arrays_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(OutputError, match=r"x\.npz cannot be read.*--restart"):
        Checkpoints(tmp_path, SETTINGS).arrays("x.npz")


def test_pickled_objects_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.array([{"a": 1}], object))
    with pytest.raises(OutputError, match="cannot be read"):
        Checkpoints(tmp_path, SETTINGS).arrays("x.npz")


def test_the_state_is_plain_json(tmp_path: Path) -> None:
    Checkpoints(tmp_path, SETTINGS).commit({"epoch": 1}, set())
    found = json.loads((tmp_path / "state.json").read_text())
    assert found.pop("digest")
    assert found == {"settings": SETTINGS, "state": {"epoch": 1}}
    (tmp_path / "state.json").write_text(json.dumps(found))
    assert Checkpoints(tmp_path, SETTINGS).load() == {"epoch": 1}, "an older version did not write the digest"


def test_a_digit_that_has_changed_is_damage(tmp_path: Path) -> None:
    Checkpoints(tmp_path, SETTINGS).commit({"epoch": 1, "rows": [0.25, None]}, set())
    path = tmp_path / "state.json"
    path.write_text(path.read_text().replace("0.25", "0.75"))
    with pytest.raises(OutputError, match=r"state\.json cannot be read.*--restart"):
        Checkpoints(tmp_path, SETTINGS).load()


def test_what_cannot_be_read_now_is_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Checkpoints(tmp_path, SETTINGS)
    kept.write("head-last-0001.npz", {"x": np.zeros(1)})
    kept.commit({"epoch": 1}, {"head-last-0001.npz"})

    def fail(path: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("xcli.training.checkpoints.disk.read_file", fail)
    for read in (kept.load, lambda: kept.arrays("head-last-0001.npz")):
        with pytest.raises(OutputError, match="Input/output error; the same command continues"):
            read()


def test_arrays_without_a_state_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Checkpoints(tmp_path, SETTINGS).write("head-last-0001.npz", {"x": np.zeros(1)})
    assert Checkpoints(tmp_path, SETTINGS).load() is None
    assert "has no state.json: the training begins again" in caplog.text


def paths_in(folder: Path, *, restart: bool = False) -> RunPaths:
    return RunPaths(str(folder / "data"), str(folder / "RUN"), restart=restart)


def begun(folder: Path) -> Path:
    """What a run leaves that is killed while it publishes its bundle, and while it writes a file."""
    with exclusive(paths_in(folder)) as name:
        Checkpoints(name, {}).commit({"epoch": 1}, set())
    partial = folder / "RUN.partial"
    for file in (
        "start-1.npz",
        "head-last-0001.npz",
        "blocks-best-0012.npz",
        ".state.json.12-0a.tmp",
        "bundle/run.json",
    ):
        (partial / file).parent.mkdir(exist_ok=True)
        (partial / file).touch()
    return partial


def test_restart_drops_what_is_there(tmp_path: Path) -> None:
    begun(tmp_path)
    with exclusive(paths_in(tmp_path)) as folder:
        assert Checkpoints(folder, {}).load() == {"epoch": 1}
    with exclusive(paths_in(tmp_path, restart=True)) as folder:
        assert os.listdir(folder) == [".lock"]


def test_refuses_a_file_and_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "RUN.partial").write_text("")
    with pytest.raises(OutputError, match="is a file"), exclusive(paths_in(tmp_path)):
        pass
    with pytest.raises(OutputError, match="cannot write"), exclusive(paths_in(tmp_path / "no")):
        pass


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("thesis.txt", "holds thesis.txt"),
        ("weights.npz", "holds weights.npz"),
        ("bundle/thesis.txt", "holds bundle"),
        ("old/thesis.txt", "holds old"),
        (".lock", "holds a file called .lock"),
    ],
)
def test_a_directory_that_no_run_has_made_is_refused(tmp_path: Path, name: str, match: str, restart: bool) -> None:
    file = tmp_path / "RUN.partial" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    paths = paths_in(tmp_path, restart=restart)
    with pytest.raises(OutputError, match=f"RUN.partial {match}, which no unfinished run has left there; move it away"):
        check_paths(paths)
    with pytest.raises(OutputError, match=match), exclusive(paths):
        pass
    assert file.read_text() == "mine"


def test_an_empty_directory_is_taken_and_a_link_refused(tmp_path: Path) -> None:
    (tmp_path / "RUN.partial").mkdir()
    check_paths(paths_in(tmp_path))
    begun(tmp_path).rename(tmp_path / "elsewhere")
    (tmp_path / "RUN.partial").symlink_to(tmp_path / "elsewhere")
    before = sorted((tmp_path / "elsewhere").rglob("*"))
    for restart in (False, True):
        with (
            pytest.raises(OutputError, match=r"RUN\.partial is a symbolic link"),
            exclusive(paths_in(tmp_path, restart=restart)),
        ):
            pass
    assert sorted((tmp_path / "elsewhere").rglob("*")) == before


def test_what_others_put_there_meanwhile_stays(tmp_path: Path) -> None:
    partial = begun(tmp_path)
    with exclusive(paths_in(tmp_path)):
        (partial / "note.txt").write_text("theirs")
        publish(paths_in(tmp_path))
    assert os.listdir(tmp_path / "RUN") == ["run.json"]
    assert os.listdir(partial) == ["note.txt"]


def test_publication_leaves_the_run_alone(tmp_path: Path) -> None:
    begun(tmp_path)
    (tmp_path / "RUN").mkdir()
    with exclusive(paths_in(tmp_path)):
        publish(paths_in(tmp_path))
    assert os.listdir(tmp_path) == ["RUN"]
    assert os.listdir(tmp_path / "RUN") == ["run.json"]


@pytest.mark.parametrize("name", [None, "head-last-0001.npz", "state.json"])
def test_what_a_finished_run_could_not_clear_away_goes_with_the_next_command(
    tmp_path: Path, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, settings = paths_in(tmp_path), {"seed": 1}
    with exclusive(paths) as folder:
        kept = Checkpoints(folder, settings)
        kept.write("head-last-0001.npz", {"x": np.zeros(1)})
        kept.commit({"epoch": 1}, {"head-last-0001.npz"})
        os.mkdir(paths.bundle)
        unlink = disk.unlink

        def fails(path: str) -> None:
            if name is None or os.path.basename(path) == name:
                raise OSError(errno.EIO, "Input/output error")
            unlink(path)

        with monkeypatch.context() as patch:
            patch.setattr("xcli.training.checkpoints.disk.unlink", fails)
            publish(paths)
    assert set(os.listdir(paths.partial)) >= {".lock"}
    # With --overwrite nothing of it is continued; otherwise it goes.
    with exclusive(paths) as folder:
        assert Checkpoints(folder, settings).load() is None
    clear_leftovers(paths, settings)
    assert os.listdir(tmp_path) == ["RUN"]


def test_an_unfinished_run_with_other_settings_is_no_leftover(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    with exclusive(paths) as folder:
        Checkpoints(folder, {"seed": 2}).commit({"epoch": 1}, set())
        clear_leftovers(paths, {"seed": 2})  # another process uses it
        assert os.path.exists(os.path.join(folder, "state.json"))
    clear_leftovers(paths, {"seed": 1})
    assert os.path.exists(os.path.join(folder, "state.json"))
    clear_leftovers(paths, {"seed": 2})
    assert os.listdir(tmp_path) == []
