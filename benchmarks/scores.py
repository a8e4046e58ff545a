"""What it costs to score a table of features with the head of a model, beside reading it:

    python -m benchmarks.scores [FOLDER] [--rows N] [--dtype T] [--format F] [--classes C] [--repeats N]
    python -m benchmarks.scores --table TABLE --model RUN

FOLDER gets the table, which is removed at the end; a million rows of float16 are 4 GB. The head is a random one over a
network with random weights: how long it takes does not depend on the numbers. The second form tells by how much the
scores of a table in float32 change if its features are rounded to float16.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np

from benchmarks.search import READ, print_runs, table_parser, write_table

SETTINGS = {"precision": "float32"}


def main() -> None:
    """Writes the bundle and the table, reads the table, and scores it by the command."""
    parser = table_parser(__doc__)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--table", help="a table of features in float32")
    parser.add_argument("--model", help="a directory that finetune made")
    options = parser.parse_args()
    if options.table is not None and options.model is not None:
        print(rounding(options.table, options.model))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        bundle, table = os.path.join(folder, "RUN"), os.path.join(folder, f"table.{options.format}")
        write_table(table, options.rows, options.dtype, write_head(bundle, options.classes, options.dtype))
        score = ["-m", "xcli", "-q", "classify", "--from-features", table, "--model", bundle, "--overwrite"]
        runs = {
            "read": ["-c", READ, table],
            "scored to Parquet": [*score, "-o", os.path.join(folder, "scores.parquet")],
            "scored to CSV": [*score, "-o", os.path.join(folder, "scores.csv")],
        }
        about = f"{options.format}, {options.dtype}, {options.classes} classes"
        print_runs(options, {f"{about}, {what}": command for what, command in runs.items()})


def rounding(table: str, model: str) -> str:
    """Returns what float16 changes in the scores of a table."""
    from xcli.analysis.vectors import open_features
    from xcli.models.head import read_head

    head, differences, changed = read_head(model), [np.zeros(0)], 0
    for block in open_features([table]).blocks():
        values = block.values[block.ok]
        exact, rounded = head.scores(values), head.scores(values.astype(np.float16))
        differences.append(np.abs(exact - rounded).max(axis=1))
        changed += int((exact.argmax(axis=1) != rounded.argmax(axis=1)).sum())
    found = np.concatenate(differences)
    shown = f"{found.max():.1e} at most, {np.median(found):.1e} in the median"
    return (
        f"{len(found):,} rows: float16 changes the score that changes most by {shown}; {changed:,} other best classes"
    )


def write_head(folder: str, classes: int, dtype: str) -> dict[str, Any]:
    """Writes a bundle as finetune does, and returns the provenance of features that its network would compute."""
    from xcli.images.preprocessing import Preprocessing
    from xcli.models.backbone import backbone_digest
    from xcli.models.bundle import build_model, write_bundle
    from xcli.models.hdf5_weights import random_weights

    os.mkdir(folder)
    weights, preprocessing = random_weights(include_top=True, classes=classes, seed=0), Preprocessing()
    model = build_model(weights, classes, preprocessing.size, (1 / 127.5, -1.0), 0.0)
    names = [f"class {number}" for number in range(classes)]
    write_bundle(folder, model, names, preprocessing, {"settings": SETTINGS})
    network = {"name": "random", "sha256": "0" * 64, "input_range": "xception", "backbone": backbone_digest(weights)}
    return {
        "tool": {"name": "xception-cli", "version": "0", "command": "features"},
        "versions": {},
        "model": network,
        "preprocessing": preprocessing.as_dict(),
        **SETTINGS,
        "device": "CPU",
        "batch_size": 16,
        "options": {"pooling": "avg", "layer": None, "dtype": dtype, "normalize": False},
    }


if __name__ == "__main__":
    main()
