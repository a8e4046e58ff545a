"""Directories that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from xcli.core.errors import OutputError, OutputExistsError, UsageError
from xcli.storage import disk
from xcli.storage.whole_directory import check_new_directory, whole_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MARK = "card"


def fill(folder: str, text: str) -> None:
    Path(folder, MARK).write_text(text)
    Path(folder, "inner").mkdir()
    Path(folder, "inner", "file").write_text(text)


def write(target: Path, text: str, overwrite: bool = False) -> None:
    with whole_directory(str(target), overwrite, MARK) as folder:
        fill(folder, text)
        assert overwrite or not target.exists()


def write_twice(target: Path, overwrite: bool = False) -> None:
    with whole_directory(str(target), overwrite, MARK) as folder:
        fill(folder, "two")
        fill(folder, "three")


def test_it_appears_at_the_end(tmp_path: Path) -> None:
    write(tmp_path / "out", "one")
    assert (tmp_path / "out" / "inner" / "file").read_text() == "one"
    assert os.listdir(tmp_path) == ["out"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        write_twice(tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_an_older_one_is_replaced_only_if_it_is_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "one")
    with pytest.raises(OutputExistsError):
        write(out, "two")
    with pytest.raises(FileExistsError):
        write_twice(out, overwrite=True)
    assert (out / MARK).read_text() == "one"
    write(out, "two", overwrite=True)
    assert (out / MARK).read_text() == "two"
    assert os.listdir(tmp_path) == ["out"]


def test_one_that_appears_meanwhile_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    late = whole_directory(str(out), False, MARK)
    fill(late.__enter__(), "ours")
    out.mkdir()
    (out / "theirs").write_text("theirs")
    with pytest.raises(OutputExistsError):
        late.__exit__(None, None, None)
    assert os.listdir(out) == ["theirs"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    write(tmp_path / "real", "one")
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", "two", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / MARK).read_text() == "two"


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom xcli.storage.whole_directory import whole_directory\n"
        "with whole_directory(sys.argv[1], False, 'card') as folder:\n"
        "    os.makedirs(folder + '/inner')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False)
    assert done.returncode == -9
    assert os.listdir(tmp_path) == ["out.partial"]
    write(tmp_path / "out", "one")
    assert os.listdir(tmp_path) == ["out"]


@pytest.fixture(scope="module")
def mortals() -> Iterator[Callable[[Path, int, str], bool]]:
    """Replaces a directory in a process that is killed after its change of the disk of a number; whether it was."""
    code = """if True:
        import os, sys
        from tests.faults.mortal_sort import MortalSystem
        from tests.storage.test_whole_directory import write
        from pathlib import Path
        from xcli.storage import disk
        class Older(MortalSystem):
            def exchange(self, one, other):
                return False

        for line in sys.stdin:
            target, step, system = line.split()
            child = os.fork()
            if child == 0:
                disk.system = (Older if system == "older" else MortalSystem)(int(step))
                write(Path(target), "two", overwrite=True)
                os._exit(0)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as server:  # type: ignore[call-overload]

        def run(target: Path, step: int, system: str) -> bool:
            print(target, step, system, file=server.stdin, flush=True)
            code = int(server.stdout.readline())
            assert code in (0, -signal.SIGKILL)
            return code != 0

        yield run
        server.stdin.close()


@pytest.mark.parametrize(("system", "states"), [("this", ["one", "two"]), ("older", ["one", "back", "two"])])
def test_killed_at_each_step_of_replacing_one(
    system: str,
    states: list[str],
    tmp_path: Path,
    mortals: Callable[[Path, int, str], bool],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The next process finds the older directory or the new one, whole; nothing else is left after it.

    Only an older system, or some network file systems, cannot exchange two directories in one step.
    """
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    if system == "this" and not disk.exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange two directories")
    for name in ("a", "b"):
        (tmp_path / name).rmdir()
    out, found = tmp_path / "out", list[str]()
    for step in range(1, 100):
        write(out, "one")
        killed = mortals(out, step, system)
        gone = not out.exists()
        with pytest.raises(OutputExistsError):  # it says at once that there is one, and whatever was gone is back
            check_new_directory(str(out), False, MARK)
        assert ("putting back" in caplog.text) == gone
        caplog.clear()
        text = (out / MARK).read_text()
        assert sorted(os.listdir(out)) == [MARK, "inner"]
        assert (out / "inner" / "file").read_text() == text
        found.append("back" if gone else text)
        write(out, "three", overwrite=True)
        assert (out / MARK).read_text() == "three"
        assert os.listdir(tmp_path) == ["out"]
        shutil.rmtree(out)
        if not killed:
            break
    assert not killed
    assert found == sorted(found, key=states.index)
    assert set(found) == set(states)


def test_one_that_was_moved_away_gives_way_to_another_of_its_name(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "one")
    private = tmp_path / "out.partial"
    private.mkdir()
    (private / "lock").write_bytes(b"")
    out.rename(private / "old-0")
    out.mkdir()
    (out / MARK).write_text("mine")
    write(out, "two", overwrite=True)
    assert (out / MARK).read_text() == "two"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("target", ["", "/", "s3://bucket/out", "-"])
def test_what_is_no_directory_is_refused(target: str) -> None:
    with pytest.raises(UsageError), whole_directory(target, False, MARK):
        pass


def test_places_where_it_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo").write_text("mine")
    for target, said in (
        (tmp_path / "no" / "out", "no such directory"),
        (tmp_path / "file", "not a directory"),
        (tmp_path / "mine", "has no card"),
    ):
        with pytest.raises(OutputError, match=said):
            write(target, "ours", overwrite=True)
    assert (tmp_path / "mine" / "photo").read_text() == "mine"
