"""How many altered copies `duplicates` finds, and what else it takes for copies, beside a plain cosine.

    python -m benchmarks duplicates FOLDER [--weights FILE] [--copies N] [--work DIR] [--judged FILE]
    python -m benchmarks duplicates FOLDER [--weights FILE] [--work DIR] --scale N ... [--approximate] [--parts K]

Of N photographs below FOLDER copies are made, one for each alteration of `benchmarks.copies`. For each alteration there
is a table of the photographs and these copies, as a user may have it, with a fit of its own. Recall is the share of the
copies that are found together with their original. All pairs of two different photographs, or their copies, that are
taken for copies are listed, so that a person can judge them; FILE has those that show one object, as lines
`first,second` of names of files, and they count as right. Precision is that of all pairs found, with the pairs of
different files of every table, and with each of these counted once. The threshold of the cosine lets as many different
files pass.

DIR keeps the features and the copies for a further run. With --scale, time and memory of tables of so many rows are
measured instead, whose rows are mixtures of two photographs each, so that nearly all are copies by the threshold; with
--parts, of K photographs, with the spread of these, and each twentieth row is a copy of another one. Beyond 200,000
rows all are compared for a minute, from whose rate the time follows. With --approximate not every pair is compared;
that is measured to its end, with its recall.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.copies import ALTERATIONS, write_copies
from benchmarks.machine import machine
from xcli.analysis.duplicates import find_pairs, threshold_for, whiten_vectors
from xcli.analysis.vectors import open_features, read_matrix
from xcli.tables.formats import create_table
from xcli.tables.rows import features_array
from xcli.tables.schema import FIRST_RESULT, features_schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

Pair = tuple[int, int]

_COPIES = 20  # one row in so many
_ALL_ROWS = 200_000  # up to which all are compared


def main() -> None:
    """Makes the copies, computes features, and reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--copies", type=int, default=250, help="photographs that are copied")
    parser.add_argument("--work", metavar="DIR", help="keeps features and copies")
    parser.add_argument("--judged", metavar="FILE", help="pairs of different files that show one object")
    parser.add_argument("--scale", type=int, nargs="+", metavar="N", help="measure time and memory of so many rows")
    parser.add_argument("--parts", type=int, default=2, help="with --scale: photographs of which a row is mixed")
    parser.add_argument("--approximate", action="store_true", help="with --scale: as the option of the command")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or scratch
        os.makedirs(work, exist_ok=True)
        values, paths = _features(os.path.join(work, "originals.parquet"), options.folder, options.weights)
        if options.scale:
            for rows in options.scale:
                _scale(values, rows, scratch, parts=options.parts, approximate=options.approximate)
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
    wrong = len(set(others) - right)
    once = found_own + len(others)
    print(f"precision, each table by itself: {1 - found_wrong / max(everything, 1):.4f}")
    print(f"precision, each pair of different files counted once: {1 - wrong / max(once, 1):.4f} ({wrong} are wrong)")
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


def _scale(values: NDArray[np.float32], rows: int, folder: str, *, parts: int, approximate: bool) -> None:
    """Times the command for a table of so many rows in float16; of very many rows, a part of the pairs, if of all."""
    table, answer = os.path.join(folder, "table.parquet"), os.path.join(folder, "answer.csv")
    _write_table(table, values, rows, parts)
    command = [sys.executable, "-m", "xcli", "duplicates", table, "-o", answer, "--progress", "json"]
    command += ["--approximate"] if approximate else []
    begin = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    read, rate, stopped = 0.0, 0.0, False
    for line in process.stderr:
        told = json.loads(line) if line.startswith("{") else {}
        if "pairs_per_second" not in told:
            continue
        if told["event"] == "start":
            read = time.monotonic() - begin
        rate = told["pairs_per_second"] or rate
        if told["event"] == "progress" and rows > _ALL_ROWS and not stopped:
            stopped = True
            process.send_signal(signal.SIGINT)
    _, status, usage = os.wait4(process.pid, 0)
    whole = time.monotonic() - begin if not stopped else read + rows * (rows - 1) / 2 / rate
    note = f", from {rate:,.0f} pairs a second of the first minute" if stopped else ""
    assert stopped or os.waitstatus_to_exitcode(status) == 0, command
    memory, spent = usage.ru_maxrss / 2**20, usage.ru_utime + usage.ru_stime
    note += f", {spent:,.0f} s of a processor; {memory:.2f} GiB"
    note = f", of which reading and fit {read:.1f} s{note}" if read else note
    print(f"{rows:,} rows: {whole:,.1f} s{note}", flush=True)
    if approximate:
        with open(answer + ".meta.json", encoding="utf-8") as file:
            told = json.load(file)
        print({name: told[name] for name in ("recall", "groups", "copies", "threshold")}, flush=True)
    for name in os.listdir(folder):
        if name.startswith(("table.", "answer.")) and os.path.isfile(os.path.join(folder, name)):
            os.unlink(os.path.join(folder, name))


def _mixed(values: NDArray[np.float32], size: int, parts: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Returns rows that are mixtures of so many of these vectors; of more than two, a twentieth are copies."""
    if parts == 2:
        one, other = random.integers(0, len(values), (2, size))
        share = random.uniform(0.3, 0.7, (size, 1)).astype(np.float32)
        return values[one] * share + values[other] * (1 - share)
    centre = values.mean(axis=0)
    made = sum((values[random.integers(0, len(values), size)] - centre for _ in range(parts)), np.zeros_like(centre))
    copies = random.choice(size, size // _COPIES, replace=False)
    others = random.choice(np.setdiff1d(np.arange(size), copies), len(copies))
    cosine = random.uniform(0.6, 1, (len(copies), 1)).astype(np.float32)
    made[copies] = cosine * made[others] + np.sqrt(1 - cosine**2) * made[copies]
    return centre + made / np.float32(parts**0.5)


def _write_table(name: str, values: NDArray[np.float32], rows: int, parts: int) -> None:
    """Writes a table whose rows are mixtures of so many of these vectors each."""
    import pyarrow as pa

    schema = features_schema((values.shape[1],), "float16", ())
    random = np.random.default_rng(0)
    with create_table("parquet", name, schema, {}, overwrite=False) as table:
        for at in range(0, rows, 4096):
            size = min(4096, rows - at)
            mixed = _mixed(values, size, parts, random).astype(np.float16).ravel()
            columns = [pa.array([f"{at + row}.jpg" for row in range(size)]), pa.array(["ok"] * size)]
            columns += [pa.nulls(size, pa.string()), features_array(schema.field(FIRST_RESULT).type, mixed)]
            table.write(pa.RecordBatch.from_arrays(columns, schema=schema))


if __name__ == "__main__":
    main()
