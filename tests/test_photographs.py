"""Real photographs and the real ImageNet weights, where they are at hand.

The directory that `XCEPTION_TEST_DATA` names (by default `shared/data` beside the checkout) holds `weights/` and
`clothing/validation/<class>/`. Without it these tests are skipped.
"""

from __future__ import annotations

import csv
import os
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import run_process
from tests.imagefiles import exif, turned
from xcli import Preprocessing, RunOptions, classify, extract_features, load_model
from xcli.models.architecture import weighted_layers
from xcli.models.hdf5_weights import BIAS, KERNEL, read_weights

DATA = Path(os.environ.get("XCEPTION_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
NO_TOP = DATA / "weights" / "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"
HEAD = DATA / "weights" / "imagenet_head_rows_1159_2047.npz"
PHOTOS = DATA / "clothing" / "validation"

pytestmark = pytest.mark.skipif(
    not PHOTOS.is_dir(), reason=f"no photographs and weights in {DATA} (XCEPTION_TEST_DATA)"
)


def some(kind: str, count: int) -> list[str]:
    return [str(path) for path in islice(sorted((PHOTOS / kind).iterdir()), count)]


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file with the rows of the ImageNet classifier that are at hand, and zeros for the others."""
    weights = read_weights(NO_TOP, include_top=False)
    with np.load(HEAD) as head:
        kernel = np.zeros((2048, 1000), np.float32)
        kernel[int(head["first_row"]) :] = head["kernel"]
        weights |= {KERNEL: kernel, BIAS: head["bias"]}
    path = tmp_path_factory.mktemp("weights") / "imagenet.h5"
    with h5py.File(path, "w") as file:
        layers = [layer.name for layer in weighted_layers()] + ["predictions"]
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for layer in layers:
            names = [name for name in weights if name.startswith(f"{layer}/")]
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name in names:
                group[name] = weights[name]
    return path


EXPECTED = {
    "t-shirt": {"jersey", "sweatshirt"},
    "pants": {"jean", "pajama", "suit", "velvet"},
    "shoes": {"running_shoe", "Loafer", "sandal", "clog", "cowboy_boot"},
    "skirt": {"miniskirt", "hoopskirt", "overskirt", "sarong", "velvet"},
}


def test_classify_says_what_is_in_the_photographs(imagenet: Path, tmp_path: Path) -> None:
    photos = {photo: kind for kind in EXPECTED for photo in some(kind, 4)}
    result = run_process("classify", *photos, "--weights", imagenet, "-o", tmp_path / "out.csv", "--top", "3")
    assert result.code == 0, result
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == list(photos)
    right = [bool({row[f"label_{k}"] for k in (1, 2, 3)} & EXPECTED[photos[row["path"]]]) for row in rows]
    assert sum(right) >= 0.8 * len(right), [(row["path"], row["label_1"]) for row in rows]


def test_all_eight_orientations_are_the_same_photograph(imagenet: Path, tmp_path: Path) -> None:
    with Image.open(some("pants", 1)[0]) as photo:
        for orientation in range(1, 9):
            tag = exif(orientation)
            turned(photo.convert("RGB"), orientation).save(tmp_path / f"{orientation}.jpg", quality=95, exif=tag)
    model = load_model(weights=str(imagenet))
    labels = classify(str(tmp_path), model=model, top=1)["label_1"].to_pylist()
    assert len(labels) == 8
    assert set(labels) <= EXPECTED["pants"]
    assert len(set(labels)) == 1
    features = extract_features(str(tmp_path), model=load_model(weights=str(NO_TOP), include_top=False))
    vectors = np.stack(features["features"].to_pylist())
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (vectors @ vectors[0]).min() > 0.999


def test_features_are_those_of_keras(tmp_path: Path) -> None:
    import keras

    photos = [photo for kind in sorted(path.name for path in PHOTOS.iterdir()) for photo in some(kind, 1)]
    pixels = np.stack([np.asarray(keras.utils.load_img(photo, target_size=(299, 299))) for photo in photos])
    reference = keras.applications.Xception(include_top=False, pooling="avg", weights=str(NO_TOP))
    inputs = keras.applications.xception.preprocess_input(pixels.astype(np.float32))
    expected = reference.predict(inputs, verbose=0, batch_size=10)
    model = load_model(weights=str(NO_TOP), include_top=False)
    exact = Preprocessing(resize="squash", interpolation="nearest")
    for batch_size in (1, 7, 32):
        options = RunOptions(batch_size=batch_size, device="cpu", precision="float32")
        table = extract_features([*photos, photos[0]], model=model, preprocessing=exact, options=options)
        found = np.stack(table["features"].to_pylist()).astype(np.float32)
        np.testing.assert_allclose(found[:-1], expected, atol=1e-4, rtol=0)
        assert found[-1].tobytes() == found[0].tobytes()
