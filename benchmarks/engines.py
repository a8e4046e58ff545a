"""`python -m benchmarks engines`: both engines in each of their precisions, in turns, and what each of them loses.

Whole processes make tables of the same photographs; OpenVINO's compiled models and the calibration of int8 are in the
cache by then, and what that took is told apart. What a precision loses is measured on photographs that int8 was not
calibrated on.
"""

from __future__ import annotations

import csv
import json
import random
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from benchmarks import children, machine, photographs, report
from benchmarks.precision import cosines, vectors
from benchmarks.timing import alternate, compare_all, fastest, group, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.timing import Data

ENGINES = ("tensorflow", "openvino")
LEAST_COSINE = 0.985
"""The first percentile of the cosines that the conclusion asks for."""

COUNT = click.IntRange(min=1)
FILE = click.Path(exists=True, resolve_path=True)


class Contestant(NamedTuple):
    """An engine in a precision, as the options of the program name them."""

    engine: str
    precision: str

    @property
    def name(self) -> str:
        return f"{self.engine}, {self.precision}"


@dataclass(frozen=True, slots=True)
class Bench:
    """One invocation.

    Attributes:
        scratch: a directory for lists, tables and caches, empty at the start.
        model: the options that choose it.
        compared, timed, others: manifests of photographs: to measure losses on, to measure speed on, to calibrate on.
        labels: the name of the directory of each photograph of `compared`.
    """

    scratch: Path
    model: tuple[str, ...]
    compared: str
    timed: str
    others: str
    labels: list[str]

    @property
    def has_classes(self) -> bool:
        return self.model[0] == "--model"

    def seconds(self, one: Contestant, manifest: str, out: str, *more: str) -> float:
        """Runs a process; returns how long it took."""
        command = [sys.executable, "-m", "xcli", "classify" if self.has_classes else "features", *self.model, *more]
        command += ["--manifest", manifest, "--device", "cpu", "--engine", one.engine, "--precision", one.precision]
        if one.precision == "int8":
            command += ["--calibration-model", str(self.scratch / "calibration.int8"), "--min-agreement", "0"]
        command += ["--quiet", "--overwrite", "--output", str(self.scratch / out)]
        return seconds(lambda: children.execute(command, extra={"XDG_CACHE_HOME": str(self.scratch / "cache")}))

    def results(self, one: Contestant) -> tuple[Any, Any]:
        """Returns features, float32[n, 2048], and best classes, or None, of the photographs of `compared`."""
        import pyarrow.parquet as pq

        more = ("--features-out", str(self.scratch / "features.parquet")) if self.has_classes else ()
        self.seconds(one, self.compared, "classes.parquet" if more else "features.parquet", *more)
        features = vectors(pq.read_table(self.scratch / "features.parquet"))
        classes = pq.read_table(self.scratch / "classes.parquet")["label_1"].to_numpy() if more else None
        return features, classes


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("measured", type=FILE)
@click.argument("calibration", type=FILE)
@click.option("--weights", metavar="FILE", type=FILE, help="HDF5 weights without top.")
@click.option("--model", metavar="RUN", type=FILE, help="A model with classes, in place of --weights.")
@click.option("--images", metavar="N", type=COUNT, default=400, help="Photographs of a process that is timed.")
@click.option("--compare", "compared", metavar="N", type=COUNT, default=1000, help="Photographs to measure losses on.")
@click.option("--repeats", metavar="N", type=click.IntRange(min=0), default=3, help="Rounds; 0 measures no speeds.")
@click.option("--json", "target", metavar="FILE", type=click.Path(dir_okay=False), default="build/engines.json")
def main(measured: str, calibration: str, target: str, **values: Any) -> None:
    """Measure the engines over photographs of MEASURED, with int8 calibrated on others, of CALIBRATION.

    With --model, the share of photographs whose best class is the name of their directory is told, too.
    """
    from rich.console import Console

    if bool(values["weights"]) == bool(values["model"]):
        raise click.UsageError("give --weights FILE, or --model RUN")
    console = Console(width=None if sys.stdout.isatty() else report.WIDTH)
    data: Data = {"machine": machine.machine(), "versions": machine.versions(), "settings": values}
    report.show_machine(console, data)
    with tempfile.TemporaryDirectory(prefix="xception-engines-") as scratch:
        part = measure(prepare(Path(scratch), measured, calibration, values), values["repeats"], values["images"])
    report.show_part(console, part)
    output = Path(target)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({**data, "parts": {"engines": part}}, indent=2) + "\n", encoding="utf-8")
    click.echo(f"\n{output}")


def prepare(scratch: Path, measured: str, calibration: str, values: dict[str, Any]) -> Bench:
    """Divides the photographs, at random and always in the same way."""
    files = photographs.find(measured)
    random.Random(0).shuffle(files)
    compared, timed = files[: values["compared"]], files[: values["images"]]
    others = sorted(set(photographs.find(calibration)) - set(compared))
    random.Random(1).shuffle(others)
    for file in timed:
        file.read_bytes()  # so that the system has them in its cache
    return Bench(
        scratch=scratch,
        model=("--model", values["model"]) if values["model"] else ("--weights", values["weights"]),
        compared=write_list(scratch / "compared.csv", compared),
        timed=write_list(scratch / "timed.csv", timed),
        others=write_list(scratch / "others.csv", others),
        labels=[file.parent.name for file in compared],
    )


def write_list(path: Path, files: Sequence[Path]) -> str:
    """Writes a manifest; returns its name."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path"], *([str(one)] for one in files)])
    return str(path)


def contestants() -> list[Contestant]:
    """Returns the engines and precisions that this processor has."""
    from xcli.core.process import has_int8

    found = [Contestant(engine, precision) for engine in ENGINES for precision in machine.precisions()]
    return found + ([Contestant("openvino", "int8")] if has_int8() else [])


def measure(bench: Bench, repeats: int, images: int) -> Data:
    """Calibrates, compares the results, and measures speeds."""
    facts: list[Data] = []
    everyone = contestants()
    for one in everyone:
        if one.precision == "int8":
            passed = bench.seconds(one, bench.others, "calibrated.parquet", "--limit", "600")
            facts.append(fact("int8: start, calibration on 300 photographs, and 600 images", passed, "s"))
    lowest = losses(bench, everyone, facts)
    samplers = {one.name: (lambda one=one: images / bench.seconds(one, bench.timed, "speed.csv")) for one in everyone}
    if not repeats:
        return {"groups": [], "facts": facts}
    samples = alternate(samplers, repeats, lambda _: None)
    last = everyone[-1].name
    pairs = [(last, one.name) for one in everyone[:-1]]
    best = fastest(samples, [name for name, value in lowest.items() if value >= LEAST_COSINE])
    speed = None if best is None else statistics.median(samples[best])
    facts.append(fact(f"fastest with a 1st percentile of at least {LEAST_COSINE}: {best}", speed, "images/s"))
    title = f"Whole processes: {images} photographs to CSV, models compiled and int8 calibrated before"
    return {"groups": [group(title, "images/s", samples, compare_all(samples, pairs))], "facts": facts}


def losses(bench: Bench, everyone: Sequence[Contestant], facts: list[Data]) -> dict[str, float]:
    """Tells what each contestant loses against the first; returns the first percentile of the cosines of each."""
    import numpy as np

    exact, classes = bench.results(everyone[0])
    lowest = {everyone[0].name: 1.0}
    for one in everyone:
        features, found = (exact, classes) if one is everyone[0] else bench.results(one)
        if one is not everyone[0]:
            near = cosines(exact, features)
            lowest[one.name] = float(np.percentile(near, 1))
            for what, value in (
                ("median", np.median(near)),
                ("1st percentile", lowest[one.name]),
                ("least", near.min()),
            ):
                facts.append(fact(f"{one.name}: cosine of features, {len(near)} photographs, {what}", float(value), ""))
        if found is not None:
            same, right = (100 * float(np.mean(found == other)) for other in (classes, np.array(bench.labels)))
            facts.append(fact(f"{one.name}: same best class", same, "% of photographs"))
            facts.append(fact(f"{one.name}: best class is the directory's", right, "% of photographs"))
    return lowest


def fact(name: str, value: float | None, unit: str) -> Data:
    """Returns a figure as reports have it."""
    return {"name": name, "value": value, "unit": unit}


if __name__ == "__main__":
    main()
