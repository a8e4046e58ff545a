"""Models ready to run: their layers by name, and probabilities of scores."""

from __future__ import annotations

import numpy as np
import pytest

from xcli.core.errors import UsageError
from xcli.core.tensorflow import load_tensorflow
from xcli.models import loader as loader
from xcli.models.loader import load_model
from xcli.models.network import probabilities


def test_unknown_layers_are_refused_with_the_nearest_name() -> None:
    loaded = load_model(weights="none", include_top=False)
    with pytest.raises(UsageError, match=r"no layer 'block4_ad'; did you mean 'block4_add'\? .*xception info --layers"):
        loaded.features("avg", "block4_ad")
    with pytest.raises(UsageError, match="no layer 'zzz'; `xception info"):
        loaded.features("avg", "zzz")


@pytest.mark.parametrize(
    ("activation", "values", "classes", "expected"),
    [
        ("linear", [0.0, np.log(3)], 2, [0.25, 0.75]),
        ("log_softmax", [np.log(0.1), np.log(0.9)], 2, [0.1, 0.9]),
        ("softmax", [0.3, 0.7], 2, [0.3, 0.7]),
        ("sigmoid", [0.9, 0.8], 2, [0.9, 0.8]),
        ("mixed", [3.0, -1.0], 2, [3.0, -1.0]),
        ("linear", [np.log(3)], 2, [0.25, 0.75]),
        ("sigmoid", [0.75], 2, [0.25, 0.75]),
        ("sigmoid", [0.75], 1, [0.75]),
        ("linear", [0.0], 1, [0.5]),
    ],
)
def test_probabilities(activation: str, values: list[float], classes: int, expected: list[float]) -> None:
    output = load_tensorflow().constant([values], "float32")
    assert probabilities(output, activation, classes).numpy()[0].tolist() == pytest.approx(expected, abs=1e-6)
