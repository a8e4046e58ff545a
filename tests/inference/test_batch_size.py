"""The batch size that goes with a device and its free memory."""

from __future__ import annotations

import pytest

from xcli.inference import batch_size as memory
from xcli.inference.batch_size import CPU_BATCH, GPU_BATCH, default_batch_size

GIB = 1 << 30


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 64 * GIB)
    monkeypatch.setattr(memory, "_free_gpu_memory", lambda device: 64 * GIB)


@pytest.mark.usefixtures("free")
def test_by_device_and_image_size() -> None:
    assert default_batch_size("/CPU:0") == default_batch_size("/CPU:0", 71) == CPU_BATCH
    assert default_batch_size("/GPU:1") == GPU_BATCH
    assert default_batch_size("/CPU:0", 598) == CPU_BATCH // 4
    assert default_batch_size("/CPU:0", 100_000) == 1


@pytest.mark.parametrize(
    ("gib", "precision", "expected"),
    [(16, "float32", 16), (2, "float32", 8), (2, "bfloat16", 16), (0.01, "float32", 1)],
)
def test_little_memory_gives_small_batches(
    monkeypatch: pytest.MonkeyPatch, gib: float, precision: str, expected: int
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: int(gib * GIB))
    assert default_batch_size("/CPU:0", 299, precision) == expected  # type: ignore[arg-type]


def test_memory_of_a_gpu_counts_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 0)
    asked = []
    monkeypatch.setattr(memory, "_free_gpu_memory", lambda device: asked.append(device) or 4 * GIB)
    assert default_batch_size("/GPU:1", 299, "float16") == GPU_BATCH // 2
    assert asked == ["/GPU:1"]


def test_unknown_memory_is_no_reason_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: None)
    assert default_batch_size("/CPU:0") == CPU_BATCH
