"""README.md and docs/: every example runs, every option in them exists, every link leads somewhere.

The blocks of a page run one after the other in one directory, those in Python in one process. A block that cannot run
here (a cluster, a download) is marked ```` ```sh no-run ````; its options are checked all the same.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import xcli
from tests.cli.conftest import clean_environment, save_photos
from tests.commandserver import CLIENT
from tests.conftest import ROOT
from tests.thorough import slow, thorough
from xcli.cli import cli
from xcli.sources.system_folders import is_system_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = ROOT / "docs"
DAILY = ("README.md",)
"""Pages whose examples run with every change, among the slow tests; the others are thorough tests."""

MAX_NOT_RUN = 13
CLASSES = ("dress", "hat", "shirt")
SHORT_TRAINING = {"EPOCHS": "2", "VIEWS": "1"}
_FENCE = re.compile(r"^```(\w+)(?: ([\w -]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TEST = re.compile(r"`([\w/]+\.py)::([\w:]+)`")
_LINK = re.compile(r"(?<!\\)\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A block of code of a page.

    Attributes:
        language: `sh` or `python`.
        text: the code.
        runs: whether it is not marked `no-run`.
        place: page and number of the line, for messages.
    """

    language: str
    text: str
    runs: bool
    place: str


def pages() -> list[Path]:
    """The README and all pages of the site that are written by hand."""
    written = [page for page in sorted(DOCS.glob("*.md")) if page.name != "cli.md"]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *written]


def blocks(page: Path) -> list[Block]:
    """The blocks of shell and Python of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found[1], found[3], found[2] is None, f"{page.name}:{text[: found.start()].count(chr(10)) + 1}")
        for found in _FENCE.finditer(text)
        if found[1] in ("sh", "python")
    ]


def with_examples() -> list[Any]:
    """The pages with blocks that run, as parameters of a test."""
    found = [page for page in pages() if page.parent != ROOT or page.name in DAILY]
    found = [page for page in found if any(block.runs for block in blocks(page))]
    return [pytest.param(page, id=page.stem, marks=[] if page.name in DAILY else thorough) for page in found]


# ---- what every page must hold ----


def test_few_blocks_are_not_run_and_marks_are_spelt_right() -> None:
    fences = [(page.name, found) for page in pages() for found in _FENCE.finditer(page.read_text(encoding="utf-8"))]
    assert {found[2] for _, found in fences} <= {None, "no-run"}
    assert {found[1] for _, found in fences} <= {"sh", "python", "sql", "yaml", "text", "console"}
    not_run = [name for name, found in fences if found[2] and name != "CONTRIBUTING.md"]
    assert len(not_run) <= MAX_NOT_RUN, not_run


def test_every_promise_on_the_page_on_security_names_tests_that_are_there() -> None:
    text = (DOCS / "security.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| input |", "| ---"))]
    assert len(rows) > 30
    assert not [row for row in rows if not _TEST.search(row.split(" | ")[-1])]
    named = set(_TEST.findall(text))
    assert not [name for name in re.findall(r"`([\w/]+\.py)`", text) if name not in {file for file, _ in named}]
    for file in sorted({file for file, _ in named}):
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        there |= {
            f"{one.name}::{node.name}" for one in classes for node in one.body if isinstance(node, ast.FunctionDef)
        }
        assert not {test for name, test in named if name == file} - there, file


def test_tests_that_the_page_on_data_names_are_there() -> None:
    names = re.findall(r"`([\w/]+\.py)`", (DOCS / "your-data.md").read_text(encoding="utf-8"))
    assert len(names) > 10
    assert not [name for name in names if not (ROOT / "tests" / name).is_file()]


def test_the_system_folders_of_the_page_on_data_are_those_of_the_program() -> None:
    text = (DOCS / "your-data.md").read_text(encoding="utf-8")
    listed = re.search(r"folders of their own:\n(.*?), and\nsome more", text, re.DOTALL)
    assert listed is not None
    names = re.findall(r"`([^`]+)`", listed[1])
    assert len(names) > 10
    assert not [name for name in names if not is_system_folder(name.encode())]


def test_the_rooms_in_the_picture_and_the_table_are_those_of_the_contract() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = [set(layer.split(" | ")) for layer in contract["contracts"][0]["layers"]]
    picture = re.search(r"```text\n( +cli .*?)```", text, re.DOTALL)
    assert picture is not None
    assert [set(line.strip().split("    ")[0].split()) for line in picture[1].splitlines()] == layers
    rooms = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", text, re.MULTILINE)
    assert sorted(rooms) == sorted(set.union(*layers))


def test_the_readme_is_short_and_names_no_package_index() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 250
    for page in pages():
        assert not re.search(r"pip install '?xception", page.read_text(encoding="utf-8")), page.name


def commands(block: Block) -> Iterator[list[str]]:
    """The arguments of each `xception` in a block of shell, up to the next pipe, redirection or separator."""
    for line in block.text.replace("\\\n", " ").splitlines():
        for found in re.finditer(r"\bxception ", line):
            words = shlex.shlex(line[found.end() :].split(" #")[0], posix=True, punctuation_chars="|<>;&()")
            words.whitespace_split, words.commenters = True, ""
            try:
                listed = list(words)
            except ValueError:  # within quotes of another command, which end here
                listed = line[found.end() :].split("'")[0].split()
            end = next((number for number, word in enumerate(listed) if set(word) <= set("|<>;&()")), len(listed))
            yield listed[:end]


def test_every_option_in_the_examples_exists() -> None:
    seen = 0
    for page in pages():
        for block in (one for one in blocks(page) if one.language == "sh"):
            for arguments in commands(block):
                if "--version" in arguments or "--help" in arguments or arguments[0].isupper():
                    continue
                check_options([re.sub(r"\$\{?\w+\}?|\$\(.*?\)", "1", one) for one in arguments])
                seen += 1
    assert seen > 60


def check_options(arguments: list[str]) -> None:
    """Parses the arguments of `xception`, and runs nothing."""
    with cli.make_context("xception", arguments) as ctx:
        name, command, rest = cli.resolve_command(ctx, [*ctx._protected_args, *ctx.args])
        assert command is not None, arguments
        command.make_context(name, rest, parent=ctx)


def test_the_demo_says_what_it_does_and_ends_with_three_commands() -> None:
    printed = subprocess.run(["make", "-n", "demo", "VENV=.venv"], cwd=ROOT, capture_output=True, text=True, check=True)
    run, then = printed.stdout.split("Next, try")
    assert "echo 'Classifying " in run
    assert len(re.findall(r"@echo '(Installing|Fetching) ", (ROOT / "Makefile").read_text(encoding="utf-8"))) == 2
    listed = re.findall(r"'  \.venv/bin/xception (.*?)'", then)
    assert len(listed) == 3
    for line in listed:
        check_options(line.split())


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_link_within_the_repository_leads_somewhere() -> None:
    for page in [*pages(), ROOT / "CHANGELOG.md"]:
        for target in _LINK.findall(page.read_text(encoding="utf-8")):
            name, _, anchor = target.partition("#")
            if "://" in target:
                continue
            found = page.parent / name if name else page
            assert found.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(found), f"{page.name}: {target}"


# ---- running them ----


class Server:
    """A running `tests.commandserver`, and the environment in which examples run.

    Args:
        folder: for its files.
        weights: an HDF5 file that stands for the ImageNet weights.
    """

    def __init__(self, folder: Path, weights: str) -> None:
        self.address = str(folder / "socket")
        program = folder / "bin" / "xception"
        program.parent.mkdir()
        program.write_text(CLIENT.format(python=sys.executable, address=self.address), encoding="utf-8")
        program.chmod(0o755)
        (folder / "weights").mkdir()
        (folder / "weights" / "xception_weights_tf_dim_ordering_tf_kernels.h5").hardlink_to(weights)
        self.environment = clean_environment(
            PATH=f"{program.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            XCEPTION_WEIGHTS_DIR=str(folder / "weights"),
            XDG_CACHE_HOME=str(folder / "cache"),
            **{f"XCEPTION_FINETUNE_{name}": value for name, value in SHORT_TRAINING.items()},
        )
        command = [sys.executable, "-m", "tests.commandserver", self.address, weights]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
        with self.process.stdout as stdout:
            assert stdout.readline() == b"ready\n"

    def shell(self, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Runs a script with bash; it ends at the first command that fails, unless that is with 4: failed images."""
        preamble = "set -u -o pipefail; trap 'code=$?; [ $code -eq 4 ] || exit $code' ERR\n"
        return subprocess.run(
            ["bash", "-c", preamble + script],
            cwd=folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


class Session:
    """A Python process in which pieces of code run, one after the other."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(server.address)
        with open(os.devnull, "r+b") as null:
            socket.send_fds(self._socket, [b" "], [null.fileno()] * 3)
        self._file = self._socket.makefile("rw", encoding="utf-8")
        self._send({"cwd": str(folder), "environment": server.environment})

    def _send(self, value: Any) -> None:
        self._file.write(json.dumps(value) + "\n")
        self._file.flush()

    def run(self, code: str) -> str:
        """The traceback, or nothing."""
        self._send(code)
        return str(json.loads(self._file.readline()))

    def close(self) -> None:
        """Ends the process."""
        self._file.close()
        self._socket.close()


@pytest.fixture(scope="module")
def server(large_files: Path, legacy_weights_file: str) -> Iterator[Server]:
    folder = large_files / "documentation"
    folder.mkdir()
    running = Server(folder, legacy_weights_file)
    yield running
    running.process.terminate()
    running.process.wait()


@pytest.fixture(scope="module")
def materials(server: Server, large_files: Path) -> Path:
    """A directory with everything that examples begin with."""
    folder = large_files / "documentation" / "materials"
    numbered = [f"{number:03}.jpg" for number in range(1, 6)]
    save_photos(folder / "photos", [*numbered, "cat.jpg"])
    for name in ("albums/a", "albums/b", "damaged"):
        save_photos(folder / name, numbered[:2])
    (folder / "damaged" / "002.jpg").write_bytes(b"")
    with tarfile.open(folder / "album.tar", "w") as archive:
        archive.add(folder / "albums" / "a", arcname="")
    for data in ("clothes", "clothes-test"):
        for number, name in enumerate(CLASSES):
            save_photos(folder / data / name, [f"{place:04}.jpg" for place in range(1, 5)], (80 + number, 90))
    return folder


@pytest.fixture(scope="module")
def model(server: Server, materials: Path) -> Path:
    """What finetune made of the clothes."""
    done = server.shell("xception finetune clothes -o clothes-model --unfreeze none", materials)
    assert done.returncode == 0, done
    return materials / "clothes-model"


@slow
@pytest.mark.parametrize("page", with_examples())
def test_examples_run(
    page: Path, server: Server, materials: Path, scratch: Path, request: pytest.FixtureRequest
) -> None:
    folder = scratch / "examples"
    shutil.copytree(materials, folder, ignore=shutil.ignore_patterns("clothes-model"))
    text = page.read_text(encoding="utf-8")
    if "clothes-model" in text and "-o clothes-model" not in text:
        shutil.copytree(request.getfixturevalue("model"), folder / "clothes-model")
    session = Session(server, folder)
    request.addfinalizer(session.close)
    for block in blocks(page):
        if not block.runs:
            continue
        if block.language == "sh":
            done = server.shell(block.text, folder)
            assert done.returncode in (0, 4), f"{block.place}: {done.returncode}\n{done.stdout}{done.stderr}"
        elif hasattr(xcli, "features") or "xcli" not in block.text:
            failure = session.run(block.text)
            assert not failure, f"{block.place}:\n{failure}"
