"""Builds Xception as a Keras model: a drop-in for `keras.applications.Xception`, from the table of layers."""

from __future__ import annotations

import os
from numbers import Integral
from types import NoneType
from typing import TYPE_CHECKING, Any

from xcli.core.errors import UsageError
from xcli.core.tensorflow import load_keras
from xcli.models.architecture import BN_EPSILON, IMAGE_SIZE, IMAGENET_CLASSES, MIN_SIZE, Layer, check_pooling, layers
from xcli.models.hdf5_weights import assign, read_weights
from xcli.models.imagenet_weights import locate_imagenet

if TYPE_CHECKING:
    from collections.abc import Sequence


def _check_arguments(include_top: bool, weights: object, pooling: str | None, classes: object, activation: Any) -> None:
    check_pooling(pooling)
    if not isinstance(classes, Integral) or isinstance(classes, bool) or classes < 1:
        raise UsageError(f"classes must be a positive integer; received {classes!r}")
    if classes != IMAGENET_CLASSES and not include_top:
        raise UsageError(f"classes goes only with include_top=True; received classes={classes} with include_top=False")
    if classes != IMAGENET_CLASSES and weights == "imagenet":
        raise UsageError(
            f"the ImageNet weights have {IMAGENET_CLASSES} classes; received classes={classes}: "
            "give weights=None or the path of a weights file with that many classes"
        )
    if include_top and pooling is not None:
        raise UsageError(
            f"pooling goes only with include_top=False (the top averages by itself); received pooling={pooling!r}"
        )
    if weights is not None and weights != "imagenet":
        expected = "weights must be None, 'imagenet' or the path of a weights file"
        if not isinstance(weights, (str, os.PathLike)):
            raise UsageError(f"{expected}; received {weights!r}")
        if not os.path.exists(weights):
            raise UsageError(f"{expected}; received {os.fspath(weights)!r}, which does not exist")
    name = getattr(activation, "__name__", activation)
    if include_top and weights is not None and name not in (None, "linear", "softmax"):
        raise UsageError(
            f"with weights that are loaded classifier_activation must be None, 'linear' or 'softmax'; received {name!r}"
        )


def check_input_shape(shape: Sequence[int | None], include_top: bool) -> tuple[int | None, int | None, int]:
    """Returns an input shape (height, width, 3) in pixels; raises UsageError where it breaks a rule of Keras.

    With the top only 299x299x3 is accepted; without it, a side is None where it is unknown.
    """
    try:
        received = tuple(shape)
    except TypeError:
        raise UsageError(f"input_shape must be (height, width, 3); received {shape!r}") from None
    if len(received) != 3:
        raise UsageError(f"input_shape must be (height, width, 3); received {received}")
    if any(isinstance(side, bool) or not isinstance(side, (Integral, NoneType)) for side in received):
        raise UsageError(f"input_shape must be (height, width, 3) in whole numbers; received {received}")
    height, width, channels = (None if side is None else int(side) for side in received)
    if channels != 3:
        raise UsageError(
            f"the input must have exactly 3 channels, last; received input_shape={received}, so {channels} channels"
        )
    if include_top and (height, width) != (IMAGE_SIZE, IMAGE_SIZE):
        raise UsageError(
            f"with include_top=True the input is {IMAGE_SIZE}x{IMAGE_SIZE}x3; received input_shape={received}: "
            "use include_top=False for other sizes"
        )
    if any(side is not None and side < MIN_SIZE for side in (height, width)):
        raise UsageError(f"the input must be at least {MIN_SIZE}x{MIN_SIZE}; received input_shape={received}")
    return height, width, 3


def _input(keras: Any, tensor: Any, shape: Sequence[int | None] | None, include_top: bool) -> Any:
    if shape is not None:
        shape = check_input_shape(shape, include_top)
    if tensor is None:
        default = (IMAGE_SIZE, IMAGE_SIZE, 3) if include_top else (None, None, 3)
        return keras.layers.Input(shape=shape or default)
    if not keras.backend.is_keras_tensor(tensor):
        raise UsageError(f"input_tensor must be a Keras tensor (keras.Input); received {type(tensor).__name__}")
    given = check_input_shape(tensor.shape[1:], include_top)
    if shape is not None and any(a is not None and b is not None and a != b for a, b in zip(shape, given, strict=True)):
        raise UsageError(f"input_shape={tuple(shape)} contradicts input_tensor, whose shape is {given}")
    return tensor


def Xception(
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = "imagenet",
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = IMAGENET_CLASSES,
    classifier_activation: Any = "softmax",
    name: str = "xception",
) -> Any:
    """Builds Xception as a Keras model; a drop-in for `keras.applications.Xception`.

    Layer names, order of variables and outputs are those of Keras Applications, so each loads the `.weights.h5` of the
    other, and both load the official HDF5 files.

    Args:
        include_top: add the global average pooling and the dense classifier.
        weights: `"imagenet"` (found on this machine, or downloaded once), None (random), or the path of an HDF5 file.
        input_tensor: a Keras tensor, float32[batch, height, width, 3], for the network to read.
        input_shape: (height, width, 3), at least 71x71, for models without the top; None leaves it open.
        pooling: for models without the top: None gives the map float32[batch, h, w, 2048], `"avg"` and `"max"` give
            float32[batch, 2048].
        classes: outputs of the classifier; other numbers than 1000 only with the top and without the ImageNet weights.
        classifier_activation: None gives logits. Loaded weights allow only None, `"linear"` and `"softmax"`.
        name: name of the model.

    Returns:
        A `keras.Model` that takes float32[batch, 299, 299, 3] scaled to [-1, 1]
        (`keras.applications.xception.preprocess_input`) and gives float32[batch, classes] with the top.

    Raises:
        UsageError: (a ValueError) an argument breaks a rule of the documentation of Keras.
        WeightsError: the weights cannot be found or read, or belong to another architecture.
    """
    _check_arguments(include_top, weights, pooling, classes, classifier_activation)
    classes = int(classes)
    keras = load_keras()
    image = _input(keras, input_tensor, input_shape, include_top)
    outputs = {"input": image}
    for layer in layers():
        received = [outputs[source] for source in layer.inputs]
        outputs[layer.name] = _keras_layer(keras, layer)(received[0] if len(received) == 1 else received)
    x = outputs[layers()[-1].name]
    if include_top or pooling == "avg":
        x = keras.layers.GlobalAveragePooling2D(data_format="channels_last", name="avg_pool")(x)
    elif pooling == "max":
        x = keras.layers.GlobalMaxPooling2D(data_format="channels_last", name="max_pool")(x)
    if include_top:
        x = keras.layers.Dense(classes, activation=classifier_activation, name="predictions")(x)
    sources = keras.utils.get_source_inputs(image)
    # With a list of one, the model would expect lists and warn about every array that it gets.
    model = keras.Model(sources[0] if len(sources) == 1 else sources, x, name=name)
    if weights is not None:
        path = locate_imagenet(include_top) if weights == "imagenet" else os.fspath(weights)
        assign(model, read_weights(path, include_top=include_top, classes=classes if include_top else None))
    return model


def _keras_layer(keras: Any, layer: Layer) -> Any:
    make = keras.layers
    common = {"padding": layer.padding, "data_format": "channels_last", "name": layer.name}
    if layer.kind == "conv":
        return make.Conv2D(layer.filters, layer.kernel, strides=layer.stride, use_bias=False, **common)
    if layer.kind == "sepconv":
        return make.SeparableConv2D(layer.filters, layer.kernel, use_bias=False, **common)
    if layer.kind == "maxpool":
        return make.MaxPooling2D(layer.kernel, strides=layer.stride, **common)
    if layer.kind == "bn":
        return make.BatchNormalization(axis=-1, momentum=0.99, epsilon=BN_EPSILON, name=layer.name)
    if layer.kind == "relu":
        return make.Activation("relu", name=layer.name)
    return make.Add(name=layer.name)
