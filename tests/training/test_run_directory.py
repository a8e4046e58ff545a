"""What a training run leaves on the disk, whose it is, and what is removed of it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from xcli.core.errors import OutputError
from xcli.storage import disk
from xcli.training.checkpoints import Checkpoints
from xcli.training.run_directory import RunPaths, check_paths, clear_leftovers, exclusive, publish

if TYPE_CHECKING:
    from pathlib import Path


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
