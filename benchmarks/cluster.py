"""Runs over a Ray cluster: faults, throughput, and what the driver costs.

    python -m benchmarks.cluster faults PHOTOGRAPHS --weights NOTOP.h5 [--images 5000]
    python -m benchmarks.cluster throughput PHOTOGRAPHS --weights NOTOP.h5 [--images 1000] [--repeats 3]
    python -m benchmarks.cluster driver [--paths 1000,10000,100000]

`faults` puts photographs into an S3 server on loopback, computes their features on a cluster of three nodes on this
machine, from the bucket into the bucket, kills a worker, removes a node when half of the parts are there, and compares
the rows with those of a run on one machine. `throughput` compares a run over a cluster of this machine alone with one
without. `driver` runs with a stub in place of the engine, and measures the process that was started.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks import machine
from benchmarks.photographs import find, tile
from xcli.cluster.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xcli.cluster.blocks import Block, BlockResult

BUCKET = "photographs"


class Stub(Worker):
    """Writes a row an image, without a look at it."""

    def _work(self, block: Block) -> BlockResult:
        import pyarrow as pa

        from xcli.cluster.blocks import BlockResult
        from xcli.outputs.part_files import PartWriter
        from xcli.outputs.resume import key_of

        assert self._folder is not None
        columns = {"path": [ref.path for ref in block.refs], "status": ["ok"] * len(block.refs)}
        rows = pa.RecordBatch.from_pydict({**columns, "error": pa.nulls(len(block.refs), pa.string())})
        if self._folder.read("_run.json") is None:
            self._folder.write("_run.json", json.dumps({"provenance": {"batch_size": 1}}).encode())
        writer = PartWriter(self._folder, block.number, {})
        writer.add(rows, [key_of(ref) for ref in block.refs], [None] * len(block.refs))
        writer.finish(None, {"block": block.digest})
        return BlockResult(block.number, ok=len(block.refs))


def features(*arguments: str, environment: dict[str, str] | None = None) -> float:
    """Runs `xception features`; returns its seconds."""
    begin = time.monotonic()
    command = [sys.executable, "-m", "xcli", "features", "--precision", machine.precisions()[-1], *arguments]
    done = subprocess.run(
        command, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-3000:]}")
    click.echo("  " + done.stderr.strip().splitlines()[-1])
    return time.monotonic() - begin


def copies(photographs: str, images: int, folder: Path) -> Path:
    """A folder of so many photographs."""
    tile(find(photographs), folder, images)
    return folder


def rows_of(dataset: Any, prefix: str) -> tuple[dict[str, bytes], int]:
    """Features by path below a prefix, and the number of rows, of an Arrow dataset."""
    found: dict[str, bytes] = {}
    rows = 0
    for batch in dataset.to_batches():
        rows += batch.num_rows
        vectors = batch.column("features").flatten().to_numpy(zero_copy_only=False).reshape(batch.num_rows, -1)
        for path, vector in zip(batch.column("path").to_pylist(), vectors, strict=True):
            found[path.removeprefix(prefix)] = vector.tobytes()
    return found, rows


class Server:
    """An S3 server on loopback, with photographs in a bucket."""

    def __init__(self, photographs: Path) -> None:
        import s3fs
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer("127.0.0.1", 0)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        os.environ.update(self.environment)
        self.fs = s3fs.S3FileSystem()
        self.fs.mkdir(BUCKET)
        for path in sorted(photographs.iterdir()):
            self.fs.pipe_file(f"{BUCKET}/in/{path.name}", path.read_bytes())

    def parts(self) -> list[str]:
        """Names of the parts that are finished."""
        self.fs.invalidate_cache()
        return sorted(name for name in self.fs.find(f"{BUCKET}/out") if "/part-" in name)

    def close(self) -> None:
        """Stops the server."""
        self._server.stop()


def three_nodes() -> Any:
    """A cluster of a head and two more nodes, of one processor each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    return cluster


def workers() -> Iterator[int]:
    """Processes that hold an engine."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if b"ray::Worker" in (entry / "cmdline").read_bytes():
                    yield int(entry.name)
            except OSError:
                continue


def disturb(server: Server, cluster: Any, parts: int, log: list[str]) -> None:
    """Kills a worker at a quarter of the parts, and removes a node at half of them."""
    node = cluster.list_all_nodes()[-1]
    killed = removed = False
    while not removed:
        time.sleep(1)
        there = len(server.parts())
        if not killed and there >= parts // 4:
            victim = next(workers(), None)
            if victim is not None:
                os.kill(victim, signal.SIGKILL)
                log.append(f"worker killed at {there} of {parts} parts")
                killed = True
        if there >= parts // 2:
            cluster.remove_node(node, allow_graceful=False)
            log.append(f"node removed at {there} of {parts} parts")
            removed = True


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Measures runs over a Ray cluster."""


_PHOTOGRAPHS = click.argument("photographs", type=click.Path(exists=True, file_okay=False, resolve_path=True))
_WEIGHTS = click.option("--weights", required=True, type=click.Path(exists=True, resolve_path=True), help="No top.")


@main.command()
@_PHOTOGRAPHS
@_WEIGHTS
@click.option("--images", default=5000, help="Photographs, tiled to this number.")
@click.option("--part-rows", default=100)
def faults(photographs: str, weights: str, images: int, part_rows: int) -> None:
    """A worker killed and a node removed while a bucket is computed into a bucket."""
    import pyarrow.dataset as ds
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    with tempfile.TemporaryDirectory() as scratch:
        source = copies(photographs, images, Path(scratch, "in"))
        local = Path(scratch, "local")
        click.echo("one machine:")
        features(str(source), "-o", f"{local}/", "--weights", weights, "--batch-size", "16")
        server, cluster, log = Server(source), three_nodes(), list[str]()
        parts = -(-images // part_rows)
        watcher = threading.Thread(target=disturb, args=(server, cluster, parts, log), daemon=True)
        watcher.start()
        click.echo("three nodes, from bucket to bucket:")
        arguments = [f"s3://{BUCKET}/in/", "-o", f"s3://{BUCKET}/out/", "--weights", weights, "--batch-size", "16"]
        arguments += ["--runner", "ray", "--ray-address", cluster.address, "--part-rows", str(part_rows)]
        features(*arguments, environment=server.environment)
        watcher.join(10)
        click.echo("\n".join("  " + line for line in log))
        expected, _ = rows_of(ds.dataset(local), f"{source}/")
        there = ds.dataset(server.parts(), filesystem=PyFileSystem(FSSpecHandler(server.fs)), format="parquet")
        found, rows = rows_of(there, f"s3://{BUCKET}/in/")
        cluster.shutdown()
        server.close()
    lost, more = len(expected.keys() - found.keys()), len(found.keys() - expected.keys())
    same = sum(found[name] == expected[name] for name in expected.keys() & found.keys())
    doubled = rows - len(found)
    click.echo(f"{len(expected)} images; lost {lost}, too many {more}, doubled {doubled}; bit for bit the same: {same}")
    if lost or more or doubled or len(log) < 2:
        raise click.ClickException("not as it should be")


@main.command()
@_PHOTOGRAPHS
@_WEIGHTS
@click.option("--images", default=1000, help="Photographs, tiled to this number.")
@click.option("--repeats", default=3)
@click.option("--part-rows", default=1000)
def throughput(photographs: str, weights: str, images: int, repeats: int, part_rows: int) -> None:
    """A cluster of this machine alone against a run without one."""
    ratios: dict[str, list[float]] = {"whole command": [], "while computing": []}
    with tempfile.TemporaryDirectory() as scratch:
        source = copies(photographs, images, Path(scratch, "in"))
        for number in range(repeats):
            times, rates = [], []
            for runner in ("local", "ray"):
                out = Path(scratch, f"{runner}{number}")
                arguments = [str(source), "-o", f"{out}/", "--weights", weights, "--runner", runner]
                times.append(features(*arguments, "--part-rows", str(part_rows)))
                rates.append(_rate(out))
            ratios["whole command"].append(times[0] / times[1])
            ratios["while computing"].append(rates[1] / rates[0])
    for name, values in ratios.items():
        click.echo(f"ray/local, {name}: {statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})")


def _rate(out: Path) -> float:
    """Images a second from the first finished part to the last."""
    from pyarrow.parquet import ParquetFile

    found = sorted((part.stat().st_mtime, ParquetFile(part).metadata.num_rows) for part in out.glob("part-*"))
    return sum(rows for _, rows in found[1:]) / (found[-1][0] - found[0][0])


@main.command()
@click.option("--paths", default="1000,10000,100000", help="Numbers of paths.")
def driver(paths: str) -> None:
    """What the process that was started costs, with a stub in place of the engine."""
    for count in map(int, paths.split(",")):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.cluster", "drive", str(count)],
            capture_output=True,
            text=True,
            check=False,
        )
        click.echo(done.stdout.strip() or f"{count:,} paths: exit {done.returncode} {done.stderr[-2000:]}")


@main.command(hidden=True)
@click.argument("count", type=int)
def drive(count: int) -> None:
    """One run of `driver`."""
    import io

    from xcli.cluster.driver import ClusterRun
    from xcli.inference.options import RunOptions
    from xcli.inference.tasks import FeaturesTask
    from xcli.models.spec import ModelSpec
    from xcli.outputs.options import Output, SaveOptions, TableRequest
    from xcli.outputs.target import Directory
    from xcli.sources.archives.listing import WholeArchives
    from xcli.sources.listing import list_images
    from xcli.sources.options import SourceOptions

    with tempfile.TemporaryDirectory() as scratch:
        names = "".join(f"bucket/{number // 1000:06}/photograph-{number:012}.jpg\n" for number in range(count))
        # Paths that cannot be looked at are rows too, so they need not exist; the stub does not open them.
        listing = list_images(SourceOptions(("-",)), stdin=io.BytesIO(names.encode()), archives=WholeArchives)
        output = Output("features", Directory(f"{scratch}/out/"), "parquet")
        spec, task = ModelSpec(weights="none", include_top=False), FeaturesTask().for_model
        request = TableRequest(listing.options, spec, task, {}, RunOptions(), output, SaveOptions())
        run = ClusterRun(listing, request, worker=Stub)
        begin, before = time.monotonic(), time.process_time()
        first: list[float] = []
        run.on_images = lambda images, failed: first.append(time.monotonic())
        run.run()
        whole, used = time.monotonic() - begin, time.process_time() - before
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    click.echo(
        f"{count:,} paths: {whole:.1f} s in all, {first[0] - begin:.1f} s to the first part, {used:.1f} s of the "
        f"driver's processor, {peak:.0f} MiB at most"
    )


if __name__ == "__main__":
    main()
