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

from click.shell_completion import get_completion_class

from tools.reference import contexts, man_page, page_name, reference
from xcli.cli import PROGRAM, cli
from xcli.cli.completion import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import click

ROOT = Path(__file__).resolve().parent.parent
DIFF_LINES = 20


def outputs(group: click.Group, root: Path) -> dict[str, str | None]:
    """What should stand in each generated file below `root`, by its name; None where it should be gone."""
    texts: dict[str, str | None] = {"docs/cli.md": reference(group)}
    for shell, name in (("bash", f"{PROGRAM}.bash"), ("zsh", f"_{PROGRAM}"), ("fish", f"{PROGRAM}.fish")):
        script = get_completion_class(shell)
        assert script is not None
        texts[f"completions/{name}"] = script(group, {}, PROGRAM, VARIABLE).source()
    texts |= {f"man/{page_name(ctx)}.1": man_page(ctx) for ctx in contexts(group)}
    for page in sorted((root / "man").glob(f"{PROGRAM}-*.1")):
        texts.setdefault(f"man/{page.name}", None)
    return texts


def difference(present: bytes | None, wanted: bytes | None) -> str:
    """A short description of how a file is not as it should be."""
    if present is None or wanted is None:
        return "missing" if present is None else "stale: its command is gone"
    before, after = (text.decode(errors="replace").splitlines() for text in (present, wanted))
    diff = list(difflib.unified_diff(before, after, lineterm="", n=1))[2:]
    more = [f"... and {len(diff) - DIFF_LINES} lines more"] if len(diff) > DIFF_LINES else []
    return "\n".join(["drifted" if diff else "drifted in its line ends", *diff[:DIFF_LINES], *more])


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 for drift under --check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file has drifted")
    parser.add_argument("--root", type=Path, default=ROOT, help="work on the files below this directory")
    options = parser.parse_args(arguments)
    drifted = False
    for name, text in outputs(cli, options.root).items():
        path, wanted = options.root / name, None if text is None else text.encode()
        present = path.read_bytes() if path.exists() else None
        if present == wanted:
            continue
        drifted = True
        if options.check:
            print(f"{name}: {difference(present, wanted)}")
        elif wanted is None:
            path.unlink()
            print(f"{name}: removed")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(wanted)
            print(f"{name}: written")
    if options.check and drifted:
        print("\nrun: python tools/generate.py")
    return 1 if options.check and drifted else 0


if __name__ == "__main__":
    sys.exit(main())
