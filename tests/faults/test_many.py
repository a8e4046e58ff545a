"""Images by the hundred thousand, with a network of no cost: exact rows, flat memory, and what the rest of it takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import clean_environment
from tests.faults.harness import WHOLE

IMAGES = 100_000
ORIGINALS = 4


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny images: a few, linked under many names."""
    root = tmp_path_factory.mktemp("tiny")
    for number in range(ORIGINALS):
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(root / f"original-{number}.png")
    folder = root / "in"
    for number in range(IMAGES):
        if number % 1000 == 0:
            (folder / f"{number // 1000:03}").mkdir(parents=True)
        os.link(root / f"original-{number % ORIGINALS}.png", folder / f"{number // 1000:03}" / f"{number:06}.png")
    return folder


def run(source: Path, folder: Path, *options: str) -> tuple[list[tuple[int, float]], dict[str, float]]:
    """(rows, resident MiB) as the run went on, and `FILE.meta.json`."""
    command = [sys.executable, "-m", "tests.faults.stub", *options, str(folder / "log")]
    command += ["features", str(source), "--weights", "none", "-o", str(folder / "out.parquet")]
    done = subprocess.run(command, capture_output=True, env=clean_environment(), check=False)
    assert done.returncode == 0, done.stderr.decode()
    log = [line.split() for line in (folder / "log").read_text().splitlines()]
    meta = json.loads((folder / "out.parquet.meta.json").read_text())
    return [(int(rows), float(memory)) for rows, memory in log], meta


@pytest.mark.skipif(not WHOLE, reason="takes minutes: make test-faults")
def test_rows_are_exact_and_memory_is_flat(source: Path, tmp_path: Path) -> None:
    from xcli.tables.formats import open_table

    log, meta = run(source, tmp_path)
    assert meta["images"] == {"listed": IMAGES, "ok": IMAGES, "errors": {}, "skipped": {}, "resumed": 0}  # type: ignore[comparison-overlap]
    number = 0
    for batch in open_table(str(tmp_path / "out.parquet")).batches():
        paths = batch.column("path").to_pylist()
        first = np.asarray(batch.column("features").flatten()).reshape(-1, 2048)[:, 0]
        for path, value in zip(paths, first, strict=True):
            assert path.endswith(f"/{number:06}.png")
            assert value == pytest.approx(40 * (number % ORIGINALS) / 3, abs=1e-3)
            number += 1
    assert number == IMAGES
    begin = IMAGES // 4
    settled = [memory for rows, memory in log if rows > begin]
    print(f"resident: {settled[0]:.0f} MiB after {begin:,} images, {settled[-1]:.0f} MiB after {IMAGES:,}")
    assert max(settled) - settled[0] < max(0.1 * settled[0], 60)


@pytest.mark.skipif(not WHOLE, reason="takes minutes: make test-faults")
def test_what_everything_but_decode_and_engine_takes(source: Path, tmp_path: Path) -> None:
    _, meta = run(source, tmp_path, "--no-decode")
    overhead = meta["seconds"] / IMAGES * 1e6
    print(f"listing, pipeline, journal, output: {overhead:.0f} microseconds an image")
    assert overhead < 2000
