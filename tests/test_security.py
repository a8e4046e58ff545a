"""What holds for the package as a whole: nothing in it runs code from data; nothing it shows drives a terminal."""

from __future__ import annotations

import ast
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from rich.console import Console

from xcli.cli import display
from xcli.cli.progress import Progress
from xcli.core.errors import ImageError
from xcli.core.records import ImageRef
from xcli.tables.csv import csv_fields, escape_formula_texts
from xcli.tables.rows import classify_batch
from xcli.tables.schema import classify_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent

MODULES = frozenset(
    "pickle _pickle cPickle dill cloudpickle joblib marshal shelve subprocess pty code codeop runpy yaml "
    "multiprocessing imp commands".split()
)
BUILTINS = frozenset(("eval", "exec", "compile", "__import__", "breakpoint"))
OF_OS = re.compile(r"system|popen|startfile|posix_spawnp?|exec[lv]p?e?|spawn[lv]p?e?|fork|forkpty")
UNSAFE_ARGUMENTS = {"shell": True, "allow_pickle": True, "safe_mode": False}
METHODS = frozenset(("enable_unsafe_deserialization", "unsafe_load", "full_load", "extractall", "read_pickle"))


def uses(tree: ast.AST) -> Iterator[str]:
    """Everything in a module by which data could become code, as `what:line`."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").partition(".")[0]
            names = [module] if module in MODULES else []
            names += [alias.name for alias in node.names if module == "os" and OF_OS.fullmatch(alias.name)]
            names += [alias.name for alias in node.names if module == "builtins" and alias.name in BUILTINS]
        elif isinstance(node, ast.Name) and node.id in BUILTINS:
            names = [node.id]
        elif isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if (owner == "os" and OF_OS.fullmatch(node.attr)) or (owner == "builtins" and node.attr in BUILTINS):
                names = [f"{owner}.{node.attr}"]
            elif node.attr in METHODS:
                names = [node.attr]
        elif isinstance(node, ast.keyword) and node.arg in UNSAFE_ARGUMENTS:
            constant = node.value.value if isinstance(node.value, ast.Constant) else None
            # Anything but the harmless constant: a variable could be either.
            names = [node.arg] if constant is not (not UNSAFE_ARGUMENTS[node.arg]) else []
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "import_module":
            # Of this package only, whatever the rest of the name.
            first = node.args[0]
            literal = first.values[0] if isinstance(first, ast.JoinedStr) else first
            if not (isinstance(literal, ast.Constant) and str(literal.value).startswith("xcli.")):
                names = ["import_module"]
        yield from (f"{name}:{node.lineno}" for name in names)  # type: ignore[attr-defined]


ALLOWED = {"decoder_server": {"subprocess"}, "decoder_process": {"os.fork"}}
"""What the processes that decode need; they run nothing but this program, and take no name from data."""


@pytest.mark.parametrize("path", sorted((ROOT / "xcli").rglob("*.py")), ids=lambda path: path.stem)
def test_no_shell_no_pickle_no_eval(path: Path) -> None:
    found = {use.partition(":")[0] for use in uses(ast.parse(path.read_text(encoding="utf-8")))}
    assert found == ALLOWED.get(path.stem, set())


@pytest.mark.parametrize(
    "code",
    [
        "eval('1')",
        "run = exec",
        "import pickle",
        "import os, subprocess",
        "from pickle import loads",
        "from os import system",
        "os.system('ls')",
        "os.execvp('ls', [])",
        "builtins.eval",
        "numpy.load(path, allow_pickle=True)",
        "numpy.load(path, allow_pickle=chosen)",
        "run(x, shell=True)",
        "load_model(x, safe_mode=False)",
        "keras.config.enable_unsafe_deserialization()",
        "tar.extractall()",
        "import yaml",
        "import_module(name)",
    ],
)
def test_the_search_finds_what_it_looks_for(code: str) -> None:
    assert len(list(uses(ast.parse(code)))) == 1


def test_the_search_finds_nothing_else() -> None:
    for code in ("re.compile('x')", "load_model(x, safe_mode=True)", "import_module(f'xcli.{name}')", "model.eval()"):
        assert not list(uses(ast.parse(code)))


# ---- the terminal ----

HOSTILE = "a\x1b]0;owned\x07\x1b[2J\x9b31m\r\n\u202eb\u2066\u200e\u200f\u061c\u200b\ufeff\U000e0041"
NOT_SHOWN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)


def test_names_and_labels_in_the_table_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    written = io.StringIO()
    monkeypatch.setattr(display, "open_console", lambda: Console(file=written, width=200, force_terminal=False))
    schema = classify_schema(1, "name", ())
    error = ImageError("corrupt", HOSTILE)
    refs = [ImageRef(HOSTILE, "x", b"x"), ImageRef(HOSTILE, "y", b"y")]
    scores = np.ones((2, 1), np.float32)
    batch = classify_batch(schema, refs, [None, error], scores, [HOSTILE])
    display.TerminalTable(schema, Progress("none")).write(batch)
    text = written.getvalue()
    assert len(text.splitlines()) == 3, "a heading and two rows"
    assert "owned" in text
    assert not NOT_SHOWN.search(text)


# ---- formulas in spreadsheets ----


def test_formulas_are_guarded() -> None:
    cells = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\r=x", "plain", "a=b", "", None, "'x", "=é", '="a"', "\n=x"]
    guarded = [
        "'=1+1",
        "'+1",
        "'-1",
        "'@SUM(A1)",
        "'\tx",
        "'\r=x",
        "plain",
        "a=b",
        "",
        None,
        "'x",
        "'=é",
        '\'="a"',
        "\n=x",
    ]
    for kind in (pa.string(), pa.large_string()):
        assert escape_formula_texts(pa.array(cells, kind)).to_pylist() == guarded
    assert escape_formula_texts(pa.array(cells).dictionary_encode()).to_pylist() == guarded
    assert csv_fields(escape_formula_texts(pa.array(['="a",b']))).to_pylist() == ['"\'=""a"",b"']


def test_numbers_are_no_formulas() -> None:
    for column in (pa.array([-1.5, None]), pa.array([-3]), pa.array([True])):
        assert escape_formula_texts(column) is column
