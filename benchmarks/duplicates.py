"""How many altered copies `duplicates` finds, and what else it takes for copies, beside a plain cosine.

    python -m benchmarks duplicates FOLDER [--weights FILE] [--copies N] [--work DIR] [--judged FILE] [--scale N ...]

Of N photographs below FOLDER copies are made, one for each alteration of `benchmarks.copies`. For each alteration there
is a table of the photographs and these copies, as a user may have it, with a fit of its own. Recall is the share of the
copies that are found together with their original. All pairs of two different photographs, or their copies, that are
taken for copies are listed, so that a person can judge them; FILE has those that show one object, as lines
`first,second` of names of files, and they count as right. Precision is that of all pairs found in the tables of all
alterations, and that of the photographs alone. The threshold of the cosine lets as many different photographs pass.

DIR keeps the features and the copies for a further run. With --scale, time and memory of tables of so many rows are
measured instead, whose rows are mixtures of two photographs each; beyond 200,000 rows a part of the bands, from which
the time of all follows.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.copies import ALTERATIONS, write_copies
from benchmarks.machine import machine
from xcli.analysis.duplicates import find_pairs, threshold_for, whiten_vectors
from xcli.analysis.nearest import bands, pairs_above
from xcli.analysis.vectors import open_features, read_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

Pair = tuple[int, int]

_ALL_BANDS = 200_000  # rows, up to which all are compared
_SOME_BANDS = 8


def main() -> None:
    """Makes the copies, computes features, and reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--copies", type=int, default=250, help="photographs that are copied")
    parser.add_argument("--work", metavar="DIR", help="keeps features and copies")
    parser.add_argument("--judged", metavar="FILE", help="pairs of different files that show one object")
    parser.add_argument("--scale", type=int, nargs="+", metavar="N", help="measure time and memory of so many rows")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or scratch
        os.makedirs(work, exist_ok=True)
        values, paths = _features(os.path.join(work, "originals.parquet"), options.folder, options.weights)
        if options.scale:
            for rows in options.scale:
                _scale(values, rows)
            return
        copies, originals, alterations = _copies(work, paths, options)
        right = _judged(options.judged, paths)
        _report(values, copies, originals, alterations, right, paths)


def _features(table: str, source: str, weights: str) -> tuple[NDArray[np.float32], list[str]]:
    if not os.path.exists(table):
        command = [sys.executable, "-m", "xcli", "features", source, "--weights", weights, "-o", table]
        subprocess.run(command, check=True)
    matrix = read_matrix(open_features([table]))
    paths = np.array(matrix.paths.to_pylist(), object)
    return matrix.values[matrix.ok], paths[matrix.ok].tolist()


def _copies(
    work: str, paths: list[str], options: argparse.Namespace
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.str_]]:
    """Returns the vectors of the copies, the numbers of their originals, and their alterations."""
    folder, record = os.path.join(work, "copies"), os.path.join(work, "copies.json")
    if not os.path.exists(record):
        os.makedirs(folder, exist_ok=True)
        chosen = np.linspace(0, len(paths) - 1, min(options.copies, len(paths))).astype(int).tolist()
        made = write_copies([paths[row] for row in chosen], folder)
        with open(record, "w", encoding="utf-8") as file:
            json.dump([(path, paths[chosen[number]], name) for path, number, name in made], file)
    values, names = _features(os.path.join(work, "copies.parquet"), folder, options.weights)
    with open(record, encoding="utf-8") as file:
        known = {os.path.basename(copy): (original, name) for copy, original, name in json.load(file)}
    places = {path: place for place, path in enumerate(paths)}
    facts = [known[os.path.basename(name)] for name in names]
    return values, np.array([places[original] for original, _ in facts]), np.array([name for _, name in facts])


def _judged(file: str | None, paths: list[str]) -> set[Pair]:
    if file is None:
        return set()
    places = {os.path.basename(path): place for place, path in enumerate(paths)}
    with open(file, encoding="utf-8", newline="") as lines:
        pairs = [tuple(sorted(places[name] for name in row)) for row in csv.reader(lines)]
    return {(first, second) for first, second in pairs}


def _report(
    values: NDArray[np.float32],
    copies: NDArray[np.float32],
    originals: NDArray[np.int64],
    alterations: NDArray[np.str_],
    right: set[Pair],
    paths: list[str],
) -> None:
    found_own = found_right = found_wrong = 0
    others: dict[Pair, float] = {}
    print(f"{len(values):,} photographs, copies of {len(np.unique(originals))}, a table for each alteration")
    print(f"{'alteration':24} {'cosine':>8} {'whitened':>9} {'from':>6} {'different files':>16}")
    for name in ALTERATIONS:
        chosen = alterations == name
        table = np.concatenate([values, copies[chosen]])
        source = np.concatenate([np.arange(len(values)), originals[chosen]])
        rows = whiten_vectors(table)
        pairs = find_pairs(rows)
        first, second = source[pairs.first], source[pairs.second]
        own = int((first == second).sum())
        differ = np.flatnonzero(first != second)
        for place in differ:
            pair = (int(min(first[place], second[place])), int(max(first[place], second[place])))
            others[pair] = max(others.get(pair, 0.0), float(pairs.similarity[place]))
            found_right += pair in right
            found_wrong += pair not in right
        found_own += own
        plain = _cosine_recall(table, source, len(differ))
        total = int(chosen.sum())
        print(f"{name:24} {plain:8.3f} {own / total:9.3f} {threshold_for(rows.whitening):6.2f} {len(differ):16}")
    everything = found_own + found_right + found_wrong
    print(f"precision of the pairs of all these tables: {1 - found_wrong / max(everything, 1):.4f}")
    alone = find_pairs(whiten_vectors(values))
    good = sum(pair in right for pair in zip(alone.first.tolist(), alone.second.tolist(), strict=True))
    print(f"the photographs alone: {len(alone.first)} pairs, of which {good} were judged to show one object")
    for (one, other), similarity in sorted(others.items(), key=lambda item: -item[1]):
        judged = "one object" if (one, other) in right else ""
        print(f"{similarity:.3f} {paths[one]} {paths[other]} {judged}")


def _cosine_recall(table: NDArray[np.float32], source: NDArray[np.int64], differ: int) -> float:
    """Returns the share of copies that a cosine finds if so many pairs of different photographs pass."""
    unit = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    product = unit @ unit.T
    first, second = np.triu_indices(len(table), 1)
    similarity = product[first, second]
    same = source[first] == source[second]
    wrong = np.sort(similarity[~same])[::-1]
    least = wrong[min(max(differ - 1, 0), len(wrong) - 1)]
    return float((similarity[same] >= least).mean())


def _scale(values: NDArray[np.float32], rows: int) -> None:
    """Times a table of so many rows, whose vectors are in memory as those of `duplicates` are."""
    random = np.random.default_rng(0)
    begin = time.monotonic()
    fit = whiten_vectors(values).whitening
    made = np.empty((rows, fit.components), np.float16)
    for at in range(0, rows, 4096):
        size = min(4096, rows - at)
        one, other = random.integers(0, len(values), (2, size))
        share = random.uniform(0.3, 0.7, (size, 1)).astype(np.float32)
        made[at : at + size] = fit.transform(values[one] * share + values[other] * (1 - share))
    ready = time.monotonic()
    threshold = threshold_for(fit)
    total = bands(rows)
    first = 0 if rows <= _ALL_BANDS else total // 2 - _SOME_BANDS // 2
    last = total if rows <= _ALL_BANDS else first + _SOME_BANDS
    found = 0
    for number, pairs in enumerate(pairs_above(made, threshold, band=first), first):
        found += len(pairs.first)
        if number + 1 == last:
            break
    seconds = time.monotonic() - ready
    # The middle bands have half as many pairs as the first, so that they are as long as the mean.
    whole = seconds if rows <= _ALL_BANDS else seconds * total / _SOME_BANDS
    measured = "" if rows <= _ALL_BANDS else f" (from {_SOME_BANDS} bands of {total}, {seconds:.1f} s)"
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rate = rows * rows * fit.components / whole / 1e9
    print(
        f"{rows:,} rows: vectors {ready - begin:.1f} s, comparison {whole:.1f} s{measured}, {rate:.0f} GFLOP/s, "
        f"{found:,} pairs, {memory:.2f} GiB"
    )


if __name__ == "__main__":
    main()
