"""The computation of a table's features, found again from its provenance."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.writtentables import provenance
from xcli.core.errors import CheckError, ModelError
from xcli.images.preprocessing import Preprocessing
from xcli.inference.recorded import RecordedFeatures, recorded_features
from xcli.inference.tasks import FeaturesTask
from xcli.models.download import sha256_of
from xcli.models.imagenet_weights import IMAGENET_NO_TOP, IMAGENET_TOP
from xcli.models.spec import ModelSpec

SPEC = ModelSpec(include_top=False)


def recorded(command: str = "features", **changes: Any) -> RecordedFeatures:
    reader: Any = SimpleNamespace(name="t.parquet", provenance=provenance(command, **changes), meta=None)
    return recorded_features(reader)


def test_what_a_run_records_is_found_again() -> None:
    pixels = Preprocessing(size=150, resize="pad", interpolation="bilinear", bit_depth=12, strict=True)
    task = FeaturesTask("max", "block13_pool", "float16", True, "null")
    found = recorded(preprocessing=pixels.as_dict(), options=task.settings(), precision="bfloat16")
    assert (found.preprocessing, found.task, found.precision, found.has_top) == (pixels, task, "bfloat16", False)


def test_runs_that_recorded_less() -> None:
    found = recorded()
    assert found.preprocessing == Preprocessing(size=71, resampler="pillow")
    second = recorded("classify", options__features="avg")
    assert (second.task, second.has_top) == (FeaturesTask(), False)
    assert recorded(options__layer="predictions").has_top


@pytest.mark.parametrize(
    "changes",
    [
        {"preprocessing__sharpen": 2},
        {"preprocessing__size": "299"},
        {"preprocessing__size": True},
        {"preprocessing__size": 1_000_000},
        {"preprocessing__resize": "stretch"},
        {"options__pooling": 3},
        {"options__dtype": "float8"},
        {"options__attention": True},
    ],
)
def test_what_is_not_known_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CheckError, match=r"provenance of t\.parquet is not known"):
        recorded(**changes)


def test_a_table_that_does_not_say() -> None:
    reader: Any = SimpleNamespace(name="t.csv", provenance=None, meta=None)
    with pytest.raises(CheckError, match=r"t\.csv does not say how"):
        recorded_features(reader)


def test_the_model_is_found_where_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loaded: list[ModelSpec] = []

    def load(spec: ModelSpec) -> Any:
        loaded.append(spec)
        return SimpleNamespace(digest=digest, name="it")

    monkeypatch.setattr("xcli.inference.recorded.load_model", load)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.keras").write_bytes(b"a")
    digest = sha256_of(tmp_path / "run" / "model.keras")
    (tmp_path / "w.h5").write_bytes(b"a")
    for name, expected in (
        (
            str(tmp_path / "run"),
            ModelSpec(model=str(tmp_path / "run"), include_top=False, image_size=71, input_range="raw"),
        ),
        (f"Xception ({tmp_path}/w.h5)", ModelSpec(weights=f"{tmp_path}/w.h5", include_top=False, image_size=71)),
    ):
        recorded(model={"name": name, "sha256": digest, "input_range": "raw"}).load(SPEC, chosen=False)
        assert loaded.pop() == expected
    digest = "random-7"
    recorded(model__sha256=digest).load(SPEC, chosen=False)
    assert loaded.pop() == ModelSpec(weights="none", seed=7, include_top=False, image_size=71)
    digest = IMAGENET_TOP.sha256  # where the file without the classifier is not at hand
    for official in (IMAGENET_TOP, IMAGENET_NO_TOP):
        recorded(model__sha256=official.sha256).load(SPEC, chosen=False)
        assert loaded.pop() == ModelSpec(include_top=False, image_size=71)


def test_other_models_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_bytes(b"other")
    with pytest.raises(ModelError, match="--weights") as caught:
        recorded(model__name=f"Xception ({tmp_path}/w.h5)").load(SPEC, chosen=False)
    assert "abababab" in str(caught.value)
    with pytest.raises(ModelError, match=r"gone\.keras.*--model"):
        recorded(model__name="gone.keras").load(SPEC, chosen=False)
    other = SimpleNamespace(digest="cd" * 32, name="Xception (mine.h5)")
    monkeypatch.setattr("xcli.inference.recorded.load_model", lambda spec: other)
    with pytest.raises(ModelError, match=r"Xception \(test\), SHA-256 abab.*Xception \(mine.h5\) is cdcd"):
        recorded().load(ModelSpec(weights="mine.h5", include_top=False), chosen=True)
