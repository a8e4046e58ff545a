"""Runs over a real Ray cluster of this machine: the rows of a local run, whoever dies on the way."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import COMMAND, clean_environment, run_process, save_photos
from tests.faults.harness import TALLY, WHOLE
from tests.thorough import across_versions, thorough

pytest.importorskip("ray", reason="needs the ray extra")

SMALL = ("--weights", "none", "--image-size", "71", "--batch-size", "4")
LAUNCHER = (sys.executable, "-P", "-c", "from xcli.cli.main import main; main()")
"""As `xception` starts, which is a script in another directory than the current one."""
ON_CLUSTER = (*SMALL, "--runner", "ray", "--part-rows", "5")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    save_photos(folder, [f"{number:03}.jpg" for number in range(400 if WHOLE else 23)])
    (folder / "007x.jpg").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def expected(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The rows of a run on one machine."""
    target = tmp_path_factory.mktemp("local") / "local.parquet"
    result = run_process("features", str(photos), "-o", str(target), *SMALL)
    assert result.code == 4, result
    found: list[dict[str, Any]] = pq.read_table(target).to_pylist()
    return found


def rows(target: Path) -> list[dict[str, Any]]:
    return [row for part in sorted(target.glob("part-*")) for row in pq.read_table(part).to_pylist()]


def check(target: Path, expected: list[dict[str, Any]]) -> None:
    found = rows(target)
    TALLY.hold([row["path"] for row in found], [row["path"] for row in expected])
    assert (TALLY.lost, TALLY.doubled) == (0, 0)
    assert repr(found) == repr(expected)  # the features of error rows are NaN, which equals nothing
    assert {name for name in os.listdir(target) if name.startswith("_")} <= {"_SUCCESS", "_meta.json", "_states"}


@across_versions
def test_the_rows_are_those_of_one_machine(photos: Path, expected: list[dict[str, Any]], tmp_path: Path) -> None:
    target = tmp_path / "out"
    # The current directory is that of the images, which may be anybody's: nothing in it is to be imported.
    for name in ("pyarrow", "numpy", "xcli", "sitecustomize", "queue"):
        (photos / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write({name!r})\n")
    result = run_process("features", str(photos), "-o", f"{target}/", *ON_CLUSTER, cwd=photos, launcher=LAUNCHER)
    assert result.code == 4, result
    assert not (tmp_path / "imported").exists(), (tmp_path / "imported").read_text()
    check(target, expected)
    # Nothing that Ray says of its own accord.
    begin, line = result.err.strip().splitlines()
    assert begin == "xception: started; progress is reported every 60 s"
    assert line.startswith(f"xception: {len(expected)} images: {len(expected) - 1} ok, 1 error (1 empty)")


@thorough
def test_with_openvino_too(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra [openvino] is not installed")
    target, local = tmp_path / "out", tmp_path / "local.parquet"
    command, engine = ("features", str(photos)), ("--engine", "openvino")
    for more in (("-o", str(local), *SMALL), ("-o", f"{target}/", *ON_CLUSTER)):
        result = run_process(*command, *more, *engine)
        assert result.code == 4, result
    check(target, pq.read_table(local).to_pylist())


@contextlib.contextmanager
def running(photos: Path, target: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [*COMMAND, "features", str(photos), "-o", f"{target}/", *ON_CLUSTER, *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment()
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def when(target: Path, parts: int, act: Callable[[], None]) -> threading.Thread:
    """Does something once so many parts are there."""

    def watch() -> None:
        end = time.monotonic() + 200
        while time.monotonic() < end:
            if len(list(target.glob("part-*"))) >= parts:
                act()
                return
            time.sleep(0.05)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def engines() -> list[int]:
    """Processes of Ray that hold an engine."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and (entry / "cmdline").read_bytes().startswith(b"ray::Worker"):
                found.append(int(entry.name))
    return found


@thorough
def test_workers_killed(photos: Path, expected: list[dict[str, Any]], tmp_path: Path) -> None:
    killed: list[int] = []

    def kill() -> None:
        for number in engines():
            os.kill(number, signal.SIGKILL)
            killed.append(number)

    target = tmp_path / "out"
    with running(photos, target, "--cpus-per-worker", "1") as process:
        watchers = [when(target, parts, kill) for parts in (10, 40)]
        _, err = process.communicate(timeout=400)
    for watcher in watchers:
        watcher.join(10)
    assert process.returncode == 4, err
    assert len(killed) >= 2
    TALLY.kills += len(killed)
    check(target, expected)


@thorough
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_driver_killed(
    number: signal.Signals, photos: Path, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    target = tmp_path / "out"
    with running(photos, target) as process:
        when(target, 20, lambda: os.kill(process.pid, number)).join(300)
        _, err = process.communicate(timeout=100)
    if number is not signal.SIGKILL:
        assert process.returncode == 128 + number, err
        assert "the same command goes on from there" in err
    assert not (target / "_SUCCESS").exists()
    kept = len(list(target.glob("part-*")))
    assert 20 <= kept < 81
    TALLY.kills += 1
    result = run_process("features", str(photos), "-o", f"{target}/", *ON_CLUSTER, timeout=400)
    assert result.code == 4, result
    assert "kept from before" in result.err
    check(target, expected)


@thorough
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_driver_of_an_update_killed(
    number: signal.Signals, photos: Path, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    source, target = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(photos, source)
    for name in sorted(os.listdir(source))[::2]:
        (source / name).unlink()
    result = run_process("features", str(source), "-o", f"{target}/", *ON_CLUSTER, timeout=400)
    assert result.code in (0, 4), result
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    shutil.copytree(photos, source, dirs_exist_ok=True)
    partial = tmp_path / "out.partial"
    with running(source, target, "--update") as process:
        when(partial, 10, lambda: os.kill(process.pid, number)).join(300)
        _, err = process.communicate(timeout=100)
    if number is not signal.SIGKILL:
        assert process.returncode == 128 + number, err
    assert {path.name: path.read_bytes() for path in target.iterdir() if path.name != "_lock"} == before
    TALLY.kills += 1
    result = run_process("features", str(source), "-o", f"{target}/", *ON_CLUSTER, "--update", timeout=400)
    assert result.code == 4, result
    assert "kept from before" in result.err
    found = sorted(rows(target), key=lambda row: os.path.basename(row["path"]))
    TALLY.hold([os.path.basename(row["path"]) for row in found], [os.path.basename(row["path"]) for row in expected])
    assert repr([row["features"] for row in found]) == repr([row["features"] for row in expected])


PORTS = """
import os
from pathlib import Path
from xcli.cluster.ray_backend import ClusterOptions, cluster

with cluster(ClusterOptions(), use_gpus=False):
    token, ours = os.environ["RAY_AUTH_TOKEN"].encode(), set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.name == str(os.getpid()) or token in (process / "environ").read_bytes():
                ours |= {os.readlink(file) for file in (process / "fd").iterdir()}
        except OSError:
            pass
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in ours:
                print(fields[1].partition(":")[0])
    assert os.environ["RAY_AUTH_MODE"] == "token"
"""


@across_versions
def test_ports_are_on_loopback_alone() -> None:
    """It takes seconds, as every start of Ray does; each release may bind its ports in another way."""
    done = subprocess.run([sys.executable, "-c", PORTS], capture_output=True, text=True, timeout=100, check=True)
    assert len(done.stdout.split()) >= 3
    assert set(done.stdout.split()) <= {"0100007F", "0000000000000000FFFF00000100007F"}


NODES = """
import os, sys, threading, time
from ray.cluster_utils import Cluster
target, arguments = sys.argv[1], sys.argv[2:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
cluster.wait_for_nodes()

def watch():
    while len([name for name in (os.listdir(target) if os.path.isdir(target) else []) if name[:5] == "part-"]) < 30:
        time.sleep(0.05)
    cluster.remove_node(nodes[-1], allow_graceful=False)
    print("removed", flush=True)

watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
import subprocess
code = subprocess.run([sys.executable, "-m", "xcli", *arguments, "--ray-address", cluster.address]).returncode
watcher.join(5)
cluster.shutdown()
sys.exit(code)
"""


@thorough
def test_a_node_removed(photos: Path, expected: list[dict[str, Any]], tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    command = [sys.executable, "-c", NODES, str(target), "features", str(photos), "-o", f"{target}/", *ON_CLUSTER]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 4, done.stderr
    assert "removed" in done.stdout
    TALLY.kills += 1
    check(target, expected)
    shutil.rmtree(target)
