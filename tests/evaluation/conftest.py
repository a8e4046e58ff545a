"""Labelled images of plain colours, and their evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.colournet import colour_model, save_folders
from xcli.evaluation.evaluate import Evaluation, evaluate
from xcli.inference.options import RunOptions
from xcli.models.loader import preprocessing_for
from xcli.sources.labelled import read_labelled

if TYPE_CHECKING:
    from pathlib import Path

    from xcli.models.network import LoadedModel


def measured(top: Path, model: LoadedModel | None = None, **options: Any) -> Evaluation:
    """Evaluates a model, by default that of colours, on class folders."""
    images = read_labelled(str(top))
    model = model or colour_model()
    return evaluate(images.samples, model, preprocessing_for(model), RunOptions(**options), skipped=images.skipped)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with twelve images, of which the model gets one wrong, a broken one and a note."""
    top = save_folders(tmp_path_factory.mktemp("colours"))
    (top / "blue" / "broken.png").write_bytes(b"not an image")
    (top / "blue" / "note.txt").write_text("x")
    return top
