"""Activations at a cut: what the engine gives, kept on the disk, continued and reused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.cli.conftest import save_photos
from xcli.images.preprocessing import Preprocessing, load_image
from xcli.inference.engines.tensorflow import Engine, Engines
from xcli.inference.options import RunOptions
from xcli.models.loader import load_model
from xcli.models.network import LoadedModel
from xcli.sources.labelled import read_labelled
from xcli.training.activation_cache import MARKER, ActivationCache
from xcli.training.activations import PROGRESS, ActivationExtractor, _read_progress
from xcli.training.recipe import Recipe
from xcli.training.split import Example, split_images

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PIXELS = Preprocessing(size=71)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    loaded = load_model(weights="none", include_top=False, image_size=71)
    loaded.network.prepare("float32")
    return loaded


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Example, ...]:
    """Six images of two classes, the fourth of which is none."""
    root = tmp_path_factory.mktemp("labelled")
    save_photos(root / "a", ["0.jpg", "1.jpg", "2.jpg"], (80, 71))
    save_photos(root / "b", ["4.jpg", "5.jpg"], (71, 90))
    (root / "b" / "3.jpg").write_bytes(b"no image")
    return split_images(read_labelled(str(root)), 0, 0).examples


ENGINES: dict[str, Engines] = {}
"""One a cut: tracing is what takes the time here."""


def extractor(model: LoadedModel, folder: Path, unfreeze: str = "none", **options: Any) -> ActivationExtractor:
    preprocessing, seed = options.get("preprocessing", PIXELS), options.get("seed", 0)
    cache, recipe = ActivationCache(folder, 1 << 30), Recipe(unfreeze=unfreeze, seed=seed)
    usage = options.get("usage", RunOptions())
    made = ActivationExtractor(model, recipe, preprocessing, cache, ("/CPU:0",), "float32", usage)
    if not usage.on_openvino:
        made._engines = ENGINES.get(unfreeze)
        ENGINES[unfreeze] = made._start_engines()
    return made


def direct(model: LoadedModel, examples: tuple[Example, ...], layer: str | None, pooling: str | None) -> NDArray[Any]:
    """The same by the engine alone; zeros for the image that is none."""
    pixels = np.zeros((6, 71, 71, 3), np.uint8)
    for row in (0, 1, 2, 4, 5):
        location = examples[row].sample.ref.location
        pixels[row] = load_image(location, PIXELS)
    found = Engine(model.features(pooling, layer), size=71, batch_size=6)(pixels)[0]
    found[3] = 0
    return found


def test_maps_and_features_are_those_of_the_engine(
    model: LoadedModel, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    found = extractor(model, tmp_path, "block14").view(examples, 0)
    assert found.maps is not None
    assert found.maps.dtype == np.float16
    expected = direct(model, examples, "block13_add", None)
    assert np.abs(found.maps - expected).max() <= 1e-3 * np.abs(expected).max()
    assert np.abs(found.pooled - direct(model, examples, None, "avg")).max() < 1e-5
    assert list(found.errors) == [3]
    assert found.errors[3].startswith("not-an-image: ")
    assert not found.reused


@pytest.mark.parametrize("unfreeze", ["none", pytest.param("block14", marks=pytest.mark.slow), "all"])
def test_openvino_gives_the_activations_of_tensorflow(
    model: LoadedModel,
    examples: tuple[Example, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unfreeze: str,
) -> None:
    pytest.importorskip("openvino", reason="the extra [openvino] is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "compiled"))
    expected = extractor(model, tmp_path, unfreeze).view(examples, 0)
    found = extractor(model, tmp_path, unfreeze, usage=RunOptions(engine="openvino")).view(examples, 0)
    assert not found.reused
    assert found.errors == expected.errors
    assert np.abs(found.pooled - expected.pooled).max() < 1e-5
    if expected.maps is None:
        assert found.maps is None
        return
    assert found.maps is not None
    assert found.maps.dtype == expected.maps.dtype
    assert np.abs(found.maps.astype(np.float32) - expected.maps).max() <= 1e-3 * np.abs(expected.maps).max()


def test_an_image_whose_features_are_not_finite_is_left_out(
    model: LoadedModel, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    made = extractor(model, tmp_path)

    class TooMuch:
        batch_size, output_shapes = 6, ((2048,),)
        streams = (lambda pixels: (np.where(np.arange(6)[:, None] == 1, np.float32("inf"), np.ones((6, 2048))),),)

    made._engines = TooMuch()  # type: ignore[assignment]
    found = made.view(examples, 0)
    assert {index: text.partition(":")[0] for index, text in found.errors.items()} == {
        1: "not-finite",
        3: "not-an-image",
    }
    assert found.pooled.any(1).tolist() == [True, False, True, False, True, True]


def test_at_the_input_the_maps_are_the_pixels(
    model: LoadedModel, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    found = extractor(model, tmp_path, "all").view(examples, 0)
    assert found.maps is not None
    assert found.maps.dtype == np.uint8
    assert np.array_equal(found.maps[4], load_image(examples[4].sample.ref.location, PIXELS))
    assert found.pooled.any(1).tolist() == [True, True, True, False, True, True]


def test_a_second_run_computes_nothing(model: LoadedModel, examples: tuple[Example, ...], tmp_path: Path) -> None:
    first = extractor(model, tmp_path)
    computed: list[int] = []
    before = first.view(examples, 0, computed.append)
    assert sum(computed) == 6
    second = extractor(model, tmp_path)
    after = second.view(examples, 0, computed.append)
    assert after.reused
    assert sum(computed) == 6
    assert after.errors == before.errors
    assert np.array_equal(after.pooled, before.pooled)
    assert after.maps is None
    assert after.size > before.pooled.nbytes


def test_views_differ(model: LoadedModel, examples: tuple[Example, ...], tmp_path: Path) -> None:
    one = extractor(model, tmp_path)
    views = [one.view(examples, number).pooled for number in range(3)]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(views[a][0] - views[b][0]).max() > 1e-6


def test_the_key_changes_with_everything_that_counts(
    model: LoadedModel, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    plain = extractor(model, tmp_path)
    other_bytes = (replace(examples[0], digest="0" * 64), *examples[1:])
    keys = {
        plain.key(examples, 0),
        plain.key(examples, 1),
        plain.key(examples, 2),
        plain.key(examples[1:], 0),
        plain.key(other_bytes, 0),
        extractor(model, tmp_path, "block14").key(examples, 0),
        extractor(model, tmp_path, preprocessing=Preprocessing(size=71, resize="pad")).key(examples, 0),
        extractor(replace(model, digest="other"), tmp_path).key(examples, 0),
        extractor(model, tmp_path, seed=1).key(examples, 2),
    }
    assert len(keys) == 9
    assert plain.key(examples, 0) == extractor(model, tmp_path, seed=1).key(examples, 0)


def test_a_view_that_was_interrupted_goes_on_where_it_was(
    model: LoadedModel, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    whole = extractor(model, tmp_path / "whole").view(examples, 0)
    one = extractor(model, tmp_path / "cut", "none")
    folder = one.cache.folder / one.key(examples, 0)
    folder.mkdir()
    (folder / MARKER).touch()
    begun = np.lib.format.open_memmap(folder / "pooled.npy", "w+", np.float32, (6, 2048))
    begun[:4] = 7
    begun.flush()
    (folder / PROGRESS).write_text(json.dumps({"done": 4, "errors": {"3": "not-an-image: before"}}))
    computed: list[int] = []
    found = one.view(examples, 0, computed.append)
    assert sum(computed) == 2
    assert (found.pooled[:4] == 7).all()
    assert np.abs(found.pooled[4:] - whole.pooled[4:]).max() < 1e-6
    assert found.errors == {3: "not-an-image: before"}
    assert not (folder / PROGRESS).exists()


@pytest.mark.parametrize(
    "text",
    [
        '{"done": 7, "errors": {}}',
        '{"done": -1, "errors": {}}',
        '{"done": 1e999, "errors": {}}',
        '{"done": 4, "errors": [1]}',
        '{"done": 4, "errors": {"4": "later"}}',
        '{"done": 4, "errors": {"x": "y"}}',
        '{"done": ' + "[" * 99_999,
    ],
)
def test_progress_that_no_run_has_made_counts_for_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / PROGRESS).write_text(text)
    assert _read_progress(tmp_path, 6) == (0, {})


def test_progress_without_its_array_counts_for_nothing(
    model: LoadedModel, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    one = extractor(model, tmp_path)
    folder = one.cache.folder / one.key(examples, 0)
    folder.mkdir()
    (folder / MARKER).touch()
    (folder / PROGRESS).write_text(json.dumps({"done": 6, "errors": {}}))
    computed: list[int] = []
    assert one.view(examples, 0, computed.append).pooled[0].any()
    assert sum(computed) == 6


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda folder: (folder / "pooled.npy").unlink(),
    "short": lambda folder: (folder / "pooled.npy").write_bytes((folder / "pooled.npy").read_bytes()[:1000]),
    "another shape": lambda folder: np.save(folder / "pooled.npy", np.zeros((5, 2048), np.float32)),
    "another type": lambda folder: np.save(folder / "pooled.npy", np.zeros((6, 2048), np.float64)),
    "objects": lambda folder: np.save(folder / "pooled.npy", np.array([{}] * 6, object)),
    "errors in a list": lambda folder: (folder / "entry.json").write_text('{"images": 6, "errors": ["a"]}'),
    "errors of no image": lambda folder: (folder / "entry.json").write_text('{"images": 6, "errors": {"6": "a"}}'),
    "nested": lambda folder: (folder / "entry.json").write_text('{"images": 6, "errors": ' + "[" * 99_999),
    "no description": lambda folder: (folder / "entry.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_entry_that_is_damaged_is_computed_again(
    model: LoadedModel, examples: tuple[Example, ...], tmp_path: Path, damage: str
) -> None:
    before = np.array(extractor(model, tmp_path).view(examples, 0).pooled)
    again = extractor(model, tmp_path)
    DAMAGE[damage](again.cache.folder / again.key(examples, 0))
    found = again.view(examples, 0)
    assert not found.reused
    assert np.array_equal(found.pooled, before)
