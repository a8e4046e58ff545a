"""Runs that one version of the program has left unfinished, for another to go on with."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.record.compare import difference
from tests.record.inputs import make_inputs
from tests.record.masks import Masks, describe_files, digest
from tests.record.runner import UNRECORDED, Program, Run, copy_input, run_step
from tests.record.table_cases import MORE, ONE, held
from tests.record.training_cases import BLOCKS, DIGESTS, HEAD, held_training

TABLES = ("x.parquet", "x.npy", "x.csv", "x/")
"""Outputs of `features` that are left unfinished."""

TABLE = f"features - {ONE} -o"

CONTINUED = (*(Run(f"{TABLE} {name}", stdin=MORE) for name in TABLES), Run(BLOCKS))
"""The commands that were killed, once more and to the end."""

FINISHED = (
    Run(HEAD.replace("-o RUN", "-o DONE")),
    Run(f"{TABLE} done.parquet", stdin=MORE),
    Run(f"{TABLE} done/", stdin=MORE),
)
"""Commands that were finished, and are given once more."""

USED = (
    Run("verify done.parquet -", stdin=MORE),
    Run("verify done/ -", stdin=MORE),
    Run("classify in/photos --model DONE --batch-size 4 --workers 2 --device cpu -o scores.csv"),
)
"""Commands that read what was finished."""


def keep_state(program: Program, folder: Path) -> int:
    """Fills a directory that is not there yet.

    `inputs` holds the inputs; `unfinished` what killed runs have left, beside outputs that were finished;
    `undisturbed` the outputs of runs that nobody killed.
    """
    folder.mkdir(parents=True)
    folder = folder.resolve()
    make_inputs(folder / "inputs")
    masks = _masks(folder, program)
    for name in ("unfinished", "undisturbed"):
        (folder / name).mkdir()
        (folder / name / "in").symlink_to("../inputs")
    for step in CONTINUED:
        run_step(step, program, folder / "undisturbed", masks)
    for step in (*FINISHED, *USED):
        run_step(step, program, folder / "undisturbed", masks)
    for step in FINISHED:
        run_step(step, program, folder / "unfinished", masks)
    for step in (*map(held, TABLES), held_training()):
        entry = run_step(step, program, folder / "unfinished", masks)[0]
        print(f"exit {entry['exit']}: {entry['command']}")
        if entry["exit"] != -9:
            print(entry["err"]["text"])
            return 1
    for name in ("unfinished", "undisturbed"):
        shutil.rmtree(folder / name / ".home", ignore_errors=True)
    return 0


def continue_state(program: Program, folder: Path) -> int:
    """Goes on in a copy of that directory, and compares with what was never disturbed."""
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="record-") as name:
        root = Path(name).resolve()
        for part in ("inputs", "unfinished"):
            _copy_tree(folder / part, root / part)
        masks = _masks(root, program)
        for step in (*CONTINUED, *FINISHED, *USED):
            entry = run_step(step, program, root / "unfinished", masks)[0]
            print(f"exit {entry['exit']}: {entry['command']}")
            print("".join(f"    {line}\n" for line in entry["err"]["text"].splitlines()), end="")
            wrong += entry["exit"] not in (0, 4)
        found, wanted = (_content(place, masks) for place in (root / "unfinished", folder / "undisturbed"))
        for file in sorted(found.keys() | wanted.keys()):
            if found.get(file) != wanted.get(file):
                wrong += 1
                print(*difference(file, wanted.get(file), found.get(file)), sep="", end="")
            else:
                print(f"as undisturbed: {file}")
    print(f"{wrong} differences or refusals")
    return wrong > 0


def _content(place: Path, masks: Masks) -> dict[str, Any]:
    """All files; but of `.meta.json` not how many rows came from before, and of parts not where they were cut."""
    files = describe_files(place, masks, without=UNRECORDED)
    for name, entry in list(files.items()):
        meta = entry.get("json")
        if isinstance(meta, dict) and isinstance(meta.get("images"), dict):
            meta["images"].pop("resumed", None)
        if "/part-" in name:
            del files[name]
    for folder in ("x", "done"):
        parts = [pq.read_table(path) for path in sorted((place / folder).glob("part-*.parquet"))]
        rows = "".join(f"{row}\n" for part in parts for row in part.to_pylist())
        files[f"{folder}/, its rows"] = {"sha256": digest(rows.encode()), "count": rows.count("\n")}
    return files


def _masks(root: Path, program: Program) -> Masks:
    return Masks({str(root): "<ROOT>", str(program.checkout): "<CHECKOUT>"}, (DIGESTS,))


def _copy_tree(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True, copy_function=copy_input)
