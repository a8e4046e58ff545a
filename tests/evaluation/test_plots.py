"""Pictures: that they are drawn, whole, of a readable size, whatever the names are."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from xcli.core.records import ImageRef
from xcli.evaluation import plots
from xcli.evaluation.evaluate import Prediction
from xcli.storage.local import LocalFile

NASTY = ["$x_", "$\\frac{1}{0}$", "new\nline", "\x1b[31m", "%s {}", "_hidden", "ünïcödé", "猫", "a" * 300, ""]


def matrix_of(classes):
    random = np.random.default_rng(classes)
    return random.integers(0, 3, (classes, classes)) + np.diag(random.integers(1, 60, classes))


def opened(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image.convert("RGB")


def inked(image):
    """Share of the pixels that are not white."""
    return float((np.asarray(image) != 255).any(2).mean())


@pytest.mark.parametrize(("classes", "smallest", "largest"), [(1, 300, 900), (2, 300, 900), (10, 800, 1400)])
def test_confusion_matrix_of_few_classes(classes, smallest, largest):
    image = opened(plots.confusion_matrix_png(matrix_of(classes), NASTY[:classes]))
    assert all(smallest < side < largest for side in image.size)
    assert inked(image) > 0.02


def test_confusion_matrix_has_room_for_a_hundred_names():
    image = opened(plots.confusion_matrix_png(matrix_of(100), [f"class {index}" for index in range(100)]))
    # 100 rows of at least 17 pixels, which letters of 7.5 points need.
    assert 1700 < image.height < 3000


def test_of_very_many_classes_only_those_that_occur_are_drawn():
    matrix = np.zeros((1000, 1000), np.int64)
    matrix[10, 10], matrix[10, 500], matrix[999, 999] = 5, 2, 7
    names = [f"class {index}" for index in range(1000)]
    few = np.array([[5, 2, 0], [0, 0, 0], [0, 0, 7]])
    assert plots.confusion_matrix_png(matrix, names) == plots.confusion_matrix_png(
        few, ["class 10", "class 500", "class 999"]
    )


def test_confusion_matrix_of_nothing():
    assert inked(opened(plots.confusion_matrix_png(np.zeros((200, 200), np.int64), ["x"] * 200))) > 0


def test_diagonal_is_dark_and_the_rest_light():
    image = np.asarray(opened(plots.confusion_matrix_png(np.diag([40] * 12), list("abcdefghijkl"))), int)
    dark = (image.sum(2) < 200).mean()
    light = (image.sum(2) > 700).mean()
    assert dark > 0.02
    assert light > 0.5


def rows(*phases):
    return [
        {"phase": phase, "loss": 1 / n, "accuracy": 1 - 0.5 / n, "val_loss": 1.2 / n, "val_accuracy": 0.9 - 0.4 / n}
        for n, phase in enumerate(phases, start=1)
    ]


@pytest.mark.parametrize("phases", [(), ("head",), ("head", "head", "block14 $x", "block14 $x")])
def test_history(phases):
    assert opened(plots.history_png(rows(*phases), len(phases))).width > 900


def test_history_with_gaps_and_without_validation():
    some = [{"phase": "head", "loss": 1.0, "accuracy": None}, {"phase": "head", "loss": 0.5, "accuracy": 0.5}]
    whole = plots.history_png(some, 2)
    assert opened(whole).width > 900
    assert whole != plots.history_png(some[:1], 1)


def test_history_stars_the_kept_epoch():
    columns = []
    for kept in (0, 1, 2):
        pixels = np.asarray(opened(plots.history_png(rows("head", "head", "blocks"), kept)), int)
        columns.append(((pixels[..., 0] > 180) & (pixels[..., 1:].max(2) < 80)).any(0).nonzero()[0])
    assert not len(columns[0])
    assert columns[1][0] < columns[2][0] - 50  # the other star, in the legend, is on the right


def mistake(path, predicted, score):
    return Prediction(ImageRef(str(path), LocalFile(str(path)), b""), "cat", predicted, score, correct=False)


def test_mistakes(tmp_path):
    photo = tmp_path / "photo.png"
    Image.new("RGB", (40, 30), (255, 0, 0)).save(photo)
    items = [mistake(photo, name, 0.9) for name in NASTY]
    items.append(mistake(tmp_path / "gone.jpg", "dog", 0.1))
    image = np.asarray(opened(plots.mistakes_png(items)), int)
    red = (image[..., 0] > 200) & (image[..., 1:].max(2) < 60)
    # Ten thumbnails of at least 100 by 75 pixels.
    assert red.sum() > 10 * 7500


def test_thumbnails_stand_upright(tmp_path):
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:20, :, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif)
    image = np.asarray(opened(plots.mistakes_png([mistake(tmp_path / "turned.jpg", "x", 1)])), int)
    red = np.flatnonzero(((image[..., 0] > 180) & (image[..., 1:].max(2) < 80)).any(1))
    black = np.flatnonzero((image.max(2) < 20).sum(1) > 80)
    assert black.mean() < red.mean()


def test_more_mistakes_than_there_is_room_for(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "MAX_MISTAKES", 4)
    monkeypatch.setattr(plots, "_COLUMNS", 2)
    items = [mistake(tmp_path / "gone.jpg", "dog", 0.5)] * 5
    sizes = [opened(plots.mistakes_png(items[:count])).size for count in (5, 4, 3, 1)]
    assert sizes[0] == sizes[1] == sizes[2]
    assert sizes[3][1] < sizes[2][1]


def test_no_mistakes():
    assert inked(opened(plots.mistakes_png([]))) > 0


def test_settings_of_the_user_neither_matter_nor_change():
    plain = plots.mistakes_png([])
    with matplotlib.rc_context({"text.usetex": True, "font.size": 40, "savefig.dpi": 10}):
        assert plots.mistakes_png([]) == plain
        assert matplotlib.rcParams["text.usetex"] is True
        assert matplotlib.rcParams["font.size"] == 40
