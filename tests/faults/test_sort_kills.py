"""`xception sort` in real processes that are killed by SIGKILL after each change of the disk, in each mode."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.analysis.test_sort import content, make_files
from tests.cli.conftest import clean_environment
from tests.faults.harness import TALLY
from tests.thorough import thorough
from xcli.analysis.sort_plan import MODES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ACROSS = "move to another file system"
NEVER = 1 << 30


class Processes:
    """Runs `xception sort` in a process of its own, which is killed after its step of some number."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.mortal_sort"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=clean_environment(),
        )

    def run(self, *arguments: object, step: int = NEVER) -> bool:
        """Returns whether it was killed; else it has ended well."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(
            json.dumps({"arguments": ["sort", *map(str, arguments)], "step": step}), file=self._server.stdin, flush=True
        )
        code = int(self._server.stdout.readline())
        assert code in (0, -signal.SIGKILL)
        TALLY.kills += code != 0
        return code != 0

    def close(self) -> None:
        """Ends the server."""
        self._server.communicate()


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    made = Processes()
    yield made
    made.close()


class Tree:
    """Files that are sorted, their table and the destination.

    Attributes:
        root: holds the files and the table.
        out: the destination.
        table: its path.
        before: the files, by name, before anything is done.
    """

    def __init__(self, root: Path, out: Path, way: str, files: int) -> None:
        self.root, self.out, self.way = root, out, way
        self.table = make_files(root, files)
        self.before = self.there(root / "in")
        self.arguments = (self.table, out, "--mode", "move" if way == ACROSS else way)

    def there(self, folder: Path) -> dict[str, tuple[bytes, int, int]]:
        """Content, permissions and time of each file below a directory."""
        found = {}
        for name, data in content(folder).items():
            status = (folder / name).stat()
            found[name] = (data, status.st_mode, status.st_mtime_ns)
        return found

    def log(self) -> Path | None:
        """The log of the sort."""
        return next(self.out.glob("_sort-*.jsonl"), None)

    def check(self) -> None:
        """Every file is in exactly one of its two places, or, unless it is moved, intact at its source.

        A move to another file system may leave a file in both, whole in each; never in none.
        """
        here = {name: one for name, one in self.there(self.root / "in").items() if not name.endswith(".part")}
        if "move" not in self.way:
            assert here == self.before
            return
        moved = [one for name, one in self.there(self.out).items() if "/" in name] if self.out.exists() else []
        found, expected = sorted([*here.values(), *moved]), sorted(self.before.values())
        assert sorted(set(found)) == expected
        assert self.way == ACROSS or found == expected
        # All that is doubled is one file, which the next process looks at first.
        assert len(found) <= len(expected) + 1

    def check_sorted(self) -> None:
        """Each file is in its place, and there is nothing else in the destination but the log."""
        there = content(self.out)
        names = [name for name in there if "/" in name]
        assert sorted(there[name] for name in names) == sorted(data for data, _, _ in self.before.values())
        assert len(there) == len(names) + 1
        assert "move" not in self.way or not content(self.root / "in")

    def check_undone(self) -> None:
        """The tree is what it was, byte for byte, and the destination is gone or empty."""
        assert self.there(self.root / "in") == self.before
        assert sorted(path.name for path in self.root.iterdir() if path != self.out) == ["in", "table.csv"]
        assert not self.out.exists() or not any(self.out.iterdir())


def other_file_system(folder: Path) -> Path | None:
    """A new directory on another file system than this one; None where there is none that can be written."""
    for place in ("/dev/shm", tempfile.gettempdir(), Path.home(), Path.cwd()):
        if os.access(place, os.W_OK) and os.stat(place).st_dev != folder.stat().st_dev:
            return Path(tempfile.mkdtemp(dir=place))
    return None


@pytest.fixture
def make_tree(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Tree]:
    way, files = request.param
    out = tmp_path / "out"
    if way == ACROSS:
        other = other_file_system(tmp_path)
        if other is None:
            pytest.skip("there is no second file system here on which this user can write")
        out = other / "out"
    yield Tree(tmp_path, out, way, files)
    if way == ACROSS:
        shutil.rmtree(out.parent)


def kill_at_each(processes: Processes, tree: Tree, steps: Iterable[int]) -> int:
    """Kills the command at these steps, and what takes it back at the same ones; returns the last one that was there.

    Each time the same command ends the work, and --undo restores the tree, once from where the kill has left it.
    """
    last = 0
    for step in steps:
        killed = processes.run(*tree.arguments, step=step)
        tree.check()
        log = tree.log()
        if log is not None:
            processes.run("--undo", log)
        elif tree.out.exists():
            assert all(path.name.startswith("_sort-") for path in tree.out.iterdir())
        if log is not None:
            tree.check_undone()
            processes.run(*tree.arguments, step=step)
        processes.run(*tree.arguments)
        tree.check_sorted()
        log = tree.log()
        undone = not processes.run("--undo", log, step=step)
        tree.check()
        if log is not None and log.exists():
            processes.run("--undo", log)
        tree.check_undone()
        if not killed and undone:
            break
        last = step
    return last


WAYS = [*MODES, ACROSS]


@pytest.mark.parametrize("make_tree", [(way, 2) for way in WAYS], indirect=True, ids=WAYS)
def test_killed_at_some_steps(make_tree: Tree, processes: Processes) -> None:
    assert 7 <= kill_at_each(processes, make_tree, range(3, 100, 4)) < 95


@thorough
@pytest.mark.parametrize("make_tree", [(way, 5) for way in WAYS], indirect=True, ids=WAYS)
def test_killed_at_each_step(make_tree: Tree, processes: Processes) -> None:
    assert 10 <= kill_at_each(processes, make_tree, range(1, 200)) < 199


@thorough
@pytest.mark.parametrize("make_tree", [(way, 1000) for way in WAYS], indirect=True, ids=WAYS)
def test_killed_at_steps_among_a_thousand_files(make_tree: Tree, processes: Processes) -> None:
    assert kill_at_each(processes, make_tree, [*range(1, 40), *range(40, 20_000, 397)]) > 800


@thorough
@pytest.mark.parametrize("make_tree", [(way, 1000) for way in WAYS], indirect=True, ids=WAYS)
def test_killed_again_and_again(make_tree: Tree, processes: Processes) -> None:
    """A process that goes on is killed, too, so that the thousand files take hundreds of processes."""
    tree, steps = make_tree, cycle([17, 31, 23, 40, 29])
    while processes.run(*tree.arguments, step=next(steps)):
        tree.check()
    tree.check_sorted()
    while (log := tree.log()) is not None and processes.run("--undo", log, step=next(steps)):
        tree.check()
    tree.check_undone()
