"""What stands beside an exported model: its labels, a card for programs, and a page for people."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from xcli.core.text import one_line
from xcli.core.version import __version__, versions
from xcli.models.bundle import BUNDLE_LABELS
from xcli.models.download import sha256_of
from xcli.models.export.traced import INPUT
from xcli.models.imagenet_weights import IMAGENET_NO_TOP, IMAGENET_TOP
from xcli.storage import disk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xcli.images.preprocessing import Preprocessing
    from xcli.models.export.format import ExportFormat
    from xcli.models.network import LoadedModel

CARD, PAGE = "model_card.json", "README.md"

_RANGES = {"xception": "[-1, 1]", "unit": "[0, 1]", "raw": "[0, 255]"}
_RESIZE = {
    "crop": "ImageOps.fit(image, ({size}, {size}), Image.Resampling.{filter}, bleed={bleed:.4f})",
    "squash": "image.resize(({size}, {size}), Image.Resampling.{filter})",
    "pad": "ImageOps.pad(image, ({size}, {size}), Image.Resampling.{filter}, color=(128, 128, 128))",
}


def write_labels(folder: str, model: LoadedModel) -> None:
    """Writes the class names as `labels.json`, which `--labels` reads; raises OSError."""
    assert model.labels is not None, "only a model with a classifier has scores"
    names, wnids = model.labels.names, model.labels.wnids
    entries = list(names) if wnids is None else [list(pair) for pair in zip(wnids, names, strict=True)]
    _write(folder, BUNDLE_LABELS, json.dumps({"labels": entries}, indent=1, ensure_ascii=False) + "\n")


def licence_of(model: LoadedModel) -> str:
    """Returns what is known of the licence of a model's weights."""
    if model.digest in (IMAGENET_TOP.sha256, IMAGENET_NO_TOP.sha256):
        return "MIT (the ImageNet weights of Keras Applications)"
    if model.path is None:
        return "none: the weights are random numbers"
    return "unknown: it is that of the author of the weights; this program cannot tell"


def describe(
    model: LoadedModel,
    chosen: ExportFormat,
    *,
    precision: str,
    output: str,
    shape: tuple[int, ...],
    computed: Mapping[str, Any],
    preprocessing: Preprocessing,
    folder: str,
    comparison: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the card of an export, for JSON.

    Args:
        model, chosen, precision: what was exported, and how.
        output: name of the output.
        shape: of one image's result.
        computed: the description of the forward pass, without that of the model.
        preprocessing: how this program makes the input of an image file.
        folder: the directory with the files of the format, which are listed with their digests.
        comparison: with this program.
    """
    scores = output == "scores"
    return {
        "format": chosen.name,
        "precision": precision,
        "precision_of": "arithmetic" if chosen.computes else "weights",
        "tool": {"name": "xception-cli", "version": __version__},
        "versions": versions(*(package.replace("_", "-") for package in chosen.packages)),
        "model": {
            "name": model.name,
            "sha256": model.digest,
            "backbone": model.backbone,
            "parameters": model.parameters,
            "licence_of_weights": licence_of(model),
        },
        "input": {
            "name": INPUT,
            "dtype": "uint8",
            "shape": ["batch", model.size, model.size, 3],
            "channels": "RGB",
            "range": [0, 255],
            "scaled_inside_to": _RANGES[model.input_range],
        },
        "output": {"name": output, "dtype": "float32", "shape": ["batch", *shape]}
        | ({"range": [0, 1], "labels": BUNDLE_LABELS} if scores else {})
        | {name: value for name, value in computed.items() if name in ("layer", "pooling")},
        "preprocessing": preprocessing.as_dict(),
        "comparison": dict(comparison),
        "files": _files(folder),
    }


def _files(folder: str) -> dict[str, dict[str, Any]]:
    paths = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]
    return {
        os.path.relpath(path, folder): {"bytes": os.path.getsize(path), "sha256": sha256_of(path)}
        for path in sorted(paths)
    }


def write_card(folder: str, card: Mapping[str, Any], chosen: ExportFormat) -> None:
    """Writes the card, and the page that shows how to use the model; raises OSError."""
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    _write(folder, CARD, text)
    _write(folder, PAGE, _page(card, chosen))


def _write(folder: str, name: str, text: str) -> None:
    with disk.create(os.path.join(folder, name)) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def example(card: Mapping[str, Any], chosen: ExportFormat, folder: str = ".", photo: str = "photo.jpg") -> str:
    """Returns a program of Python that runs an exported model on a photograph, without this program.

    Args:
        card, chosen: of the export.
        folder, photo: where the model and the photograph are.
    """
    pixels, output = card["preprocessing"], card["output"]
    shortest = int(pixels["size"] / pixels["crop_pct"]) if pixels["resize"] == "crop" else pixels["size"]
    resized = _RESIZE[pixels["resize"]].format(
        size=pixels["size"], filter=pixels["interpolation"].upper(), bleed=(1 - pixels["size"] / shortest) / 2
    )
    needed = "Image, ImageOps"
    head = f"""\
import numpy as np
from PIL import {needed}

image = ImageOps.exif_transpose(Image.open("{photo}")).convert("RGB")
image = {resized}
pixels = np.asarray(image)[None]  # uint8[batch, {pixels["size"]}, {pixels["size"]}, 3]
"""
    used = chosen.usage.format(folder=folder, output=output["name"])
    if output["name"] == "scores":
        used += f"""
import json

labels = json.load(open("{folder}/labels.json"))["labels"]
print(labels[scores[0].argmax()], scores[0].max())
"""
    else:
        used += f"print({output['name']}.shape)\n"
    return head + "\n" + used


def _page(card: Mapping[str, Any], chosen: ExportFormat) -> str:
    source, output, compared = card["input"], card["output"], card["comparison"]
    pixels = card["preprocessing"]
    name = one_line(card["model"]["name"]).replace("`", "'")
    shape, taken = (", ".join(map(str, one["shape"])) for one in (output, source))
    what = "probabilities, in the order of labels.json" if output["name"] == "scores" else "an embedding"
    kept = ", ".join(
        f"{key} {value}" for key, value in pixels.items() if key in ("resize", "interpolation", "crop_pct")
    )
    measured = "\n".join(f"- {key.replace('_', ' ')}: {value}" for key, value in compared.items())
    return f"""\
# {name} for {chosen.runtime}

Written by xception-cli {card["tool"]["version"]}; everything on this page stands in {CARD} too.

- input: `{source["name"]}`, {source["dtype"]}[{taken}], RGB. The image must have this size already; scaling
  to {source["scaled_inside_to"]} is a part of the model.
- output: `{output["name"]}`, {output["dtype"]}[{shape}]: {what}
- what makes the input of a file in xception: {kept}
- licence of the weights: {card["model"]["licence_of_weights"]}

Compared with xception in float32, when it was written:

{measured}

```python
{example(card, chosen).rstrip()}
```
"""
