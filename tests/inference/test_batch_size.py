"""The batch size that goes with a device and its free memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from xcli.inference import batch_size as memory
from xcli.inference.batch_size import CPU_BATCH, GPU_BATCH, default_batch_size, free_memory

if TYPE_CHECKING:
    from pathlib import Path

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
    assert default_batch_size("/GPU:1", 299, "float16") == GPU_BATCH // 4
    assert asked == ["/GPU:1"]


def test_unknown_memory_is_no_reason_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: None)
    assert default_batch_size("/CPU:0") == CPU_BATCH


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


MEMINFO = "MemTotal:       24000000 kB\nMemFree:         1000000 kB\nMemAvailable:   20000000 kB\n"


def test_free_memory_of_the_machine(tmp_path: Path) -> None:
    assert free_memory(tmp_path) is None
    write(tmp_path, "proc/meminfo", MEMINFO)
    assert free_memory(tmp_path) == 20_000_000 * 1024
    write(tmp_path, "sys/fs/cgroup/memory.max", "max\n")
    write(tmp_path, "sys/fs/cgroup/memory.current", "5000\n")
    write(tmp_path, "sys/fs/cgroup/memory.stat", "anon 5000\n")
    assert free_memory(tmp_path) == 20_000_000 * 1024


@pytest.mark.parametrize(
    ("limit", "usage", "stat"),
    [
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ],
)
def test_a_control_groups_limit_counts_without_what_it_caches(
    tmp_path: Path, limit: str, usage: str, stat: str
) -> None:
    write(tmp_path, "proc/meminfo", MEMINFO)
    groups = tmp_path / "sys/fs/cgroup"
    write(groups, limit, f"{4 * GIB}\n")
    write(groups, usage, f"{4 * GIB}\n")
    write(groups, stat, f"anon {GIB}\nactive_file {GIB}\ninactive_file {2 * GIB}\n")
    assert free_memory(tmp_path) == 3 * GIB


def test_this_machine_says_something_sensible() -> None:
    found = free_memory()
    assert found is None or found > 1 << 20
