"""`xception export`."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from xcli.cli.display import open_console, print_facts, print_json
from xcli.cli.help import INPUT, MODEL, OUTPUT, Command, choice, flag, number, option, path
from xcli.cli.options import is_given, model_arguments, model_spec, pixel_arguments, pixel_options
from xcli.cli.table_run import quiet_libraries
from xcli.cli.verbosity import message_arguments, start_messages
from xcli.core.errors import ExitCode, UsageError
from xcli.core.text import one_line
from xcli.inference.export import ExportOptions, export_model
from xcli.inference.export_samples import DEFAULT_SAMPLES, MAX_SAMPLES, choose_samples
from xcli.models.export.formats import FORMATS, PRECISIONS
from xcli.models.hdf5_weights import TOP
from xcli.models.loader import load_model, preprocessing_for
from xcli.models.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger("xcli")

_PRECISION = (
    "float16 halves the file: onnx, openvino and litert then hold rounded weights, and compute in float32. A "
    "savedmodel also computes in float16, or in bfloat16, which the others do not have."
)
_IMAGES = (
    "Compare on images of SOURCE (a file, directory or glob) instead of on made ones. Repeatable. The pixel options "
    "are for them, and stand in the card."
)


@click.command(cls=Command)
@path("--images", INPUT, "SOURCE", _IMAGES, multiple=True)
@number(
    "--samples",
    INPUT,
    "N",
    click.IntRange(1, MAX_SAMPLES),
    "Images to compare on.",
    default=DEFAULT_SAMPLES,
    show_default=True,
)
@path("-o --output", OUTPUT, "DIR", "Write the model, its labels, card and README to DIR.", required=True)
@choice("--format", OUTPUT, list(FORMATS), "What is to run the model.", required=True)
@choice("--precision", OUTPUT, PRECISIONS, _PRECISION, of=ExportOptions)
@flag("--overwrite", OUTPUT, "Replace an earlier export in DIR.")
@flag("--json", OUTPUT, "Print the card as JSON.")
@option("--include-top/--no-include-top", MODEL, "Scores of the classifier, or features without it.", of=ModelSpec)
@choice(
    "--pooling",
    MODEL,
    ["avg", "max", "none"],
    "Export features: the average or maximum of each channel, or the whole map [default for features: avg].",
)
@option("--layer", MODEL, "Export features: the output of this layer; info --layers lists the names.", metavar="NAME")
@model_arguments(classes=True)
@pixel_arguments
@message_arguments
@click.pass_context
def export(ctx: click.Context, /, **values: Any) -> int:
    """Write a model for another program, and prove that it computes the same there.

    \b
    savedmodel  TensorFlow, TensorFlow Serving
    onnx        ONNX Runtime and others; needs the extra [onnx]
    openvino    OpenVINO, for Intel processors and GPUs; needs the extra [openvino]
    litert      LiteRT, once TensorFlow Lite, for telephones and small machines; needs the extra [litert]

    The model takes raw pixels, uint8[batch, size, size, 3] in RGB, for batches of any size; the image must have the
    size already. It gives float32: scores from 0 to 1 or, with --no-include-top, --pooling or --layer, or if it has no
    classifier, features.

    DIR appears after the model was loaded in the format's own runtime and compared with this program in float32. Scores
    may differ by 0.0001 (float32), 0.01 (float16) or 0.05 (bfloat16), features by as much of the greatest of them.

    Exit status: 0 the model is written, 2 usage, 3 the model cannot be had or exported, 5 output, 6 it differs.
    """
    messages = start_messages(ctx)
    options = _options(ctx, values)
    target = values["output"]
    options.check(target, values["overwrite"])
    spec = model_spec(ctx, values, include_top=not options.features)
    if options.layer == TOP and spec.model is None:
        spec = replace(spec, include_top=True)
    pixels = pixel_options(values)
    quiet_libraries(debug=messages.debug)
    model = load_model(spec)
    for note in model.notes:
        log.warning("%s", note)
    preprocessing = preprocessing_for(model, **pixels)
    samples = choose_samples(values["images"], preprocessing, values["samples"])
    card = export_model(model, target, options, preprocessing, samples=samples, overwrite=values["overwrite"])
    if values["json"]:
        print_json(card)
    else:
        print_facts(open_console(), _facts(card))
    size = sum(file["bytes"] for file in card["files"].values())
    log.info("%s: %s in %s, %.1f MB", one_line(target), card["format"], card["precision"], size / 1e6)
    return ExitCode.OK


def _options(ctx: click.Context, values: Mapping[str, Any]) -> ExportOptions:
    pooling, layer = values["pooling"], values["layer"]
    asked = pooling is not None or layer is not None
    if asked and values["include_top"] and is_given(ctx, "include_top"):
        raise UsageError("--include-top exports scores; --pooling and --layer are for features")
    features = asked or not values["include_top"]
    if features and values["labels"] is not None:
        raise UsageError("--labels names the classes of scores; features have none")
    return ExportOptions(
        values["format"],
        values["precision"],
        features=features,
        pooling=None if pooling == "none" else pooling or "avg",
        layer=layer,
    )


def _facts(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    source, result, compared = card["input"], card["output"], card["comparison"]
    facts = [
        ("input", f"{source['name']}: {source['dtype']}[{', '.join(map(str, source['shape']))}], RGB"),
        ("output", f"{result['name']}: {result['dtype']}[{', '.join(map(str, result['shape']))}]"),
        ("licence", card["model"]["licence_of_weights"]),
    ]
    return facts + [(name.replace("_", " "), _shown(value)) for name, value in compared.items()]


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 0.9 else str(value)
