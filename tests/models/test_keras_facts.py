"""What is kept of a `.keras` file: a model that is loaded with it is the one that Keras loads, without Keras."""

from __future__ import annotations

import os
import shutil
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.models.test_model_limits import altered
from tests.networks import SIZE
from tests.thorough import slow
from xcli.core.errors import ModelError, XcliError
from xcli.images.preprocessing import Preprocessing
from xcli.models import keras_facts, keras_network
from xcli.models.bundle import build_model, write_bundle
from xcli.models.loader import load_model
from xcli.models.network import LoadedModel

if TYPE_CHECKING:
    from xcli.models.hdf5_weights import Weights


@pytest.fixture(scope="module")
def bundle(weights: Weights, large_files: Path) -> str:
    folder = large_files / "known"
    folder.mkdir()
    count = len(weights["predictions/bias"])
    names = tuple(f"class {number}" for number in range(count))
    model = build_model(weights, count, SIZE, (1 / 127.5, -1.0), 0.3)
    write_bundle(folder, model, names, Preprocessing(size=SIZE, resize="pad"), {})
    return str(folder)


@pytest.fixture(params=["bundle", "nested_file"])
def model(request: pytest.FixtureRequest) -> str:
    """A bundle and a file of a notebook."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "xception" / "models"


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that Keras loads from now on."""
    load, loaded = keras_network._load, list[str]()

    def counted(folder: str, path: str) -> Any:
        loaded.append(path)
        return load(folder, path)

    monkeypatch.setattr(keras_network, "_load", counted)
    return loaded


def known(loaded: LoadedModel) -> dict[str, Any]:
    """Everything that a command knows of a model before it runs."""
    found = {one.name: getattr(loaded, one.name) for one in fields(LoadedModel) if one.name != "network"}
    return {**found, "features": loaded.features("avg").description, "scores": loaded.scores().description}


def test_a_second_load_is_the_same_without_keras(model: str, loads: list[str], caches: Path) -> None:
    first, second = load_model(model=model), load_model(model=model)
    assert len(loads) == 1
    assert known(second) == known(first)
    assert second.backbone is not None
    assert caches.stat().st_mode & 0o077 == 0
    second.network.prepare("float32")
    assert len(loads) == 2


@slow
@pytest.mark.parametrize(
    "options", [{"image_size": SIZE + 1}, {"classes": 4}, {"labels": "two.txt"}, {"input_range": "raw"}]
)
def test_options_are_taken_and_refused_alike(options: dict[str, Any], model: str, tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("one\ntwo\n")
    if "labels" in options:
        options = {"labels": str(tmp_path / options["labels"])}

    def outcome() -> Any:
        try:
            return known(load_model(model=model, **options))
        except XcliError as error:
            return type(error), str(error)

    first = outcome()
    assert outcome() == first
    assert isinstance(first, tuple) == ("input_range" not in options)


@slow
def test_what_else_would_be_found_out_is_not_taken_over(
    nested_file: str, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_model(model=nested_file, input_range="xception")
    other = load_model(model=nested_file, input_range="unit")
    assert first.backbone != other.backbone
    assert load_model(model=nested_file, input_range="xception").backbone == first.backbone
    assert len(loads) == 2
    monkeypatch.setattr(keras_facts, "versions", lambda *more: {"keras": "4.0"})
    load_model(model=nested_file)
    assert len(loads) == 3


def test_a_refused_file_is_refused_again(nested_file: str, loads: list[str], scratch: Path, caches: Path) -> None:
    def change(config: Any) -> None:
        config["config"]["layers"][0]["config"]["batch_shape"] = [None, SIZE, SIZE + 1, 3]

    path, messages = altered(nested_file, scratch / "wide.keras", change), set[str]()
    for _ in range(2):
        with pytest.raises(ModelError) as caught:
            load_model(model=path)
        messages.add(str(caught.value))
    assert len(messages) == 1
    assert not caches.exists()


def test_a_file_that_is_replaced_before_it_is_needed(nested_file: str, bundle: str, scratch: Path) -> None:
    path = scratch / "model.keras"
    shutil.copy(nested_file, path)
    load_model(model=str(path))
    kept = load_model(model=str(path))
    os.replace(shutil.copy(Path(bundle, "model.keras"), scratch / "other"), path)
    with pytest.raises(ModelError, match=r"model\.keras has changed while it was read"):
        kept.network.prepare("float32")


@slow
def test_a_damaged_record_is_made_again(nested_file: str, loads: list[str], caches: Path) -> None:
    first = load_model(model=nested_file)
    (record,) = caches.glob("*.model")
    whole = record.read_bytes()
    record.write_bytes(whole.replace(b'"units": 5', b'"units": 6'))
    assert known(load_model(model=nested_file)) == known(first)
    assert len(loads) == 2
    assert record.read_bytes() == whole


@slow
def test_without_a_cache_nothing_is_said_and_keras_loads_each_time(
    nested_file: str,
    loads: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        load_model(model=nested_file)
    assert len(loads) == 2
    assert not [record for record in caplog.records if record.levelname in ("INFO", "WARNING", "ERROR")]
