"""How many wrong labels `audit` finds: some labels are changed at random, and it is asked which.

    python -m benchmarks labels FOLDER|TABLE [--weights FILE] [--shares P ...] [--seeds N]

FOLDER holds class folders, of which the features are computed first; TABLE is a table of features, whose classes are
the names of the images' folders. A share of the labels is changed to other ones, all of which are as probable. Of the
k changed labels are reported AUROC: the chance that one ranks before a label that was not changed. The share of the
first k that was changed. The share of them that is among the first 2k. The share of the suggestions for them that is
the label before. And what the limits of `audit` make of it: precision, recall, and number of the findings. Labels that
were wrong before count as right ones; so the figures are a little too low.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.machine import machine
from xcli.analysis.labels import Judged, choose_sample, fit_judges
from xcli.analysis.vectors import open_features, read_matrix
from xcli.analysis.whitening import Whitening, fit_whitening

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIGURES = ("AUROC", "right of the first k", "found in 2k", "suggestion right", "precision", "recall", "findings")
BEFORE = ("0.985", "0.735", "0.947", "0.894", "", "", "")
"""Of a logistic regression alone, measured once on 3,781 photographs of clothes, of which 5 % had other labels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="FOLDER|TABLE")
    parser.add_argument("--weights", default="imagenet", help="of the network, for a FOLDER")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05], help="of the labels that are changed")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    about = machine()
    print(f"{about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB, load {about['load']}")
    values, labels, names, whitening = read(options.source, options.weights)
    print(f"{len(values):,} images of {len(names)} classes\n")
    print(f"| changed, seed | {' | '.join(FIGURES)} | seconds |")
    print("| --- |" + " --- |" * (len(FIGURES) + 1))
    print(f"| 5 %, regression alone | {' | '.join(BEFORE)} | |")
    for share in options.shares:
        for seed in range(options.seeds):
            given = changed(labels, share, seed)
            begin = time.monotonic()
            judged = judge(values, given, whitening)
            seconds = time.monotonic() - begin
            figures = score(judged, given, labels)
            shown = " | ".join(f"{one:.3f}" if isinstance(one, float) else f"{one:,}" for one in figures)
            print(f"| {share:.0%}, {seed} | {shown} | {seconds:.1f} |", flush=True)


def read(source: str, weights: str) -> tuple[NDArray[np.float32], NDArray[np.int64], list[str], Whitening]:
    """Returns features, numbers and names of their classes, and the fit of the features."""
    with tempfile.TemporaryDirectory() as folder:
        table = source
        if os.path.isdir(source):
            table = os.path.join(folder, "features.parquet")
            command = [sys.executable, "-m", "xcli", "features", source, "--weights", weights, "-o", table]
            subprocess.run(command, check=True)
        tables = open_features([table])
        matrix = read_matrix(tables)
        whitening = fit_whitening(tables.blocks())
    paths = [path for path, ok in zip(matrix.paths.to_pylist(), matrix.ok, strict=True) if ok]
    names, labels = np.unique([os.path.basename(os.path.dirname(path)) for path in paths], return_inverse=True)
    return matrix.values[matrix.ok], labels.astype(np.int64), names.tolist(), whitening


def changed(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """Returns the labels with a share of them changed."""
    random, made = np.random.default_rng(seed), labels.copy()
    rows = random.choice(len(labels), int(share * len(labels)), replace=False)
    made[rows] = (made[rows] + random.integers(1, labels.max() + 1, len(rows))) % (labels.max() + 1)
    return made


def judge(values: NDArray[np.float32], given: NDArray[np.int64], whitening: Whitening) -> Judged:
    """Judges all labels."""
    chosen = choose_sample(given)
    own = np.full(len(given), -1, np.int64)
    own[chosen] = np.arange(len(chosen))
    return fit_judges(values[chosen], given[chosen], whitening).judge(values, given, own)


def score(judged: Judged, given: NDArray[np.int64], true: NDArray[np.int64]) -> list[Any]:
    """Returns the figures."""
    from sklearn.metrics import roc_auc_score

    is_changed, found = given != true, judged.wrong
    count, order = int(is_changed.sum()), np.argsort(judged.given, kind="stable")
    return [
        float(roc_auc_score(is_changed, -judged.given)),
        float(is_changed[order[:count]].mean()),
        float(is_changed[order[: 2 * count]].sum() / count),
        float((judged.suggested == true)[is_changed].mean()),
        float(is_changed[found].mean()),
        float(found[is_changed].mean()),
        int(found.sum()),
    ]


if __name__ == "__main__":
    main()
