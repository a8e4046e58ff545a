"""Numbers that are not finite: no row with them is ok."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import xcli
from tests.colournet import colour_model, save_colour
from xcli.checks.findings import Findings
from xcli.checks.verify import verify
from xcli.core.errors import ImageError
from xcli.core.records import ImageBatch
from xcli.core.tensorflow import load_tensorflow
from xcli.inference.finite import not_finite, refuse_not_finite
from xcli.inference.options import RunOptions
from xcli.inference.run import Run
from xcli.inference.tasks import ClassifyTask, FeaturesTask
from xcli.models.loader import preprocessing_for
from xcli.models.network import LAST_MAP
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.tables.formats import open_table

if TYPE_CHECKING:
    from collections.abc import Collection

    from xcli.models.network import LoadedModel


class RedIsTooMuch:
    """The mean of each channel; a red image gives `value` in its last place instead. `likely` is never infinite."""

    def __init__(self, value: float) -> None:
        self._value = value

    def prepare(self, precision: str) -> None:
        """Nothing to fold."""

    def __call__(self, x: Any, taps: Collection[str]) -> dict[str, Any]:
        tf = load_tensorflow()
        mean = tf.reduce_mean(x, (1, 2))
        last = tf.where(mean[:, :1] > 0, self._value, mean[:, 2:])
        output = tf.concat([mean[:, :2], last], 1)
        found = {"colour": output, "likely": tf.sigmoid(output), LAST_MAP: output[:, None, None]}
        return {tap: found[tap] for tap in taps}


def model(value: float) -> LoadedModel:
    made = colour_model()
    return replace(made, network=RedIsTooMuch(value), layer_names=("colour", LAST_MAP), digest=f"red-{value}")


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    for number, colour in enumerate(("blue", "red", "green")):
        save_colour(tmp_path / "in" / f"{number}.png", colour)
    (tmp_path / "in" / "3.png").write_bytes(b"")
    return tmp_path / "in"


def rows_of(colours: Path, loaded: LoadedModel, task: Any) -> list[dict[str, Any]]:
    listing = list_images(SourceOptions((str(colours),)))
    run = Run(listing, loaded, task, preprocessing_for(loaded), RunOptions(device="cpu"))
    run.start()
    rows = [row for _, batch in run.batches() for row in batch.to_pylist()]
    assert run.report.errors == {"not-finite": 1, "empty": 1}
    return rows


@pytest.mark.parametrize(("value", "raw"), [(math.nan, False), (math.inf, False), (math.inf, True), (-math.inf, True)])
def test_a_score_that_is_not_finite(colours: Path, value: float, raw: bool) -> None:
    made = model(value)
    rows = rows_of(colours, made, ClassifyTask(made, top=2, raw_scores=raw))
    assert [row["status"] for row in rows] == ["ok", "error", "ok", "error"]
    assert rows[1]["error"].startswith("not-finite: the network gives NaN or infinity in float32; ")
    assert (rows[1]["label_1"], rows[1]["score_1"]) == (None, None)


def test_embeddings_of_the_same_pass_count_too(colours: Path) -> None:
    made = replace(model(math.inf), activation="softmax", output_name="likely")
    rows = rows_of(colours, made, ClassifyTask(made, top=1, with_features=True))
    assert [row["status"] for row in rows] == ["ok", "error", "ok", "error"]
    assert rows[1]["label_1"] is None


@pytest.mark.parametrize("target", ["x.csv", "x.parquet", "x.npy", "parts/"])
@pytest.mark.parametrize(("value", "dtype"), [(math.inf, "float32"), (1e5, "float16")])
def test_features_in_every_format(colours: Path, tmp_path: Path, target: str, value: float, dtype: str) -> None:
    path = f"{tmp_path}/{target}"
    counts = xcli.features(colours, model=model(value), layer="colour", dtype=dtype, output=path)
    assert (counts.ok, counts.errors) == (2, {"not-finite": 1, "empty": 1})
    found = Findings()
    verdict = verify(open_table(path.rstrip("/")), None, found)
    assert verdict.passed, found.all
    errors = [text for batch in open_table(path.rstrip("/")).batches(["error"]) for text in batch[0].to_pylist()]
    expected = "the network gives" if math.isinf(value) else "the features are too large for float16; use --dtype"
    assert errors[1].startswith(f"not-finite: {expected}")


def test_images_in_memory(colours: Path) -> None:
    red = np.full((1, 8, 8, 3), (230, 20, 10), np.uint8)
    with pytest.raises(ValueError, match="image 0: not-finite: the features are too large for float16; use dtype"):
        xcli.features(red, model=model(1e5), layer="colour", dtype="float16")


@pytest.mark.parametrize(
    ("vector", "unit"),
    [([3e30, 4e30], [0.6, 0.8]), ([3e-30, 4e-30], [0.6, 0.8]), ([3.0, 4.0], [0.6, 0.8]), ([0.0, 0.0], [0.0, 0.0])],
)
def test_vectors_whose_squares_no_float32_holds_are_normalized(vector: list[float], unit: list[float]) -> None:
    both = np.array([vector, [1, 0]], np.float32)
    (found,) = FeaturesTask(normalize=True).values([both])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [unit, [1, 0]], rtol=1e-6)
    alone = FeaturesTask(normalize=True).values([both[1:]])[0]
    assert alone.tobytes() == found[1:].tobytes(), "no row depends on the others"


def test_an_image_keeps_its_first_error() -> None:
    empty = ImageError("empty", "no bytes at all")
    batch = ImageBatch((None,) * 3, np.zeros((3, 1, 1, 3), np.uint8), (None, empty, None))  # type: ignore[arg-type]
    values = [np.array([[1.0], [math.nan], [math.inf]], np.float32)]
    errors = refuse_not_finite(batch, values, values, "float16").errors
    assert errors[:2] == (None, empty)
    assert str(errors[2]) == str(not_finite("float16"))
    assert str(not_finite("float16")).endswith("in float16; try --precision float32")
