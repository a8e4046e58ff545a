"""The only module that imports TensorFlow and Keras; devices and precision.

Importing TensorFlow takes seconds, so only functions that need it call `load_tensorflow`.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from xcli.core.errors import ModelError, UsageError
from xcli.core.process import has_bfloat16, silent_libraries
from xcli.core.shortage import shortage
from xcli.core.text import short_text

if TYPE_CHECKING:
    from collections.abc import Iterator

Precision = Literal["float32", "tf32", "bfloat16", "float16", "int8"]
_INSTALL = "install it again with: pip install --force-reinstall tensorflow"

PRECISIONS = ("auto", "float32", "tf32", "bfloat16", "float16")
"""What TensorFlow computes in; for `int8` there is `xcli.inference.engines.openvino`."""


@cache
def load_tensorflow() -> Any:
    """Imports TensorFlow with little logging and with GPU memory growth enabled.

    A `TF_CPP_MIN_LOG_LEVEL` that the user has set is kept. Memory growth can only be set before the first use of a
    GPU; if another library of this process has used it already, TensorFlow's own setting stays.

    Raises:
        ModelError: it is not installed, or its libraries cannot be loaded.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with silent_libraries():
        try:
            import tensorflow as tf
        except ImportError as error:
            raise ModelError(
                f"TensorFlow cannot be loaded ({short_text(error)}); {shortage(error) or _INSTALL}"
            ) from error
        except AssertionError as error:  # in the Keras that is a part of it, which reads keras.json too
            raise _wrong_settings(error) from error

        gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        with suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)
    return tf


@cache
def load_keras() -> Any:
    """Imports Keras; raises UsageError if it does not start, or runs on another backend than TensorFlow.

    What keras.json or the host of this library has set otherwise applies, unless in `default_keras_settings`.
    """
    load_tensorflow()
    try:
        import keras
    except (ImportError, ValueError, TypeError, AttributeError) as error:
        raise _wrong_settings(error) from error

    if keras.backend.backend() != "tensorflow":
        raise UsageError(
            f"Keras runs on {keras.backend.backend()!r} here, but xception needs TensorFlow: "
            "set KERAS_BACKEND=tensorflow"
        )
    return keras


def _wrong_settings(error: Exception) -> UsageError:
    what = f"Keras does not start ({short_text(str(error) or type(error).__name__)})"
    return UsageError(
        f"{what}: correct or remove its settings, keras.json in ~/.keras or KERAS_HOME, and set "
        "KERAS_BACKEND=tensorflow"
    )


@contextmanager
def default_keras_settings() -> Iterator[None]:
    """A context in which Keras computes as it does without settings of the user, whatever these are."""
    config = load_keras().config
    defaults: tuple[tuple[Any, Any, Any], ...] = (
        (config.floatx, config.set_floatx, "float32"),
        (config.epsilon, config.set_epsilon, 1e-7),
        (config.image_data_format, config.set_image_data_format, "channels_last"),
        (config.dtype_policy, config.set_dtype_policy, "float32"),
    )
    before = [(change, get()) for get, change, _ in defaults]
    try:
        for _, change, value in defaults:
            change(value)
        yield
    finally:
        for change, value in before:
            change(value)


def choose_devices(request: str) -> tuple[str, ...]:
    """Resolves `--device` (`auto`: all GPUs, else the CPU) to names of TensorFlow devices: `/CPU:0` or each `/GPU:I`.

    Raises:
        UsageError: the device does not exist. There is no silent fallback.
    """
    if request == "cpu":
        return ("/CPU:0",)
    name, colon, number = request.partition(":")
    if request != "auto" and (name != "gpu" or (colon and not (number.isascii() and number.isdecimal()))):
        raise UsageError(f"--device takes auto, cpu, gpu or gpu:I; received {request!r}")
    gpus = load_tensorflow().config.list_physical_devices("GPU")
    if request == "auto" and not gpus:
        return ("/CPU:0",)
    index = int(number or 0)
    if index >= len(gpus):
        have = f"{len(gpus)} GPU(s)" if gpus else "no GPU"
        raise UsageError(
            f"--device {request}: TensorFlow sees {have} on this machine; use --device cpu, "
            "or install the GPU libraries with: pip install 'tensorflow[and-cuda]'"
        )
    return (f"/GPU:{index}",) if colon else tuple(f"/GPU:{index}" for index in range(len(gpus)))


def kind_of(device: str) -> str:
    """Returns `CPU` or `GPU`. Results depend on the kind of a device, but not on its number."""
    return device.strip("/").partition(":")[0]


def arithmetic_dtype(precision: Precision) -> str:
    """Returns the dtype of weights and activations: float32 for TF32, whose products the tensor cores round."""
    return "float32" if precision == "tf32" else precision


def apply_precision(precision: Precision) -> None:
    """Allows or forbids TF32 in this process; by default TensorFlow uses it in place of float32."""
    load_tensorflow().config.experimental.enable_tensor_float_32_execution(precision == "tf32")


def choose_precision(request: str, device: str) -> Precision:
    """Resolves `--precision` for a device that `choose_devices` returned.

    `auto` is float32 on a CPU and float16 on a GPU with tensor cores (compute capability 7.0 or later).

    Raises:
        UsageError: the device cannot compute in that precision at full speed.
    """
    if request not in PRECISIONS:
        raise UsageError(f"--precision takes one of {', '.join(PRECISIONS)}; received {request!r}")
    on_cpu = device.startswith("/CPU")
    if request == "auto":
        return "float16" if not on_cpu and _compute_capability(device) >= (7, 0) else "float32"
    if request == "float32":
        return "float32"
    if request == "bfloat16":
        if on_cpu and not has_bfloat16():
            raise UsageError(
                "--precision bfloat16: this processor has no bfloat16 instructions (AVX512-BF16 or AMX); use float32"
            )
    elif on_cpu:
        raise UsageError(f"--precision {request} is for GPUs; on a CPU use float32 or bfloat16")
    if not on_cpu and request != "float16" and _compute_capability(device) < (8, 0):
        raise UsageError(f"--precision {request}: this GPU is older than Ampere; use float16 or float32")
    return request  # type: ignore[return-value]


def _compute_capability(device: str) -> tuple[int, int]:
    tf = load_tensorflow()
    gpu = tf.config.list_physical_devices("GPU")[int(device.rpartition(":")[2])]
    capability = tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
    return (int(capability[0]), int(capability[1]))
