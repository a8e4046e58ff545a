"""Devices, precision, and what native libraries say on standard error."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from xcli.core import tensorflow as runtime
from xcli.core.errors import UsageError
from xcli.core.tensorflow import (
    PRECISIONS,
    apply_precision,
    arithmetic_dtype,
    choose_devices,
    choose_precision,
    cpu_flags,
    keep_freed_memory,
    load_keras,
    load_tensorflow,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Stands in for the machine: the compute capability of each of its GPUs, and the flags of its processor."""

    def set_up(gpus: Sequence[tuple[int, int] | None] = (), flags: str = "") -> None:
        def details(gpu: int) -> dict[str, Any]:
            capability = gpus[gpu]
            return {"device_name": "GPU"} | ({"compute_capability": capability} if capability else {})

        config = SimpleNamespace(
            list_physical_devices=lambda kind: list(range(len(gpus))) if kind == "GPU" else [0],
            experimental=SimpleNamespace(get_device_details=details),
        )
        monkeypatch.setattr(runtime, "load_tensorflow", lambda: SimpleNamespace(config=config))
        monkeypatch.setattr(runtime, "cpu_flags", lambda: frozenset(flags.split()))

    return set_up


# Devices


@pytest.mark.parametrize(
    ("request_", "gpus", "expected"),
    [
        ("auto", 0, ("/CPU:0",)),
        ("auto", 2, ("/GPU:0", "/GPU:1")),
        ("cpu", 0, ("/CPU:0",)),
        ("cpu", 2, ("/CPU:0",)),
        ("gpu", 1, ("/GPU:0",)),
        ("gpu", 3, ("/GPU:0", "/GPU:1", "/GPU:2")),
        ("gpu:0", 2, ("/GPU:0",)),
        ("gpu:1", 2, ("/GPU:1",)),
    ],
)
def test_chooses_devices(request_: str, gpus: int, expected: tuple[str, ...], machine: Callable[..., None]) -> None:
    machine([(8, 0)] * gpus)
    assert choose_devices(request_) == expected


@pytest.mark.parametrize(
    ("request_", "gpus", "match"),
    [
        ("gpu", 0, r"--device gpu: TensorFlow sees no GPU on this machine; use --device cpu, or install.*\[and-cuda\]"),
        ("gpu:0", 0, "TensorFlow sees no GPU"),
        ("gpu:2", 2, r"--device gpu:2: TensorFlow sees 2 GPU\(s\)"),
        ("tpu", 1, "auto, cpu, gpu or gpu:I; received 'tpu'"),
        ("GPU", 1, "received 'GPU'"),
        ("gpu:", 1, "received 'gpu:'"),
        ("gpu:-1", 1, "received 'gpu:-1'"),
        ("gpu:x", 1, "received 'gpu:x'"),
        ("gpu:\u0661", 2, "received 'gpu:"),
        ("cpu:0", 1, "received 'cpu:0'"),
        ("", 1, "received ''"),
    ],
)
def test_never_falls_back_to_another_device(request_: str, gpus: int, match: str, machine: Callable[..., None]) -> None:
    machine([(8, 0)] * gpus)
    with pytest.raises(UsageError, match=match):
        choose_devices(request_)


def test_a_wrong_word_is_found_without_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded() -> Any:
        raise AssertionError("TensorFlow was imported")

    monkeypatch.setattr(runtime, "load_tensorflow", loaded)
    with pytest.raises(UsageError, match="received 'tpu'"):
        choose_devices("tpu")
    with pytest.raises(UsageError, match="received 'double'"):
        choose_precision("double", "/GPU:0")


# Precision


@pytest.mark.parametrize(
    ("request_", "device", "gpus", "flags", "expected"),
    [
        ("auto", "/CPU:0", [], "avx512_bf16", "float32"),
        ("auto", "/GPU:0", [(7, 0)], "", "float16"),
        ("auto", "/GPU:0", [(6, 1)], "", "float32"),
        ("auto", "/GPU:0", [None], "", "float32"),
        ("auto", "/GPU:1", [(6, 1), (9, 0)], "", "float16"),
        ("float32", "/GPU:0", [(9, 0)], "", "float32"),
        ("float32", "/CPU:0", [], "", "float32"),
        ("float16", "/GPU:0", [(6, 0)], "", "float16"),
        ("bfloat16", "/GPU:0", [(8, 0)], "", "bfloat16"),
        ("tf32", "/GPU:0", [(8, 0)], "", "tf32"),
        ("bfloat16", "/CPU:0", [], "fpu avx512_bf16", "bfloat16"),
        ("bfloat16", "/CPU:0", [], "amx_bf16", "bfloat16"),
        ("bfloat16", "/CPU:0", [], "fp bf16", "bfloat16"),
    ],
)
def test_chooses_a_precision(
    request_: str, device: str, gpus: list[Any], flags: str, expected: str, machine: Callable[..., None]
) -> None:
    machine(gpus, flags)
    assert choose_precision(request_, device) == expected


@pytest.mark.parametrize(
    ("request_", "device", "gpus", "match"),
    [
        ("bfloat16", "/CPU:0", [], "this processor has no bfloat16 instructions.*use float32"),
        ("bfloat16", "/GPU:0", [(7, 5)], "older than Ampere; use float16 or float32"),
        ("float16", "/CPU:0", [], "float16 is for GPUs; on a CPU use float32 or bfloat16"),
        ("tf32", "/CPU:0", [], "tf32 is for GPUs; on a CPU use float32 or bfloat16"),
        ("tf32", "/GPU:0", [(7, 5)], "tf32: this GPU is older than Ampere; use float16 or float32"),
        ("float64", "/CPU:0", [], "auto, float32, tf32, bfloat16, float16; received 'float64'"),
    ],
)
def test_refuses_a_precision_that_the_device_has_not(
    request_: str, device: str, gpus: list[Any], match: str, machine: Callable[..., None]
) -> None:
    machine(gpus, "fpu avx2 avx512f")
    with pytest.raises(UsageError, match=match):
        choose_precision(request_, device)


KEEP = """
import resource
from xcli.core.tensorflow import keep_freed_memory
if {keep}:
    print(keep_freed_memory())
import threading
def work():
    for _ in range(50):
        images = [bytearray(7 << 20) for _ in range(5)]
        del images
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
thread = threading.Thread(target=work); thread.start(); thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_memory_is_used_again() -> None:
    def page_faults(keep: bool) -> tuple[str, int]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "LD_PRELOAD"))}
        command = [sys.executable, "-c", KEEP.format(keep=keep)]
        done = subprocess.run(command, env=kept, capture_output=True, text=True, check=True)
        *said, faults = done.stdout.split()
        return " ".join(said), int(faults)

    said, faults = page_faults(keep=True)
    if said == "False":
        pytest.skip("not glibc")
    assert faults < page_faults(keep=False)[1] / 10


def test_an_allocator_that_the_user_tuned_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    assert not keep_freed_memory()


def test_tf32_only_where_it_was_asked_for() -> None:
    allowed = load_tensorflow().config.experimental.tensor_float_32_execution_enabled
    apply_precision("tf32")
    assert allowed()
    apply_precision("float32")
    assert not allowed()
    assert [arithmetic_dtype(name) for name in ("float32", "tf32", "bfloat16")] == ["float32", "float32", "bfloat16"]  # type: ignore[arg-type]


def test_every_precision_that_is_offered_is_known(machine: Callable[..., None]) -> None:
    machine([(9, 0)])
    assert [choose_precision(name, "/GPU:0") for name in PRECISIONS] == [
        "float16",
        "float32",
        "tf32",
        "bfloat16",
        "float16",
    ]


def test_the_flags_of_this_processor() -> None:
    flags = cpu_flags()
    assert all(flag == flag.strip() != "" for flag in flags)
    if sys.platform == "linux":
        assert flags & {"fpu", "fp"}


# Libraries


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL")}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env=clean | environment,
    )


def test_tensorflow_and_keras_are_loaded_once() -> None:
    assert load_tensorflow() is load_tensorflow()
    assert load_keras() is load_keras()
    assert load_keras().backend.backend() == "tensorflow"


def test_another_backend_of_keras_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UsageError, match=r"Keras runs on 'jax' here.*set KERAS_BACKEND=tensorflow"):
        load_keras.__wrapped__()


# Standard error

SPEAK = """
import os, subprocess, sys
from xcli.core.tensorflow import NativeStderr
native = NativeStderr()
print("before", file=sys.stderr)
assert native.tail() == ""
native.capture()
native.capture()
os.write(2, b"from a C library\\n")
subprocess.run(["sh", "-c", "echo from a child >&2"], check=True)
print("from Python", file=sys.stderr)
assert native.tail() == "from a C library\\nfrom a child\\n", native.tail()
os.write(2, b"and more\\n")
assert native.tail().endswith("from a child\\nand more\\n"), native.tail()
assert native.tail(5) == "more\\n"
"""


def test_what_c_libraries_write_is_kept_back() -> None:
    done = run(SPEAK + 'print("at last \\udcff", file=sys.stderr)')
    assert done.returncode == 0, done.stderr
    assert done.stderr == "before\nfrom Python\nat last \\udcff\n"


def test_reading_does_not_move_where_the_libraries_write() -> None:
    done = run(
        """
        import os
        from xcli.core.tensorflow import NativeStderr
        native = NativeStderr()
        native.capture()
        for number in range(50):
            os.write(2, b"%02d\\n" % number)
            native.tail(3)
        print(native.tail(10_000) == "".join(f"{number:02d}\\n" for number in range(50)))
        """
    )
    assert done.stdout == "True\n"


def test_a_stream_of_somebody_else_stays_where_it_is() -> None:
    done = run(
        """
        import io, os, sys
        from xcli.core.tensorflow import NativeStderr
        theirs = sys.stderr = io.StringIO()
        native = NativeStderr()
        native.capture()
        os.write(2, b"noise")
        print("words", file=sys.stderr)
        print(sys.stderr is theirs, theirs.getvalue() == "words\\n", native.tail())
        """
    )
    assert done.stdout == "True True noise\n"
    assert done.stderr == ""


@pytest.mark.parametrize(
    "spoil", ["os.close(2); sys.stderr = None", "tempfile.TemporaryFile = lambda *_, **__: open('/no/where')"]
)
def test_without_a_descriptor_or_a_temporary_file_nothing_is_kept(spoil: str) -> None:
    done = run(
        f"""
        import os, sys, tempfile
        from xcli.core.tensorflow import NativeStderr
        {spoil}
        native = NativeStderr()
        native.capture()
        print(repr(native.tail()))
        """
    )
    assert done.stdout == "''\n"
    assert done.returncode == 0


@pytest.mark.parametrize("closed", [0, 1])
def test_the_place_of_a_closed_stream_stays_empty(closed: int) -> None:
    """Else what is written to standard output would end in a temporary file, and nobody would know."""
    done = run(
        f"""
        import errno, os, sys
        from xcli.core.tensorflow import NativeStderr
        os.close({closed})
        NativeStderr().capture()
        try:
            os.fstat({closed})
        except OSError as error:
            print(error.errno == errno.EBADF, file=sys.stderr)
        """
    )
    assert done.stderr.startswith("True\n")


def test_a_crash_of_python_is_still_seen() -> None:
    done = run("from xcli.core.tensorflow import NativeStderr\nNativeStderr().capture()\nraise ValueError('seen')")
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: seen\n")


def test_the_start_of_tensorflow_is_silent_and_leaves_the_users_log_level_alone() -> None:
    done = run(
        """
        import os
        from xcli.core.tensorflow import NativeStderr, load_keras
        native = NativeStderr()
        native.capture()
        load_keras()
        print(os.environ["TF_CPP_MIN_LOG_LEVEL"], os.environ["KERAS_BACKEND"])
        """,
        TF_CPP_MIN_LOG_LEVEL="0",
    )
    assert (done.stdout, done.stderr, done.returncode) == ("0 tensorflow\n", "", 0)
