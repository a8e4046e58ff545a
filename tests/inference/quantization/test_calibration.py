"""Calibrating int8 on images of a listing, with a network of a few layers in place of an Xception."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from xcli.core.errors import CheckError, UsageError
from xcli.core.tensorflow import load_tensorflow
from xcli.images.preprocessing import Preprocessing
from xcli.inference.options import RunOptions
from xcli.inference.quantization import calibration
from xcli.inference.quantization.calibration import FEWEST_IMAGES, CalibrationCache, Calibrator, draw
from xcli.inference.quantization.files import read_or_make
from xcli.models.labels import Labels
from xcli.models.network import LAST_MAP, LoadedModel
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions

if TYPE_CHECKING:
    from collections.abc import Collection

    from xcli.inference.quantization.calibration import Again

pytest.importorskip("openvino", reason="the extra [openvino] is not installed")

SIZE, IMAGES = 32, 80


class Pointwise:
    """Three convolutions, two of them pointwise, and a classifier.

    Args:
        scale: of the weights.
    """

    def __init__(self, scale: float = 1.0) -> None:
        random = np.random.default_rng(3)
        shapes = ((3, 3, 3, 128), (1, 1, 128, 160), (1, 1, 160, 48))
        self.kernels = [random.normal(0, scale / np.sqrt(np.prod(one[:3])), one).astype(np.float32) for one in shapes]
        self.head = random.normal(0, 1, (48, 3)).astype(np.float32)

    def prepare(self, precision: str) -> None:
        assert precision == "float32"

    def __call__(self, x: Any, taps: Collection[str]) -> dict[str, Any]:
        tf = load_tensorflow()
        for number, kernel in enumerate(self.kernels):
            x = tf.nn.relu(tf.nn.conv2d(x, tf.constant(kernel), 1 if number else 2, "SAME") + 0.1)
        return {LAST_MAP: x, "out": tf.linalg.matmul(tf.reduce_mean(x, (1, 2)), tf.constant(self.head))}


def model_of(scale: float = 1.0, *, classes: bool = True) -> LoadedModel:
    labels, output = (Labels(("a", "b", "c")), "out") if classes else (None, None)
    layers = (LAST_MAP, "out")
    digest = f"random-{scale}"
    return LoadedModel("small", None, digest, Pointwise(scale), SIZE, "xception", labels, output, "linear", layers)


OPTIONS = RunOptions(engine="openvino", precision="int8", calibration=40, workers=2)
PIXELS = Preprocessing(size=SIZE)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(5)
    for number in range(IMAGES):
        colours = random.uniform(0, 255, 3) + random.normal(0, random.uniform(5, 60), (SIZE, SIZE, 3))
        Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8)).save(folder / f"{number:02}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> CalibrationCache:
    return CalibrationCache(tmp_path.joinpath)


def listed(folder: Path, **more: Any) -> Again:
    return lambda: iter(list_images(SourceOptions((str(folder),), **more)))


def test_the_images_are_drawn_by_their_paths(photos: Path) -> None:
    taken = [ref.path for ref in draw(listed(photos), 70)]
    assert len(set(taken)) == 70
    assert taken != sorted(taken)
    # What else is listed, and in which order, changes nothing about those that stay.
    fewer = {ref.path for ref in draw(listed(photos, exclude=("0?.png",)), 70)}
    kept = [path for path in taken if not path.rpartition("/")[2].startswith("0")]
    assert set(kept) <= fewer
    backwards = reversed(list(listed(photos)()))
    assert [ref.path for ref in draw(lambda: backwards, 70)] == taken


def test_too_few_images_and_lists_that_are_read_once_are_refused(photos: Path) -> None:
    with pytest.raises(UsageError, match=f"at least {FEWEST_IMAGES} images, and 11 are listed"):
        draw(listed(photos, limit=11), 600)
    with pytest.raises(UsageError, match="--calibration-model FILE"):
        draw(None, 600)


@pytest.mark.parametrize("classes", [True, False])
def test_a_calibration_is_made_once(
    photos: Path, cache: CalibrationCache, caplog: pytest.LogCaptureFixture, classes: bool
) -> None:
    caplog.set_level(logging.INFO, "xcli")
    model = model_of(classes=classes)
    found = Calibrator(model, PIXELS, OPTIONS, cache).get(listed(photos))
    assert len(found.images) == 40
    assert found.loss.classes == classes
    assert found.loss.images == 39  # one of those that were drawn cannot be read
    assert 0.99 < found.loss.cosine_percentile_1 < found.loss.cosine_median < 1
    assert sum(layer is not None for layer in found.layers.values()) == 2
    what = "the same best class on" if classes else "features with a cosine of at least"
    assert f"int8, calibrated on 40 images; against float32 on {found.loss.images} others: {what}" in caplog.text
    caplog.clear()
    again = Calibrator(model, PIXELS, OPTIONS, cache).get(listed(photos))
    assert again.digest == found.digest
    assert "calibrating on" not in caplog.text
    assert "int8, calibrated on 40 images" in caplog.text


def test_the_same_images_give_the_same_calibration(photos: Path, tmp_path: Path) -> None:
    one, other = (
        Calibrator(model_of(), PIXELS, OPTIONS, CalibrationCache((tmp_path / name).joinpath)).get(listed(photos))
        for name in ("one", "other")
    )
    assert one.content == other.content


def test_a_run_that_goes_on_keeps_its_calibration(
    photos: Path, cache: CalibrationCache, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "xcli")
    found = Calibrator(model_of(), PIXELS, OPTIONS, cache).get(listed(photos))
    record = found.record()
    caplog.clear()
    other = listed(photos, exclude=("0?.png",))
    calibrator = Calibrator(model_of(), PIXELS, OPTIONS, cache)
    assert calibrator.foreseen(record) == record
    assert calibrator.get(other, record).digest == found.digest
    assert "calibrating on" not in caplog.text
    more = Calibrator(model_of(), PIXELS, replace(OPTIONS, calibration=35), cache)
    assert more.foreseen(record) is None
    assert more.get(other, record).digest != found.digest


def test_a_file_takes_the_place_of_the_listing(photos: Path, cache: CalibrationCache, tmp_path: Path) -> None:
    name = str(tmp_path / "photos.int8")
    kept = replace(OPTIONS, calibration_model=name)
    made = Calibrator(model_of(), PIXELS, kept, cache).get(listed(photos))
    nowhere = CalibrationCache(lambda name: None)
    read = Calibrator(model_of(), PIXELS, kept, nowhere)
    assert read.get(None).digest == made.digest
    assert read.foreseen(None) == made.record()
    with pytest.raises(UsageError, match=r"photos\.int8 was made for another model"):
        Calibrator(model_of(2.0), PIXELS, kept, nowhere).get(None)
    with pytest.raises(UsageError, match=r"photos\.int8 was made for images that were prepared otherwise"):
        Calibrator(model_of(), replace(PIXELS, resize="squash"), kept, nowhere).get(None)


def test_too_great_a_loss_is_refused_with_another_choice(photos: Path, cache: CalibrationCache, tmp_path: Path) -> None:
    name = str(tmp_path / "photos.int8")
    found = Calibrator(model_of(), PIXELS, OPTIONS, cache).get(listed(photos))
    read_or_make(name, lambda: replace(found, loss=replace(found.loss, agreement=0.979)))
    options = replace(OPTIONS, calibration_model=name)
    with pytest.raises(CheckError, match=r"0\.979 of 39 images.*--precision bfloat16"):
        Calibrator(model_of(), PIXELS, options, cache).get(None)
    Calibrator(model_of(), PIXELS, replace(options, min_agreement=0.97), cache).get(None)


def test_images_that_cannot_be_read_are_not_enough(tmp_path: Path, cache: CalibrationCache) -> None:
    for number in range(FEWEST_IMAGES):
        (tmp_path / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match="0 of those that were drawn can be read"):
        Calibrator(model_of(), PIXELS, OPTIONS, cache).get(listed(tmp_path))


def test_an_image_that_can_be_read_only_once_is_left_out_of_the_loss(
    photos: Path, cache: CalibrationCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    measured = [ref.path for ref in draw(listed(folder), 80)[40:]]
    gone = next(path for path in measured if not path.endswith("broken.png"))

    def rounded(observer: Any) -> Any:
        Path(gone).unlink(missing_ok=True)  # between the pass in float32 and that in integers
        return round_layers(observer)

    round_layers = calibration._rounded
    monkeypatch.setattr(calibration, "_rounded", rounded)
    found = Calibrator(model_of(), PIXELS, OPTIONS, cache).get(listed(folder))
    assert found.loss.images == len(measured) - ("broken.png" in "".join(measured)) - 1
    assert found.loss.agreement > 0.9
