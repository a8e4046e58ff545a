"""Ways to find most pairs of similar vectors among many: how many of them, and what it takes:

    python -m benchmarks approximate FEATURES [--rows N] [--threshold C] [--only NAME ...] [--repeats N] [--threads N]

FEATURES is a table that `xception features` wrote, of some thousand photographs. Its features are whitened, and
recombined to as many rows as are asked for: each row has its components in eight parts from eight images, so that their
spectrum is real. Each twentieth row is then a copy of another one, with a cosine from the threshold to 1. Found pairs
are compared with all pairs above the threshold, also of those alone that are just above it. Each candidate runs in a
process of its own, by default on one thread, so that its processor seconds mean the same on a busy machine. Candidates
whose package is not installed are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.machine import machine
from benchmarks.maps import THREADS, features_of, unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Found = tuple[str, float, float, NDArray[np.int64]]

PARTS, COPIES = 8, 20
NEAREST = 10  # rows that indexes which find no more than some are asked for


def generate(features: NDArray[np.float32], rows: int, threshold: float, seed: int = 0) -> NDArray[np.float32]:
    """Returns whitened vectors of length one, float32[rows, components]."""
    from xcli.analysis.duplicates import whiten_vectors

    real: Any = whiten_vectors(features).values
    random = np.random.default_rng(seed)
    made = np.empty((rows, real.shape[1]), np.float32)
    for part in range(PARTS):
        made[:, part::PARTS] = real[random.integers(0, len(real), rows), part::PARTS]
    made = unit(made)
    copies = random.choice(rows, rows // COPIES, replace=False)
    others = np.setdiff1d(np.arange(rows), copies)
    cosine = random.uniform(threshold, 1, (len(copies), 1)).astype(np.float32)
    made[copies] = cosine * made[random.choice(others, len(copies))] + np.sqrt(1 - cosine**2) * made[copies]
    return unit(made)


def exact(values: NDArray[np.float32], threshold: float) -> Iterator[Found]:
    """All pairs, as `duplicates` compares them by default."""
    from xcli.analysis.nearest import joined, pairs_above

    begin = time.process_time()
    pairs = joined(pairs_above(values, threshold))
    yield "", 0, time.process_time() - begin, np.stack([pairs.first, pairs.second], 1)


def lists(values: NDArray[np.float32], threshold: float) -> Iterator[Found]:
    """Lists that are multiplied as a whole."""
    from xcli.analysis import approximate
    from xcli.analysis.nearest import joined

    for probes in (8, 16, 32, 64):
        approximate.PROBES = probes
        begin = time.process_time()
        made = approximate.list_rows(values)
        built = time.process_time()
        pairs = joined(approximate.pairs_near(values, made, threshold))
        took = built - begin, time.process_time() - built
        yield f"{made.count} lists, {probes} probes", *took, np.stack([pairs.first, pairs.second], 1)


def faiss_lists(values: NDArray[np.float32], threshold: float) -> Iterator[Found]:
    """FAISS's inverted lists, IndexIVFFlat."""
    import faiss

    faiss.omp_set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    begin = time.process_time()
    count = int(4 * len(values) ** 0.5)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(values.shape[1]), values.shape[1], count, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.max_points_per_centroid = 5, 40
    index.train(values)
    index.add(values)
    built = time.process_time()
    for probes in (4, 16, 64):
        index.nprobe = probes
        start = time.process_time()
        limits, _, other = index.range_search(values, threshold)
        one = np.repeat(np.arange(len(values)), np.diff(limits.astype(np.int64)))
        yield f"{count} lists, {probes} probes", built - begin, time.process_time() - start, np.stack([one, other], 1)


def faiss_graph(values: NDArray[np.float32], threshold: float) -> Iterator[Found]:
    """FAISS's HNSW graph."""
    import faiss

    faiss.omp_set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    begin = time.process_time()
    index = faiss.IndexHNSWFlat(values.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.add(values)
    built = time.process_time()
    for breadth in (16, 64):
        index.hnsw.efSearch = breadth
        start = time.process_time()
        similarity, other = index.search(values, NEAREST)
        one, place = np.nonzero(similarity >= threshold)
        pairs = np.stack([one, other[one, place]], 1)
        yield f"breadth {breadth}", built - begin, time.process_time() - start, pairs


def usearch_graph(values: NDArray[np.float32], threshold: float) -> Iterator[Found]:
    """USearch's HNSW graph, in float16."""
    from usearch.index import Index

    threads = int(os.environ["OMP_NUM_THREADS"])
    begin = time.process_time()
    index = Index(ndim=values.shape[1], metric="ip", dtype="f16", connectivity=16, expansion_add=100)
    index.add(np.arange(len(values)), values, threads=threads)
    built = time.process_time()
    for breadth in (16, 64):
        index.expansion_search = breadth
        start = time.process_time()
        found = index.search(values, NEAREST, threads=threads)
        one, place = np.nonzero(1 - found.distances >= threshold)
        pairs = np.stack([one, found.keys[one, place].astype(np.int64)], 1)
        yield f"breadth {breadth}", built - begin, time.process_time() - start, pairs


CANDIDATES: dict[str, tuple[Callable[[NDArray[np.float32], float], Iterator[Found]], str]] = {
    "exact": (exact, "numpy"),
    "lists": (lists, "numpy"),
    "faiss-lists": (faiss_lists, "faiss"),
    "faiss-graph": (faiss_graph, "faiss"),
    "usearch": (usearch_graph, "usearch"),
}
"""What each runs, and its package."""


def child(name: str, folder: str, threshold: float) -> None:
    """Runs a candidate, and prints what it took and found."""
    values = np.load(os.path.join(folder, "vectors.npy"))
    for number, (settings, build, search, found) in enumerate(CANDIDATES[name][0](values, threshold)):
        pairs = np.unique(np.sort(found, axis=1), axis=0)
        np.save(os.path.join(folder, f"{name}-{number}.npy"), pairs[pairs[:, 0] < pairs[:, 1]])
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([settings, build, search, memory]), flush=True)


def recalls(values: NDArray[np.float32], pairs: NDArray[np.int64], truth: NDArray[np.int64], threshold: float) -> Any:
    """Returns the share of the true pairs that are found, of all, and of those at most 0.05 above the threshold."""
    keys = truth @ [len(values), 1]
    hit = np.isin(keys, pairs @ [len(values), 1])
    close = np.einsum("ij,ij->i", values[truth[:, 0]], values[truth[:, 1]]) < threshold + 0.05
    return float(hit.mean()), float(hit[close].mean())


def main() -> None:
    """Runs the candidates, and prints a table in Markdown."""
    parser = argparse.ArgumentParser(prog="benchmarks approximate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("features")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--threshold", type=float, default=0.55)
    parser.add_argument("--only", action="append", choices=[*CANDIDATES])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.features, options.threshold)
        return
    with tempfile.TemporaryDirectory(prefix="xception-approximate-") as folder:
        values = generate(features_of(options.features), options.rows, options.threshold)
        np.save(os.path.join(folder, "vectors.npy"), values)
        print(f"{machine()['processor']}, {options.threads} thread(s), {len(values):,} rows of {values.shape[1]}\n")
        print(f"| | | build, s | search, s | MiB | recall | recall to {options.threshold + 0.05:.2f} |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        truth = None
        for name in ["exact", *[one for one in options.only or CANDIDATES if one != "exact"]]:
            if find_spec(CANDIDATES[name][1]) is None:
                print(f"| {name} | is not installed | | | | | |")
                continue
            runs = [_run(name, folder, options) for _ in range(options.repeats)]
            for number, same in enumerate(zip(*runs, strict=True)):
                pairs = np.load(os.path.join(folder, f"{name}-{number}.npy"))
                truth = pairs if truth is None else truth
                build, search, memory = (statistics.median(one[column] for one in same) for column in (1, 2, 3))
                shares = " | ".join(f"{share:.3f}" for share in recalls(values, pairs, truth, options.threshold))
                print(f"| {name} | {same[0][0]} | {build:.1f} | {search:.1f} | {memory:.0f} | {shares} |", flush=True)


def _run(name: str, folder: str, options: argparse.Namespace) -> list[Any]:
    command = [sys.executable, "-m", "benchmarks.approximate", folder, "--child", name]
    command += ["--threshold", str(options.threshold)]
    environment = os.environ | dict.fromkeys(THREADS, str(options.threads))
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    main()
