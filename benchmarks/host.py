"""What the host feeds to a network that costs nothing: decoding, and the main process's own work.

    python -m benchmarks host [DIRECTORY] [--images N] [--repeats N] [--json FILE]

Photographs through the pipeline with 1, 2, ... workers, up to the processors, with each resampler; the same with
decoders that sleep for two milliseconds in place of decoding, up to 16 workers, so that the limit of the main process
shows; and the processor time of the main process for one image of `features` into Parquet, with decoders that do
nothing: listing, pipeline, tf.data, journal, digests and file. Without TensorFlow only the pipeline is measured, and
without tf.data.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks import machine, photographs
from benchmarks.children import environment
from benchmarks.machine import installed
from xcli.images.resampling import PILLOW, RESAMPLERS, has_simd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.table import Table

    from benchmarks.timing import Data
    from xcli.core.records import ImageRef
    from xcli.inference.pipeline import PixelPipeline

SLEEPERS = (1, 2, 4, 8, 16)
SLEEP = 0.002


def refs(names: Sequence[str]) -> Iterator[ImageRef]:
    from xcli.sources.locations import file_ref

    return (file_ref(os.fsencode(name)) for name in names)


def rate(
    names: Sequence[str], workers: int, batch_size: int, seconds: float | None = None, resampler: str | None = None
) -> float:
    """Images a second through the pipeline; with `seconds` its decoders sleep so long for each."""
    from xcli.images.preprocessing import Preprocessing
    from xcli.inference import decoder_server
    from xcli.inference.pipeline import PixelPipeline

    spec = None if seconds is None else decoder_server.DecoderSpec("", "", {"seconds": seconds})
    decoder_server.MODULE = "xcli.inference.decoder_process" if spec is None else "benchmarks.sleeping_decoders"
    pixels = Preprocessing(resampler=resampler)
    kind = PixelPipeline if installed("tensorflow") else without_tensorflow()
    pipeline = kind(refs(names), pixels, batch_size=batch_size, workers=workers, decoder=spec)
    batches = iter(pipeline)
    next(batches)  # processes, imports and tf.data have been started
    begin = time.perf_counter()
    count = sum(len(batch.refs) for batch in batches)
    return count / (time.perf_counter() - begin)


def without_tensorflow() -> type[PixelPipeline]:
    """Returns a pipeline whose batches do not go through tf.data, for a machine that has no TensorFlow."""
    from xcli.inference.pipeline import PixelPipeline

    class Plain(PixelPipeline):
        def _feed(self, ready: Any) -> None:
            for number, pixels in self._batches():
                ready.put(self._complete.pop(number).finished(pixels))
            ready.put(self._failure)

    return Plain


def main_process(folder: Path, target: Path, batch_size: int) -> float:
    """Processor seconds of this process for `features` of all files of a directory, into a Parquet file."""
    import xcli.inference.engines.tensorflow
    from benchmarks.stub_engine import StubEngine
    from xcli.api import features, load_model
    from xcli.inference import decoder_server
    from xcli.inference.options import RunOptions

    xcli.inference.engines.tensorflow.Engine = StubEngine  # type: ignore[misc,assignment]
    decoder_server.MODULE = "benchmarks.sleeping_decoders"
    model = load_model(weights="none", include_top=False)
    before = resource.getrusage(resource.RUSAGE_SELF)
    features(str(folder), model=model, output=str(target), options=RunOptions(batch_size=batch_size))
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def tiny_images(folder: Path, count: int) -> Path:
    """Makes a directory of so many names of one small image."""
    from PIL import Image

    folder.mkdir()
    first = folder / "0000000.png"
    Image.new("RGB", (4, 4)).save(first)
    for number in range(1, count):
        if number % 30_000 == 0:  # a file has a limited number of names
            first = folder / f"{number:07}.png"
            Image.new("RGB", (4, 4)).save(first)
        else:
            os.link(first, folder / f"{number:07}.png")
    return folder


def tables(data: Data) -> Iterator[Table]:
    """Yields the tables of what was measured."""
    from rich.table import Table

    titles = {name: f"Photographs, no network, resampler {name}" for name in RESAMPLERS}
    for part, title in (titles | {"sleeping": f"Decoders that sleep {SLEEP * 1000:g} ms"}).items():
        table = Table("workers", "images/s", "of n times one", title=title)
        for workers, samples in data.get(part, {}).items():
            one = statistics.median(data[part]["1"])
            found = statistics.median(samples)
            table.add_row(workers, f"{found:,.0f}", f"{found / one / int(workers):.2f}")
        yield table
    work = Table("batch size", "µs an image", title="The main process's work: features into Parquet")
    for size, samples in data["main process"].items():
        work.add_row(size, f"{statistics.median(samples):.0f}")
    yield work


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("directory", required=False, type=click.Path(exists=True, file_okay=False, resolve_path=True))
@click.option("--images", type=click.IntRange(min=1000), default=4000, help="Photographs; tiled to this number.")
@click.option("--tiny", type=click.IntRange(min=1000), default=100_000, help="Images for the main process's work.")
@click.option("--repeats", type=click.IntRange(min=1), default=3, help="Rounds; the tables have their medians.")
@click.option("--json", "target", metavar="FILE", type=click.Path(dir_okay=False), default="build/host.json")
def main(directory: str | None, images: int, tiny: int, repeats: int, target: str) -> None:
    """Measure what the host can feed: decoding, and the main process's own work."""
    from rich.console import Console

    data: Data = {"machine": machine.machine(), "sleeping": {}, "main process": {}}
    resamplers = [name for name in RESAMPLERS if name == PILLOW or has_simd()]
    data |= {name: {} for name in resamplers}
    output = Path(target)
    output.parent.mkdir(parents=True, exist_ok=True)
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="xception-host-") as scratch:
        if directory is None:
            files = photographs.generate(Path(scratch, "generated"), min(images, photographs.DISTINCT))
        else:
            files = photographs.find(directory)
        names = [str(files[number % len(files)]) for number in range(images)]
        few, many = (tiny_images(Path(scratch, str(count)), count) for count in (tiny // 5, tiny + tiny // 5))
        for _ in range(repeats):
            for workers in (count for count in (1, 2, 4, 8, 16, 32, 64) if count <= cores):
                for name in resamplers:
                    data[name].setdefault(str(workers), []).append(rate(names, workers, 128, resampler=name))
            for workers in SLEEPERS:
                data["sleeping"].setdefault(str(workers), []).append(rate(names, workers, 128, SLEEP))
            for size in (16, 64, 128) if installed("tensorflow") else ():
                costs = [main_process_alone(folder, Path(scratch), size) for folder in (few, many)]
                data["main process"].setdefault(str(size), []).append((costs[1] - costs[0]) / tiny * 1e6)
            output.write_text(json.dumps(data, indent=1), encoding="utf-8")
    console = Console(width=None if sys.stdout.isatty() else 100)
    for table in tables(data):
        console.print(table)
    click.echo(f"\n{output}")


def main_process_alone(folder: Path, scratch: Path, batch_size: int) -> float:
    """Calls `main_process` in a process of its own."""
    target = scratch / "out.parquet"
    code = "import sys; from benchmarks.host import *; print(main_process(*map(Path, sys.argv[1:3]), int(sys.argv[3])))"
    command = [sys.executable, "-c", code, str(folder), str(target), str(batch_size)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(f"it ended with {done.returncode}:\n{done.stderr[-2000:]}")
    for file in scratch.glob("out.parquet*"):
        file.unlink()
    return float(done.stdout)


if __name__ == "__main__":
    main()
