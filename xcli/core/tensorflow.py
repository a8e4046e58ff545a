"""The one place that imports TensorFlow: log level, devices, GPU memory growth, seeds.

Importing TensorFlow takes seconds and talks on standard error from C++; both are dealt with here, once.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import sys
import tempfile
import warnings
from contextlib import suppress
from functools import cache
from typing import IO, Any, Literal

from xcli.core.errors import UsageError

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
PRECISIONS = ("auto", "float32", "tf32", "bfloat16", "float16")


@cache
def load_tensorflow() -> Any:
    """Imports TensorFlow, quietly, with GPU memory growth on.

    `TF_CPP_MIN_LOG_LEVEL` is left alone where the user has set it. Memory growth can only be set before the first
    use of a GPU; where another library of the process was faster, TensorFlow's own setting stays.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        with suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)
    return tf


@cache
def load_keras() -> Any:
    """Imports Keras on its TensorFlow backend.

    Raises:
        UsageError: `KERAS_BACKEND` or keras.json chooses another backend.
    """
    load_tensorflow()
    import keras

    if keras.backend.backend() != "tensorflow":
        raise UsageError(
            f"Keras runs on {keras.backend.backend()!r} here, but xception needs TensorFlow: "
            "set KERAS_BACKEND=tensorflow"
        )
    return keras


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
_KEPT_BYTES = 256 << 20


def keep_freed_memory() -> bool:
    """Tells the C library to keep the memory of decoded images for the next ones, in one pool for all threads.

    Left alone, it hands every freed image back to the system, which clears the pages and hands them out again: about
    5 MB an image. For the process of the command line; a library has no business to change its host's allocator.

    Returns:
        Whether it did: only with glibc, and not where the environment tunes its malloc.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl, macOS
        return False
    # Larger blocks than 32 MiB are mapped by themselves whatever is said here; TensorFlow keeps its own.
    options = ((_M_ARENA_MAX, 1), (_M_TRIM_THRESHOLD, _KEPT_BYTES), (_M_MMAP_THRESHOLD, 32 << 20))
    return all(mallopt(name, value) for name, value in options)


def choose_devices(request: str) -> tuple[str, ...]:
    """Resolves `--device` to names of TensorFlow devices.

    Args:
        request: `auto` (all GPUs, else the CPU), `cpu`, `gpu` (all of them) or `gpu:I`.

    Returns:
        `/CPU:0`, or `/GPU:I` for each.

    Raises:
        UsageError: the device does not exist; there is never a silent fallback.
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
    """`CPU` or `GPU`: what the values of a run depend on, unlike the number of the device."""
    return device.strip("/").partition(":")[0]


def arithmetic_dtype(precision: Precision) -> str:
    """The type of weights and activations; TF32 is float32 whose products the tensor cores round."""
    return "float32" if precision == "tf32" else precision


def apply_precision(precision: Precision) -> None:
    """Allows TF32 in this process, or forbids it: TensorFlow's own default is to allow it in place of float32."""
    load_tensorflow().config.experimental.enable_tensor_float_32_execution(precision == "tf32")


@cache
def cpu_flags() -> frozenset[str]:
    """Instruction sets of the processor as Linux names them; empty where they cannot be read."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            for line in info:
                if line.startswith(("flags", "Features")):
                    return frozenset(line.partition(":")[2].split())
    except OSError:
        pass  # not Linux: nothing is known, so nothing is promised
    return frozenset()


def choose_precision(request: str, device: str) -> Precision:
    """Resolves `--precision` for a device.

    Args:
        request: `auto` is float32 on a CPU and float16 on a GPU with tensor cores (compute capability 7.0 on).
        device: one that `choose_devices` returned.

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
        if on_cpu and not cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"}:
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


class NativeStderr:
    """Keeps what C and C++ libraries write to file descriptor 2 out of the user's sight.

    TensorFlow, oneDNN, CUDA and libtiff write there directly; no log level silences all of them. Python's own
    `sys.stderr` moves to a copy of the descriptor as it was, and descriptor 2 goes to a temporary file, of which
    `tail` shows the end after a crash.
    """

    def __init__(self) -> None:
        self._captured: int | None = None

    def capture(self) -> None:
        """Starts to capture; a second call changes nothing.

        Where that cannot be (no descriptor 2, no room for a temporary file), everything stays visible.
        """
        if self._captured is not None:
            return
        try:
            # Appending, so that a library that writes while `tail` reads writes to the end all the same.
            with tempfile.TemporaryFile("a+b", prefix="xception-") as file:
                captured = _duplicate(file.fileno())
            ours = _duplicate(2)
        except OSError:
            return
        if _writes_to(sys.stderr, 2):
            sys.stderr.flush()
            sys.stderr = os.fdopen(ours, "w", encoding=sys.stderr.encoding, errors="backslashreplace", buffering=1)
        else:  # somebody has put another stream there, which is none of ours
            os.close(ours)
        os.dup2(captured, 2)
        self._captured = captured

    def tail(self, size: int = 8_000) -> str:
        """The last `size` bytes that were captured, as text."""
        if self._captured is None:
            return ""
        end = os.fstat(self._captured).st_size
        # Not seek() and read(): descriptor 2 shares their position.
        return os.pread(self._captured, size, max(0, end - size)).decode("utf-8", "replace")


def keep_back_noise(*, debug: bool) -> None:
    """Keeps from the user what libraries say of their own accord, unless that is asked for."""
    if not debug:
        NativeStderr().capture()
        warnings.simplefilter("ignore")


def _duplicate(number: int) -> int:
    """A copy of a descriptor that takes the place of no standard stream, even of one that is closed."""
    return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)


def _writes_to(stream: IO[str] | None, number: int) -> bool:
    try:
        return stream is not None and stream.fileno() == number
    except (OSError, ValueError):  # a stream without a descriptor, or a closed one
        return False
