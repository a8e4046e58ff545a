"""`--runner ray`, with a cluster in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Invoke
from tests.cluster import conftest
from tests.cluster.conftest import Fake, StubWorker
from tests.outputs.test_update import plant

fake = conftest.fake


def test_progress_has_the_numbers_of_all_workers(
    tmp_path: Path, fake: Fake, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xcli.cluster.ray_backend.require_ray", lambda: None)
    monkeypatch.setattr("xcli.cluster.remote_run._AHEAD", 1)  # so two blocks at once
    source, fake.worker = tmp_path / "in", StubWorker
    plant(source, {f"{n:02}.jpg": n % 5 for n in range(30)}, 10**18)
    small = ("--weights", "none", "--image-size", "71", "--batch-size", "2", "--device", "cpu")
    command = ("features", source, "-o", f"{tmp_path}/out/", *small, "--runner", "ray", "--part-rows", "2")

    def told(*options: str) -> list[dict[str, Any]]:
        result = invoke(*command, "--progress", "json", *options)
        events = [json.loads(line) for line in result.err.splitlines() if line.startswith("{")]
        return [{key: event[key] for key in ("event", "done", "total", "errors")} for event in events]

    start = {"event": "start", "done": 0, "total": 30, "errors": 0}
    fake.dies_after = 6  # of 15 blocks, the last ones first
    assert told() == [start, {"event": "stopped", "done": 12, "total": 30, "errors": 2}]
    fake.dies_after = None
    assert told() == [start, {"event": "end", "done": 30, "total": 30, "errors": 4}], "those of this run"
    plant(source, {"new.jpg": 1, "06.jpg": 100}, 10**18)
    (source / "20.jpg").unlink()
    assert told("--update")[-1] == {"event": "end", "done": 30, "total": 30, "errors": 0}
    plant(source, {f"late{n}.jpg": 1 for n in range(8)}, 10**18)
    fake.dies_after = 4  # a question about the settings, two blocks that are saved, one that waits for another
    assert told("--update")[-1] == {"event": "stopped", "done": 34, "total": 38, "errors": 0}
    fake.dies_after = None
    assert told("--update")[-1] == {"event": "end", "done": 38, "total": 38, "errors": 0}
    result = invoke(*command)
    assert "started" not in result.err
    assert "is finished and up to date" in result.err
    (source / "new2.jpg").write_bytes(b"x")
    lines = invoke(*command, "--update").err.splitlines()
    assert lines[0] == "xception: started; progress is reported every 60 s"
    assert lines[1].endswith("1 image is new")
