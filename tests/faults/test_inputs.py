"""Inputs that go, shrink or change while the run is on: every image that was listed has one row."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.cli.conftest import save_photos
from tests.faults.harness import WHOLE, features, start, wait_for_work


def disturb(source: Path) -> None:
    """Deletes, truncates and replaces photographs, done ones and others."""
    for name in ("002.jpg", "190.jpg"):
        os.unlink(source / name)
    for name in ("005.jpg", "195.jpg"):
        os.truncate(source / name, 300)
    for name in ("008.jpg", "198.jpg"):
        shutil.copyfile(source / "100.jpg", source / (name + ".new"))
        os.replace(source / (name + ".new"), source / name)


@pytest.mark.skipif(not WHOLE, reason="takes a minute: make test-faults")
@pytest.mark.parametrize("killed", [False, True])
def test_inputs_that_change_during_the_run(killed: bool, tmp_path: Path) -> None:
    source = tmp_path / "in"
    save_photos(source, [f"{n:03}.jpg" for n in range(200)])
    job = features(source)
    (tmp_path / "out").mkdir()
    with start(job, tmp_path / "out") as process:
        wait_for_work(process, tmp_path / "out")
        process.send_signal(signal.SIGSTOP)
        disturb(source)
        process.send_signal(signal.SIGCONT)
        if killed:
            time.sleep(0.2)
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        assert process.returncode in ((-9, 0, 4) if killed else (0, 4)), errors
    result = job.run(tmp_path / "out")
    assert result.code in (0, 4), result
    rows = list(csv.reader((tmp_path / "out" / "out.csv").read_text().splitlines()))[1:]
    names = [os.path.basename(row[0]) for row in rows]
    if process.returncode == -signal.SIGKILL:
        # What was listed and done before is done again; the table is that of the directory as it is now.
        (tmp_path / "fresh").mkdir()
        assert job.run(tmp_path / "fresh").code == 4
        assert (tmp_path / "out" / "out.csv").read_bytes() == (tmp_path / "fresh" / "out.csv").read_bytes()
        assert names == sorted(os.listdir(source))
    else:
        assert names == [f"{n:03}.jpg" for n in range(200)]
        assert {row[0][-7:]: row[2].partition(":")[0] for row in rows if row[1] == "error"}.items() <= {
            "190.jpg": "missing",
            "195.jpg": "truncated",
        }.items()
