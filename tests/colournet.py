"""A classifier that is right for reasons that anybody can see: red, green or blue, whichever is the strongest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from xcli.core.tensorflow import load_tensorflow
from xcli.models.labels import Labels
from xcli.models.network import LoadedModel

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

COLOURS = {"blue": (20, 30, 220), "green": (30, 200, 40), "red": (230, 20, 10)}
"""In the order of their labels, which is not that of the channels."""


class ColourNetwork:
    """The mean of each channel as the logit of its class; `sharpness` says how sure it is."""

    def __init__(self, sharpness: float, broken: bool = False) -> None:
        self._sharpness, self._broken = sharpness, broken

    def prepare(self, precision: str) -> None:
        """Nothing to fold."""

    def __call__(self, x: Any, taps: Collection[str]) -> dict[str, Any]:
        tf = load_tensorflow()
        logits = self._sharpness * tf.reverse(tf.reduce_mean(x, (1, 2)), [1])
        return {"colour": logits / tf.zeros_like(logits) * 0 if self._broken else logits}


def colour_model(
    sharpness: float = 3, *, wnids: tuple[str, ...] | None = None, classifier: bool = True, broken: bool = False
) -> LoadedModel:
    """Tells blue, green and red apart, at 32 pixels."""
    return LoadedModel(
        name="colours",
        path=None,
        digest=f"colours-{sharpness}",
        network=ColourNetwork(sharpness, broken),
        size=32,
        input_range="xception",
        labels=Labels(tuple(COLOURS), wnids, "colours.txt") if classifier else None,
        output_name="colour" if classifier else None,
        activation="linear",
        layer_names=("colour",),
    )


def save_colour(path: Path, colour: str, number: int = 0) -> Path:
    """A small PNG of nearly one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(-12, 12, (24, 30, 3))
    Image.fromarray(np.clip(noise + COLOURS[colour], 0, 255).astype(np.uint8)).save(path)
    return path


def save_folders(top: Path, count: int = 4) -> Path:
    """A folder for each colour, with `count` images, the last one of green being red: one mistake."""
    for colour in COLOURS:
        for number in range(count):
            wrong = colour == "green" and number == count - 1
            save_colour(top / colour / f"{number}.png", "red" if wrong else colour, number)
    return top
