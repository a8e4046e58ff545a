"""What a run computes, and its rows."""

from __future__ import annotations

import numpy as np
import pytest

from xcli.core.errors import UsageError
from xcli.core.records import ImageRef
from xcli.inference.tasks import ClassifyTask, FeaturesTask
from xcli.models.loader import load_model
from xcli.models.network import LoadedModel
from xcli.storage.local import LocalFile


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model(weights="none", include_top=False, image_size=71)


def test_tables_refuse_what_makes_no_sense(model: LoadedModel) -> None:
    for wrong in ({"top": 0}, {"label_type": "both"}, {"label_type": "x"}):
        with pytest.raises(UsageError):
            ClassifyTask(model, **wrong)
    with pytest.raises(UsageError, match="float64"):
        FeaturesTask(dtype="float64")


def test_a_vector_of_zeros_stays_when_normalized(model: LoadedModel) -> None:
    from xcli.core.records import ImageBatch

    table = FeaturesTask(normalize=True)
    schema = table.schema([(2,)], ())
    refs = tuple(ImageRef(name, LocalFile(name), name.encode()) for name in "ab")
    batch = ImageBatch(refs, np.zeros((2, 1, 1, 3), np.uint8), (None, None))
    values = table.values([np.array([[3, 4], [0, 0]], np.float32)])
    rows = table.rows(schema, batch, values).to_pylist()
    assert rows[0]["features"] == pytest.approx([0.6, 0.8])
    assert rows[1]["features"] == [0, 0]
