"""The network that fine-tuning starts from: the weights of its Xception, and the scaling of its input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xcli.core.errors import ModelError
from xcli.models.architecture import FEATURE_WIDTH
from xcli.models.backbone import SCALINGS, Scaling, scaling_before
from xcli.models.hdf5_weights import BIAS, KERNEL, Weights, random_weights, read_weights

if TYPE_CHECKING:
    from xcli.models.labels import Labels
    from xcli.models.network import LoadedModel
    from xcli.models.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class BaseModel:
    """What fine-tuning starts from.

    Attributes:
        weights: of the Xception below its pooling, by `layer/variable`.
        scaling: factor and offset that turn pixels of [0, 255] into the input of the first convolution.
        labels: of the current classifier, which is left out; None where there is none.
    """

    weights: Weights
    scaling: Scaling
    labels: Labels | None

    def with_head(self, classes: int) -> Weights:
        """Returns the weights, and arrays of zeros of the shapes of a head with a number of classes."""
        import numpy as np

        zero = np.float32(0)
        head = {KERNEL: np.broadcast_to(zero, (FEATURE_WIDTH, classes)), BIAS: np.broadcast_to(zero, (classes,))}
        return {**self.weights, **head}


def read_base_model(model: LoadedModel, spec: ModelSpec) -> BaseModel:
    """Takes the Xception out of a loaded model, which is plain, or from a `.keras` file or bundle.

    Raises:
        ModelError: the layers before the Xception are not a single scaling.
    """
    from xcli.models.keras_network import KerasNetwork

    network = model.network
    if isinstance(network, KerasNetwork):
        scaling = scaling_before(network.graph, model.input_range)
        if scaling is None:
            raise ModelError(
                f"{model.name} scales its pixels in a way that cannot be carried over (one Rescaling layer with a "
                "number for scale and offset can); start from --weights imagenet, or from a directory made by finetune"
            )
        return BaseModel(dict(network.weights), scaling, model.labels)
    if model.path is None:
        # The random weights of the backbone come first, so they do not depend on the classifier.
        weights = random_weights(include_top=False, classes=1, seed=spec.seed)
    else:
        weights = read_weights(model.path, include_top=False)
    return BaseModel(weights, SCALINGS[model.input_range], None)
