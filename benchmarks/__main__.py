"""`python -m benchmarks`: the options, the order of the parts, the JSON file."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks import children, decode, machine, photographs, report
from benchmarks.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from benchmarks.timing import Data, Save


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the benchmarks.

    Attributes:
        module: below `benchmarks`, with `measure(settings, save)`.
        child: whether `measure` runs in a process of its own.
        weights: whether it needs weights.
        always: whether it runs unless others are asked for.
        environment: of the child.
    """

    module: str
    child: bool
    weights: bool = True
    always: bool = True
    environment: dict[str, str] | None = None

    def run(self, settings: Settings, save: Save) -> Data:
        """Measures."""
        if self.child:
            return children.run(f"benchmarks.{self.module}:measure", settings, save, extra=self.environment)
        data: Data = import_module(f"benchmarks.{self.module}").measure(settings, save)
        return data


PARTS = {
    "model": Part("model", child=True),
    "decode": Part("decode", child=True, weights=False, environment=decode.ENVIRONMENT),
    "end-to-end": Part("end_to_end", child=False),
    "start": Part("start", child=False),
    "listing": Part("listing", child=False, weights=False),
    "precision": Part("precision", child=True),
    "steady": Part("steady", child=True, always=False),
    "splits": Part("splits", child=False, always=False),
}

COUNT = click.IntRange(min=1)
FILE = click.Path(exists=True, dir_okay=False, resolve_path=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("directory", required=False, type=click.Path(exists=True, file_okay=False, resolve_path=True))
@click.option("--images", metavar="N", type=COUNT, default=1000, help="Photographs to run over; tiled to this number.")
@click.option("--repeats", metavar="N", type=COUNT, default=3, help="Rounds; start takes twice as many.")
@click.option("--weights", metavar="FILE", type=FILE, help="HDF5 weights without top.  [default: random ones]")
@click.option("--classifier", metavar="FILE", type=FILE, help="HDF5 weights with top, for the agreement of classes.")
@click.option("--only", "chosen", multiple=True, type=click.Choice(list(PARTS)), help="Measure this part; repeatable.")
@click.option("--all", "everything", is_flag=True, help="Also the parts that take long: steady, splits.")
@click.option("--batch-sizes", metavar="N[,N...]", default="16", help="Of the part model.")
@click.option(
    "--format", "form", type=click.Choice(["parquet", "csv"]), default="parquet", help="Tables of end-to-end."
)
@click.option("--listing-files", metavar="N", type=COUNT, default=200_000, help="Files of the part listing.")
@click.option("--steady-images", metavar="N", type=COUNT, default=10_000, help="Photographs of the part steady.")
@click.option("--json", "target", metavar="FILE", type=click.Path(dir_okay=False), default="build/benchmarks.json")
def main(directory: str | None, chosen: tuple[str, ...], everything: bool, target: str, **values: Any) -> None:
    """Measure xception beside Keras, timm, OpenVINO, Pillow and libvips on this machine's processor.

    DIRECTORY holds photographs; without it they are generated. Tables go to standard output and every sample, with the
    machine and all versions, to a JSON file. Ctrl-C keeps what has been measured.
    """
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else report.WIDTH)
    names = [name for name in PARTS if name in chosen or everything or (not chosen and PARTS[name].always)]
    sizes = batch_sizes(values["batch_sizes"])
    data: Data = {"machine": machine.machine(), "versions": machine.versions(), "parts": {}}
    report.show_machine(console, data)
    output = Path(target)
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="xception-benchmarks-") as scratch:
            settings = prepare(directory, scratch, names, sizes, values)
            shown = {
                name: value for name, value in settings.as_dict().items() if name not in ("scratch", "photographs")
            }
            data["settings"] = {**shown, "directory": directory, "weights": values["weights"]}
            measure(console, names, settings, data, output)
    except KeyboardInterrupt:
        data["interrupted"] = True
        write(output, data)
        click.echo(f"interrupted; what was measured is in {output}", err=True)
        sys.exit(130)
    report.show_conclusions(console, data)
    click.echo(f"\n{output}")


def batch_sizes(text: str) -> tuple[int, ...]:
    """Reads `--batch-sizes`."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise click.UsageError(f"--batch-sizes takes numbers such as 8,16,32; received {text!r}")
    return tuple(int(part) for part in parts)


def prepare(
    directory: str | None, scratch: str, names: list[str], sizes: tuple[int, ...], values: dict[str, Any]
) -> Settings:
    """Makes the photographs and the weights that the chosen parts need.

    Args:
        directory: of photographs, or None.
        scratch: an empty directory.
        names: of the parts.
        sizes: batch sizes.
        values: the other options, by name.
    """
    photos = str(Path(scratch, "photographs"))
    count = values["images"]
    distinct = 0
    if any(name != "listing" for name in names):
        click.echo("preparing photographs and weights", err=True)
        if directory is None:
            files = photographs.generate(Path(scratch, "generated"), min(count, photographs.DISTINCT))
        else:
            files = photographs.find(directory)
        distinct = photographs.tile(files, photos, count)
        photographs.warm(photos)
    settings = Settings(
        photographs=photos,
        distinct=distinct,
        images=count,
        weights=values["weights"] or "",
        classifier=values["classifier"],
        scratch=scratch,
        repeats=values["repeats"],
        batch_sizes=sizes,
        format=values["form"],
        listing_files=values["listing_files"],
        steady_images=values["steady_images"],
        cores=machine.machine()["cores"],
        precisions=machine.precisions(),
    )
    if settings.weights or not any(PARTS[name].weights for name in names):
        return settings
    path = str(Path(scratch, "random.weights.h5"))
    children.run("benchmarks.weights:write_random", settings, lambda _: None, arguments={"path": path})
    return replace(settings, weights=path)


def measure(console: Console, names: list[str], settings: Settings, data: Data, output: Path) -> None:
    """Runs the parts one by one, and writes all that is known after each."""
    for name in names:
        click.echo(f"measuring {name}", err=True)

        def save(part: Data, name: str = name) -> None:
            data["parts"][name] = {**part, "complete": False}

        data["parts"][name] = {**PARTS[name].run(settings, save), "complete": True}
        data["bottleneck"] = report.bottleneck(data)
        write(output, data)
        report.show_part(console, data["parts"][name])


def write(output: Path, data: Data) -> None:
    """Writes the JSON file, which at no time is half written."""
    partial = output.with_name(f"{output.name}.new")
    partial.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    partial.replace(output)


_OWN = "rows", "host", "maps", "labels", "approximate", "pixels", "duplicates", "engines"
OTHERS = {name: f"benchmarks.{name}" for name in _OWN}
"""Modules with a command of their own, for `python -m benchmarks NAME`."""

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in OTHERS:
        import_module(OTHERS[sys.argv.pop(1)]).main()
    else:
        main()
