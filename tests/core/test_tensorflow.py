"""Devices and precision."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from xcli.core import process
from xcli.core import tensorflow as runtime
from xcli.core.errors import UsageError
from xcli.core.tensorflow import (
    PRECISIONS,
    choose_devices,
    choose_precision,
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
        monkeypatch.setattr(process, "cpu_flags", lambda: frozenset(flags.split()))

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


def test_every_precision_that_is_offered_is_known(machine: Callable[..., None]) -> None:
    machine([(9, 0)])
    assert [choose_precision(name, "/GPU:0") for name in PRECISIONS] == [
        "float16",
        "float32",
        "tf32",
        "bfloat16",
        "float16",
    ]
