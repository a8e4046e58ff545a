"""`xception info`."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from xcli.cli.display import open_console, print_facts
from xcli.cli.help import COUNT, INPUT, MODEL, OUTPUT, Command, choice, flag, fold, number, option
from xcli.cli.options import model_arguments, model_spec, source_arguments
from xcli.cli.verbosity import message_arguments, start_messages
from xcli.core.errors import ExitCode
from xcli.core.text import join_names, one_line
from xcli.core.version import __version__, versions
from xcli.images.decoders import DEFAULT_MAX_PIXELS
from xcli.inference.preflight import Preflight, machine, preflight
from xcli.models.architecture import IMAGE_SIZE
from xcli.models.loader import load_model
from xcli.models.spec import ModelSpec
from xcli.models.summary import describe_network
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions

if TYPE_CHECKING:
    from rich.console import Console

    from xcli.models.network import LoadedModel


@click.command(cls=Command)
@source_arguments
@number(
    "--max-pixels",
    INPUT,
    "N",
    COUNT,
    "Count images with more than N pixels as unreadable.",
    default=DEFAULT_MAX_PIXELS,
    show_default=True,
)
@option("--include-top/--no-include-top", MODEL, "Describe the network with its classifier.", of=ModelSpec)
@choice("--pooling", MODEL, ["avg", "max", "none"], "Pooling of the network without its classifier.")
@model_arguments(classes=True)
@flag("--layers", OUTPUT, "List every layer: its name for --layer, output shape and parameters.")
@flag("--json", OUTPUT, "Print everything as JSON.")
@message_arguments
@click.pass_context
def info(ctx: click.Context, /, **values: Any) -> int:
    """Describe the model, its weights and this machine; with sources, check them before a long run.

    The model is the one that the same options give other commands. With SOURCE..., the header of every image is read
    to count the images, their formats and sizes, and to name those that cannot be read.

    Exit status: 0, or 4 when a source holds images that cannot be read.
    """
    from xcli.cli.table_run import quiet_libraries

    messages = start_messages(ctx)
    pooling = values["pooling"]
    checked = bool(values["sources"]) or values["manifest"] is not None
    spec = model_spec(ctx, values, pooling=None if pooling == "none" else pooling)
    found = None
    if checked:
        with list_images(fold(SourceOptions, values)) as listing:
            found = preflight(listing, values["max_pixels"])
            found.skipped = dict(listing.skipped)
        if not values["json"]:
            _show_sources(open_console(), list(values["sources"]) or [values["manifest"]], found)
    quiet_libraries(debug=messages.debug)
    loaded = load_model(spec) if _needs_loading(spec) else None
    report = {
        "version": __version__,
        "versions": versions(),
        "machine": machine(),
        "model": _model(spec, loaded),
        "weights": _weights(spec, loaded),
    }
    if found is not None:
        report["sources"] = found.as_dict()
    if values["json"]:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _show(report, values["layers"])
    return ExitCode.ROW_ERRORS if found is not None and found.failed else ExitCode.OK


def _needs_loading(spec: ModelSpec) -> bool:
    """Whether a file decides what the model is; otherwise the network is described without its weights."""
    by_file = spec.model is not None or spec.weights not in ("imagenet", "none")
    return by_file or (spec.include_top and spec.labels is not None)


def _model(spec: ModelSpec, loaded: LoadedModel | None) -> dict[str, Any]:
    if spec.model is not None and loaded is not None:
        return _foreign(loaded)
    if loaded is not None and loaded.labels is not None:
        spec = replace(spec, classes=len(loaded.labels.names))
    described = describe_network(spec)
    size = spec.image_size or IMAGE_SIZE
    return {
        "name": "Xception",
        "include_top": spec.include_top,
        "pooling": spec.pooling,
        "input_shape": [size, size, 3],
        "input_range": "xception",
        "output_shape": list(described[-1].output_shape),
        "parameters": sum(layer.parameters for layer in described),
        "multiply_adds": sum(layer.multiply_adds for layer in described),
        "layers": [asdict(layer) for layer in described],
    }


def _foreign(model: LoadedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "input_shape": [model.size, model.size, 3],
        "input_range": model.input_range,
        "output_shape": [len(model.labels.names)] if model.labels else None,
        "parameters": model.parameters,
        "labels": list(model.labels.names) if model.labels else None,
        "preprocessing": {"resize": model.resize, "interpolation": model.interpolation, "crop_pct": model.crop_pct},
        "notes": list(model.notes),
        "layers": [{"name": name} for name in model.layer_names],
    }


def _weights(spec: ModelSpec, loaded: LoadedModel | None) -> dict[str, Any]:
    if spec.model is not None:
        return {"source": spec.model}
    if spec.weights == "none":
        return {"source": "none", "seed": spec.seed}
    if spec.weights != "imagenet" and loaded is not None:
        return {"source": spec.weights, "state": "fits", "sha256": loaded.digest}
    from xcli.models.imagenet_weights import IMAGENET_NO_TOP, IMAGENET_TOP, find_imagenet, imagenet_url

    file = IMAGENET_TOP if spec.include_top else IMAGENET_NO_TOP
    places = [
        {"file": one.file.name, "place": one.place, "path": str(one.path), "state": one.state}
        for one in find_imagenet(spec.include_top, spec.weights_dir)
    ]
    return {"source": "imagenet", "file": file.name, "bytes": file.size, "url": imagenet_url(file), "places": places}


def _show(report: dict[str, Any], show_layers: bool) -> None:
    console = open_console()
    print_facts(console, _facts(report))
    if show_layers:
        _show_layers(console, report["model"]["layers"])


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    model, weights, computer = report["model"], report["weights"], report["machine"]
    facts = [
        ("model", model["name"]),
        ("input", f"{'x'.join(map(str, model['input_shape']))}, scaled as {model['input_range']}"),
        ("output", "x".join(map(str, model["output_shape"])) if model["output_shape"] else "no classifier"),
        ("parameters", f"{model['parameters']:,}"),
    ]
    if "multiply_adds" in model:
        facts.append(("multiply-adds", f"{model['multiply_adds']:,} an image"))
    facts += [("note", note) for note in model.get("notes", ())]
    if weights["source"] == "imagenet":
        here = [place for place in weights["places"] if place["state"] == "verified"]
        where = here[0]["path"] if here else f"not here yet; {weights['bytes']:,} bytes from {weights['url']}"
        facts.append(("weights", f"ImageNet: {where}"))
        facts += [
            ("", f"{place['state']}: {place['path']}") for place in weights["places"] if place["state"] != "absent"
        ]
    else:
        detail = weights.get("detail") or weights.get("sha256", "")
        facts.append(("weights", " ".join(filter(None, (str(weights["source"]), weights.get("state"), detail)))))
    gpus = ", ".join(gpu["name"] for gpu in computer["gpus"]) or "no GPU"
    fast = " and ".join(name for name in ("bfloat16", "int8") if computer[name]) or "float32 alone"
    facts.append(("devices", f"{computer['processors']} processors (with {fast}), {gpus}"))
    facts.append(("formats", ", ".join(computer["image_formats"])))
    packages = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    facts.append(("versions", f"xception-cli {report['version']}, {packages}"))
    return facts


def _show_sources(console: Console, names: list[str], found: Preflight) -> None:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.formats.most_common())
    images = f"{found.listed:,} image{'s' if found.listed != 1 else ''}"
    facts = [("sources", join_names(names)), ("images", f"{images}, {found.bytes:,} bytes: {kinds or 'none'}")]
    if found.widths and found.heights:
        low, middle, high = (f"{w}x{h}" for w, h in zip(found.widths, found.heights, strict=True))
        facts.append(("sizes", f"smallest sides {low}, medians {middle}, largest {high}"))
    if found.skipped:
        facts.append(("skipped", ", ".join(f"{count:,} {reason}" for reason, count in found.skipped.items())))
    if found.failed:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in found.errors.most_common())
        facts.append(("unreadable", f"{found.failed:,} ({reasons})"))
        facts += [("", f"{path}: {error}") for path, error in found.unreadable]
        if found.failed > len(found.unreadable):
            facts.append(("", f"... and {found.failed - len(found.unreadable):,} more"))
    print_facts(console, facts)
    console.print()


def _show_layers(console: Console, described: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("layer", no_wrap=True)
    if "kind" in described[0]:
        table.add_column("kind")
        table.add_column("output", justify="right")
        table.add_column("parameters", justify="right")
        table.add_column("multiply-adds", justify="right")
    for layer in described:
        if "kind" not in layer:
            table.add_row(Text(one_line(layer["name"])))
            continue
        shape = "x".join(map(str, layer["output_shape"]))
        table.add_row(layer["name"], layer["kind"], shape, f"{layer['parameters']:,}", f"{layer['multiply_adds']:,}")
    console.print()
    console.print(table)
