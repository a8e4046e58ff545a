"""Models ready to run: the plain Xception, and the form in which every command gets a model (`LoadedModel`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from xcli.core.errors import ModelError, UsageError
from xcli.core.tensorflow import Precision, load_tensorflow
from xcli.models.folded import Backbone, Forward, constant, pool, scale_pixels
from xcli.models.hdf5_weights import BIAS, KERNEL, TOP, Weights

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from xcli.models.labels import Labels

AVG_POOL = "avg_pool"
LAST_MAP = "block14_sepconv2_act"
LOGITS = ("linear", "log_softmax")  # outputs of which softmax makes probabilities


class Network(Protocol):
    """A network that TensorFlow can trace, with outputs of its layers by name."""

    def prepare(self, precision: Precision) -> None:
        """Prepares the constants for arithmetic in `precision`; must be called before the first call."""

    def __call__(self, x: Any, taps: Collection[str]) -> dict[str, Any]:
        """Returns the outputs of the layers in `taps`, for scaled pixels float32[b, size, size, 3]."""


@dataclass(frozen=True, slots=True)
class ForwardPass:
    """What an engine computes of a model.

    Attributes:
        function: traceable, from uint8[b, size, size, 3] to one float32[b, ...] for each output.
        description: what tells it from the passes of other models and from others of the same model, for JSON.
    """

    function: Forward
    description: Mapping[str, Any]

    def __call__(self, pixels: Any) -> Sequence[Any]:
        return self.function(pixels)


class PlainNetwork:
    """Xception from weights, with or without its top.

    Attributes:
        classes: number of classes; None without a top.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._backbone: Backbone | None = None
        self.classes = len(weights[BIAS]) if BIAS in weights else None

    def prepare(self, precision: Precision) -> None:
        self._backbone = Backbone(self._weights, precision)

    def __call__(self, x: Any, taps: Collection[str]) -> dict[str, Any]:
        assert self._backbone is not None, "prepare() comes first"
        tf = load_tensorflow()
        above = {AVG_POOL, TOP} & set(taps)
        found = self._backbone(x, (set(taps) - above) | ({LAST_MAP} if above else set()))
        if above:
            found[AVG_POOL] = pool(found[LAST_MAP], "avg")
        if TOP in above:
            logits = tf.linalg.matmul(found[AVG_POOL], constant(self._weights[KERNEL], tf.float32))
            found[TOP] = tf.nn.softmax(logits + constant(self._weights[BIAS], tf.float32))
        return {tap: found[tap] for tap in taps}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that an engine can run.

    Attributes:
        path: the file that it was loaded from; None for random weights.
        digest: SHA-256 of that file; `random-SEED` for random weights.
        size: side of the input, in pixels.
        input_range: how its pixels are scaled; see `scale_pixels`.
        labels, output_name: its classes, and the layer that computes the scores; None where it has no classifier.
        activation: of that layer.
        layer_names: every name that `features` accepts.
        resize, interpolation, crop_pct, bit_depth: its preprocessing, unless the user chooses another.
        notes: assumptions of the loader, one line each, to be shown once.
        backbone: what tells which network computes features (`backbone_digest`); None where that cannot be told.
    """

    name: str
    path: str | None
    digest: str
    network: Network
    size: int
    input_range: str
    labels: Labels | None
    output_name: str | None
    activation: str
    layer_names: tuple[str, ...]
    resize: str = "crop"
    interpolation: str = "bicubic"
    crop_pct: float | None = None
    notes: tuple[str, ...] = ()
    parameters: int | None = None
    bit_depth: int | None = None
    backbone: str | None = None

    def scores(self, raw: bool = False, *, with_features: bool = False) -> ForwardPass:
        """Returns a traceable pass from uint8[b, size, size, 3] to (float32[b, classes],).

        Args:
            raw: keep the output of the head, instead of turning it into probabilities.
            with_features: also return float32[b, channels], the average-pooled last map.

        Raises:
            ModelError: the model has no classifier.
        """
        if self.output_name is None or self.labels is None:
            raise ModelError(f"{self.name} has no classifier on top; use `xception features`")
        tap, units = self.output_name, None if raw else len(self.labels.names)

        def forward(pixels: Any) -> Sequence[Any]:
            tf = load_tensorflow()
            x = scale_pixels(pixels, self.input_range, tf.float32)
            taps = self.network(x, [tap, LAST_MAP] if with_features else [tap])
            output = tf.cast(taps[tap], tf.float32)
            scores = output if units is None else probabilities(output, self.activation, units)
            return (scores, pool(taps[LAST_MAP], "avg")) if with_features else (scores,)

        return self._pass(forward, scores=tap, classes=units, with_features=with_features)

    def features(self, pooling: str | None, layer: str | None = None) -> ForwardPass:
        """Returns a traceable pass from uint8[b, size, size, 3] to (float32[b, ...],).

        Args:
            pooling: `avg`, `max` or None; of maps only.
            layer: name of the layer; None is the last map. UsageError is raised where there is no such layer.
        """
        tap = layer or LAST_MAP
        if tap not in self.layer_names:
            from difflib import get_close_matches

            close = get_close_matches(tap, self.layer_names, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            if tap == TOP and self.output_name is None:
                hint = "it was loaded without its top; "
            raise UsageError(f"{self.name} has no layer {tap!r}; {hint}`xception info --layers` lists them")

        def forward(pixels: Any) -> Sequence[Any]:
            tf = load_tensorflow()
            x = scale_pixels(pixels, self.input_range, tf.float32)
            output = self.network(x, [tap])[tap]
            return (pool(output, pooling if len(output.shape) == 4 else None),)

        return self._pass(forward, layer=tap, pooling=pooling)

    def _pass(self, forward: Forward, **description: Any) -> ForwardPass:
        model = {
            "weights": self.digest,
            "parameters": self.parameters,  # random weights have the same digest with a top and without
            "size": self.size,
            "input_range": self.input_range,
            "activation": self.activation,
        }
        return ForwardPass(forward, {"model": model, **description})


def probabilities(output: Any, activation: str, classes: int) -> Any:
    """Turns a head's output, float32[b, units], into probabilities, float32[b, classes].

    Args:
        output: of the head.
        activation: what the head has already applied.
        classes: number of classes. With two classes, a single unit is the score of the second.
    """
    tf = load_tensorflow()
    if output.shape[-1] == 1:
        one = tf.nn.sigmoid(output) if activation == "linear" else output
        return tf.concat([1 - one, one], -1) if classes == 2 else one
    return tf.nn.softmax(output) if activation in LOGITS else output
