"""Writes the shell completions, the man pages and docs/cli.md from the command tree.

    python tools/generate.py            writes what has changed, and removes man pages of commands that are gone
    python tools/generate.py --check    writes nothing; exits 1 and shows what has drifted

The result depends on the command tree alone: not on the terminal, the environment, the date or this machine.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import completions, manpages
from tools.reference import reference
from tools.tree import GenerateError, read_program
from xcli.cli import PROGRAM, cli

if TYPE_CHECKING:
    from collections.abc import Sequence

    import click

ROOT = Path(__file__).resolve().parent.parent
DIFF_LINES = 20


def outputs(group: click.Group, root: Path) -> dict[str, str | None]:
    """What should stand in each generated file below `root`, by its name; None where it should be gone."""
    program = read_program(group)
    texts: dict[str, str | None] = {
        f"completions/{PROGRAM}.bash": completions.bash(program),
        f"completions/_{PROGRAM}": completions.zsh(program),
        f"completions/{PROGRAM}.fish": completions.fish(program),
        "docs/cli.md": reference(group),
    }
    texts |= {f"man/{command.page_name}.1": manpages.page(program, command) for command in program.all}
    for page in sorted((root / "man").glob(f"{PROGRAM}-*.1")):
        texts.setdefault(f"man/{page.name}", None)
    return texts


def drift(texts: dict[str, str | None], root: Path) -> dict[str, str]:
    """A short description of the difference for each file that is not as it should be."""
    found = {}
    for name, wanted in texts.items():
        present = _read(root / name)
        if present == (None if wanted is None else wanted.encode()):
            continue
        if present is None or wanted is None:
            found[name] = "missing" if present is None else "stale: its command is gone"
            continue
        before = present.decode(errors="replace").splitlines()
        diff = list(difflib.unified_diff(before, wanted.splitlines(), lineterm="", n=1))[2:]
        more = [f"... and {len(diff) - DIFF_LINES} lines more"] if len(diff) > DIFF_LINES else []
        found[name] = "\n".join(["drifted" if diff else "drifted in its line ends", *diff[:DIFF_LINES], *more])
    return found


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _write(path: Path, text: str | None) -> None:
    if text is None:
        path.unlink()
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 for drift under --check, 2 where nothing can be generated."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file has drifted")
    parser.add_argument("--root", type=Path, default=ROOT, help="work on the files below this directory")
    options = parser.parse_args(arguments)
    try:
        texts = outputs(cli, options.root)
    except GenerateError as error:
        print(f"generate: {error}", file=sys.stderr)
        return 2
    changed = drift(texts, options.root)
    for name, what in changed.items():
        if options.check:
            print(f"{name}: {what}")
        else:
            _write(options.root / name, texts[name])
            print(f"{name}: {'removed' if texts[name] is None else 'written'}")
    if options.check and changed:
        print("\nrun: python tools/generate.py")
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
