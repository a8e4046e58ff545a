"""What is observed of the inputs of convolutions."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from tests.inference.quantization.graphs import BATCH, CHANNELS, SIDE, WIDE, chain, graph, made_inputs, observed, run
from xcli.inference.engines.static_batch import compute_in_pieces
from xcli.inference.quantization.observer import Observer

pytest.importorskip("openvino", reason="the extra [openvino] is not installed")


def test_what_is_observed_is_what_comes_in() -> None:
    values = made_inputs()
    (inputs,) = observed(graph(), values).statistics()
    assert np.allclose(inputs.lowest, values.min((0, 2, 3)))
    assert np.allclose(inputs.highest, values.max((0, 2, 3)))
    places = values[:, :, 1::2, 1::2].transpose(0, 2, 3, 1).reshape(-1, CHANNELS).astype(np.float64)
    assert np.allclose(inputs.mean, places.mean(0), rtol=1e-5)
    assert np.allclose(inputs.second_moment, places.T @ places / len(places), rtol=1e-5, atol=1e-4)


def test_images_that_fill_up_a_batch_do_not_count() -> None:
    model, values = graph(), made_inputs()
    observer = Observer(model)
    observer.add(compute_in_pieces(values[:1], BATCH, partial(run, model)))
    (inputs,) = observer.statistics()
    assert np.allclose(inputs.highest, values[:1].max((0, 2, 3)))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_kernel_of_several_places_sees_all_of_them(stride: int) -> None:
    values = made_inputs()
    (inputs,) = observed(graph(side=3, stride=stride), values).statistics()
    assert np.allclose(inputs.highest, values.max((0, 2, 3)))
    assert inputs.second_moment.shape == (9 * CHANNELS, 9 * CHANNELS)
    outputs = (SIDE - 3) // stride + 1
    step = -(-outputs // 8)
    places = np.arange(step // 2, outputs, step) * stride
    windows = [
        values[:, :, y : y + 3, x : x + 3].transpose(0, 2, 3, 1).reshape(BATCH, -1) for y in places for x in places
    ]
    seen = np.concatenate(windows).astype(np.float64)
    assert np.allclose(inputs.mean, seen.mean(0), rtol=1e-4, atol=1e-5)
    assert np.allclose(inputs.second_moment, seen.T @ seen / len(seen), rtol=1e-4, atol=1e-5)


def test_the_inputs_of_a_depthwise_convolution_are_seen_too() -> None:
    first, last = observed(chain(), made_inputs()).statistics()
    assert first.depthwise is None
    assert last.depthwise is not None
    assert last.depthwise.kernels.shape == (WIDE, 9)
    assert last.depthwise.lowest.shape == last.depthwise.highest.shape == (WIDE,)
    assert last.depthwise.lowest.min() == 0
    assert last.depthwise.highest.max() > 1
    without = observed(chain(depthwise=False), made_inputs()).statistics()[1]
    assert without.depthwise is None
    assert np.allclose(without.highest, last.depthwise.highest)
