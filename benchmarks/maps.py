"""Ways to draw features in two dimensions: how faithful each map is, and what it takes:

    python -m benchmarks maps FEATURES [--rows N ...] [--only NAME ...] [--repeats N]

FEATURES is a table that `xception features` wrote, of some thousand photographs. Its features are recombined to as many
rows as are asked for, brought to length one, and to 50 dimensions by PCA. Each candidate runs from there in a process
of its own, on one thread, so that its processor seconds mean the same on a busy machine. Trustworthiness and kept
neighbours compare the 15 nearest rows of 2,000 in the map with those in all dimensions. Candidates whose package is not
installed are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.machine import machine
from benchmarks.processes import measure_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

NEIGHBOURS, JUDGED, DIMENSIONS = 15, 2000, 50
LIMIT_SECONDS = 1200
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS")


def features_of(name: str) -> NDArray[np.float32]:
    """Returns the features of the rows with a result, float32[n, width], each of length one."""
    from xcli.core.records import FEATURES
    from xcli.tables.formats import open_table
    from xcli.tables.rows import flat_features

    found = []
    for batch in open_table(name).batches():
        values = flat_features(batch[FEATURES]).to_numpy(zero_copy_only=False).reshape(batch.num_rows, -1)
        found.append(values[np.isfinite(values).all(1)].astype(np.float32))
    return np.concatenate(found)


def unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the rows at length one."""
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.maximum(lengths, np.finfo(np.float32).tiny)


def recombine(real: NDArray[np.float32], rows: int, seed: int = 0) -> NDArray[np.float32]:
    """Returns float32[rows, width]: first the real features, then ones like them.

    Those are a real image's features, and a part of the difference between two of its 20 nearest, not below zero. So
    directions and their spread, near and far, are those of real features.
    """
    random = np.random.default_rng(seed)
    directions = unit(real)
    nearest = np.empty((len(real), 20), np.int64)
    for start in range(0, len(real), 1000):
        cosines = directions[start : start + 1000] @ directions.T
        nearest[start : start + 1000] = np.argpartition(-cosines, 20, axis=1)[:, :20]
    made = np.empty((rows, real.shape[1]), np.float32)
    kept = min(rows, len(real))
    made[:kept] = real[random.permutation(len(real))[:kept]]
    for start in range(kept, rows, 1000):
        base = random.integers(len(real), size=min(1000, rows - start))
        one, other = (nearest[base, random.integers(20, size=len(base))] for _ in range(2))
        share = random.random((len(base), 1), np.float32)
        made[start : start + len(base)] = np.maximum(real[base] + share * (real[one] - real[other]), 0)
    return made


def project(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the first `DIMENSIONS` principal components."""
    from sklearn.decomposition import PCA

    made: NDArray[np.float32] = PCA(DIMENSIONS, svd_solver="covariance_eigh").fit_transform(values)
    return made.astype(np.float32)


def _pca(values: Any) -> Any:
    return values[:, :2]


def _opentsne(values: Any) -> Any:
    from openTSNE import TSNE

    return TSNE(n_jobs=1, random_state=0).fit(values)


def _sklearn(values: Any) -> Any:
    from sklearn.manifold import TSNE

    return TSNE(n_jobs=1, random_state=0).fit_transform(values)


def _ours(values: Any) -> Any:
    from xcli.analysis.feature_map import draw_map

    return draw_map(values)[0]


def _umap(values: Any) -> Any:
    from umap import UMAP

    return UMAP(random_state=0).fit_transform(values)


def _pacmap(values: Any) -> Any:
    from pacmap import PaCMAP

    return PaCMAP(random_state=0).fit_transform(values, init="pca")


def _trimap(values: Any) -> Any:
    from trimap import TRIMAP

    return TRIMAP().fit_transform(values)


CANDIDATES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "PCA": ("scikit-learn", _pca),
    "t-SNE of openTSNE": ("openTSNE", _opentsne),
    "t-SNE of scikit-learn": ("scikit-learn", _sklearn),
    "that, 500 steps": ("scikit-learn", _ours),
    "UMAP": ("umap-learn", _umap),
    "PaCMAP": ("pacmap", _pacmap),
    "TriMap": ("trimap", _trimap),
}
"""By name: the package, and what makes the map, float[n, 2], of float32[n, 50]."""


def judge(values: NDArray[np.float32], points: NDArray[np.float32]) -> tuple[float, float]:
    """Returns trustworthiness, and the share of the nearest rows that are the nearest in the map, of `JUDGED` rows.

    Args:
        values: [n, width], rows of length one.
        points: [n, 2], the map.
    """
    rows, k = len(values), NEIGHBOURS
    judged = np.random.default_rng(1).permutation(rows)[:JUDGED]
    intrusion = kept = 0
    for start in range(0, len(judged), 100):
        own = judged[start : start + 100]
        far = 1 - values[own] @ values.T
        flat = ((points[own, None] - points[None]) ** 2).sum(2)
        far[np.arange(len(own)), own] = flat[np.arange(len(own)), own] = np.inf
        for true, drawn in zip(far, flat, strict=True):
            near = np.argpartition(drawn, k)[:k]
            ranks = (true[None, :] < true[near, None]).sum(1) + 1
            intrusion += int(np.maximum(ranks - k, 0).sum())
            kept += int((ranks <= k).sum())
    most = len(judged) * k * (2 * rows - 3 * k - 1) / 2
    return 1 - intrusion / most, kept / (len(judged) * k)


def run(name: str, values: NDArray[np.float32], folder: str) -> tuple[float, float, NDArray[np.float32]] | None:
    """Makes a map in a process of its own: returns processor seconds, MiB at most, and points.

    None stands for more than `LIMIT_SECONDS`.
    """
    source, target = os.path.join(folder, "values.npy"), os.path.join(folder, "points.npy")
    np.save(source, values)
    taken = measure_process(
        [sys.executable, "-m", "benchmarks.maps", "--draw", json.dumps([name, source, target])],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | dict.fromkeys(THREADS, "1"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_SECONDS, LIMIT_SECONDS)),
    )
    if taken.code == -signal.SIGKILL:
        return None
    if taken.code:
        raise SystemExit(f"{name} failed; python -m benchmarks.maps --draw shows why")
    return taken.processor, taken.mib, np.load(target)


def draw(name: str, source: str, target: str) -> None:
    """The step in the process of its own."""
    np.save(target, np.asarray(CANDIDATES[name][1](np.load(source)), np.float32))


def main() -> None:
    """Measures each candidate that is installed, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", nargs="?")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--only", nargs="+", choices=list(CANDIDATES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--draw", type=json.loads, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.draw:
        return draw(*chosen.draw)
    if not chosen.features:
        parser.error("FEATURES is missing")
    about = machine()
    print(f"{about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB, load {about['load']}")
    real = features_of(chosen.features)
    print(f"{len(real):,} real features")
    print("| rows | map | trustworthiness | nearest kept | processor seconds | MiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for rows in chosen.rows:
            values = unit(recombine(real, rows))
            components = project(values)
            for name in chosen.only or CANDIDATES:
                measure(name, values, components, chosen.repeats, folder)


def measure(name: str, values: Any, components: Any, repeats: int, folder: str) -> None:
    """Prints the line of one candidate."""
    try:
        title = f"{name} ({version(CANDIDATES[name][0])})"
    except PackageNotFoundError:
        print(f"({name}: {CANDIDATES[name][0]} is not installed)", flush=True)
        return
    runs = []
    for _ in range(repeats):
        made = run(name, components, folder)
        if made is None:
            print(f"| {len(values):,} | {title} | - | - | over {LIMIT_SECONDS} | - |", flush=True)
            return
        runs.append(made)
    trust, kept = judge(values, runs[0][2])
    seconds, memory = statistics.median(one[0] for one in runs), max(one[1] for one in runs)
    same = all(np.array_equal(runs[0][2], one[2]) for one in runs[1:])
    note = "" if same or repeats == 1 else " (each run another map)"
    print(f"| {len(values):,} | {title} | {trust:.4f} | {kept:.3f} | {seconds:.1f} | {memory:,.0f} |{note}", flush=True)


if __name__ == "__main__":
    main()
