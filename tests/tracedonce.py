"""Networks that are traced and read once for all runs of a process: that takes longer than most runs of the tests."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import pytest

from xcli.inference.predictor import Predictor
from xcli.models.keras_network import KerasNetwork
from xcli.models.network import PlainNetwork

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

MOST = 3
"""Of either that are kept; each has its own copy of the weights."""


class Kept(OrderedDict[Any, Any]):
    """What was made last, by what it was made of."""

    def get_or_make(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self:
            self[key] = make()
            if len(self) > MOST:
                self.popitem(last=False)
        self.move_to_end(key)
        return self[key]


ENGINES, NETWORKS = Kept(), Kept()


@pytest.fixture(autouse=True)
def traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives a run the engines of an earlier one that computes the same alike, and reads no `.keras` file twice."""
    make, read = Predictor._make_engines, KerasNetwork.__dict__["_loaded"].func

    def engines(self: Predictor, forward: Any, optimize_for_throughput: bool) -> Any:
        model, task = self.model, self.task
        if self.options.on_openvino or not isinstance(model.network, (PlainNetwork, KerasNetwork)):
            return make(self, forward, optimize_for_throughput)
        chosen = ("raw_scores", "with_features", "pooling", "layer")
        key = (
            *(model.digest, model.parameters, model.size, model.input_range, model.activation, model.backbone),
            *(type(task), *(getattr(task, name, None) for name in chosen)),
            *(self.precision, self.batch_size, self.devices, optimize_for_throughput),
        )
        return ENGINES.get_or_make(key, lambda: make(self, forward, optimize_for_throughput))

    def loaded(self: KerasNetwork) -> Any:
        return NETWORKS.get_or_make(self.digest, lambda: read(self))

    monkeypatch.setattr(Predictor, "_make_engines", engines)
    monkeypatch.setattr(KerasNetwork, "_loaded", property(loaded))
