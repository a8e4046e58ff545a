"""This process and its machine: the C library's allocator, native standard error, instruction sets, free memory."""

from __future__ import annotations

import ctypes
import fcntl
import os
import sys
import warnings
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr, suppress
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
_KEPT_BYTES = 256 << 20


def reuse_freed_memory(*, one_pool: bool = True) -> bool:
    """Makes the C library reuse the memory of decoded images.

    By default it returns the memory of every image (about 5 MB) to the system, which clears the pages each time.
    Only for the processes of the command line: a library must not change the allocator of its host.

    Args:
        one_pool: all threads share a pool, so that memory that one frees serves another. Threads that allocate much at
            the same time wait for each other then, as those of a compiler do.

    Returns:
        Whether it was set: only with glibc, and unless environment variables tune its malloc.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl, macOS
        return False
    # glibc maps blocks larger than 32 MiB separately in any case; TensorFlow has its own allocator.
    options = [(_M_TRIM_THRESHOLD, _KEPT_BYTES), (_M_MMAP_THRESHOLD, 32 << 20)]
    if one_pool:
        options.append((_M_ARENA_MAX, 1))
    return all(mallopt(name, value) for name, value in options)


def return_freed_memory() -> None:
    """Returns to the system what `reuse_freed_memory` keeps, and what Arrow does; after a phase that needs much."""
    if (pyarrow := sys.modules.get("pyarrow")) is not None:
        pyarrow.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):  # musl, macOS
        ctypes.CDLL(None).malloc_trim(0)


@cache
def cpu_flags() -> frozenset[str]:
    """Returns the instruction sets of the processor as Linux names them; empty if they cannot be read."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as info:
        for line in info:
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    return frozenset()


def has_bfloat16() -> bool:
    """Says whether the processor has bfloat16 instructions: AVX512-BF16, AMX, or those of ARM."""
    return not cpu_flags().isdisjoint(("avx512_bf16", "amx_bf16", "bf16"))


def has_int8() -> bool:
    """Says whether the processor multiplies 8-bit integers at more than the speed of floats: AVX-VNNI or AMX."""
    return not cpu_flags().isdisjoint(("avx512_vnni", "avx_vnni", "amx_int8"))


def may_have_gpu(root: Path = Path("/")) -> bool:
    """Returns whether TensorFlow could find a GPU here; false only where the system shows no sign of one.

    On Linux a GPU has a device file: of NVIDIA's driver, of a Jetson, of AMD's, or that of Windows below WSL.
    """
    signs = ("dev/nvidiactl", "proc/driver/nvidia", "dev/nvmap", "dev/kfd", "dev/dxg")
    return sys.platform != "linux" or any((root / sign).exists() for sign in signs)


def free_memory(root: Path = Path("/")) -> int | None:
    """Returns the bytes of main memory that this process may still use, None if the system does not report them.

    It is the smaller number of those of the machine and of its control group, read below `root`.
    """
    found = []
    with suppress(OSError, ValueError, IndexError):
        lines = (root / "proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    groups = root / "sys/fs/cgroup"
    for group, limit, usage in (
        (groups, "memory.max", "memory.current"),
        (groups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        # Without a limit, version 2 says "max" here and version 1 a number beyond all memory.
        with suppress(OSError, ValueError):
            used = int((group / usage).read_text()) - _cached_files(group)
            found.append(max(0, int((group / limit).read_text()) - used))
    return min(found, default=None)


def _cached_files(group: Path) -> int:
    """Returns the bytes of a control group that only cache files; the system frees them on demand."""
    lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
    return sum(int(value) for name, value in lines if name in ("active_file", "inactive_file"))


def raise_file_limit(files: int) -> None:
    """Raises the limit of open files, usually a thousand, by what so many files need, if that is permitted."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files + 256
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def hide_library_output(*, debug: bool) -> None:
    """Hides the messages and warnings of libraries, except for debugging."""
    if not debug:
        discard_native_stderr()
        warnings.simplefilter("ignore")


_DISCARDED = ExitStack()


def discard_native_stderr() -> None:
    """Discards what C and C++ libraries write to file descriptor 2; Python's `sys.stderr` stays visible.

    TensorFlow, oneDNN, CUDA and libtiff write there directly; no log level silences all of them.
    """
    _DISCARDED.enter_context(silent_libraries())


@contextmanager
def silent_libraries() -> Iterator[None]:
    """A context for the process of another program: what C and C++ libraries write to descriptor 2 does not appear.

    Meanwhile Python's `sys.stderr` writes to the original descriptor.
    """
    try:
        original = _duplicate_stderr()
    except OSError:
        yield
        return
    encoding = getattr(sys.stderr, "encoding", None)
    stream = os.fdopen(original, "w", encoding=encoding, errors="backslashreplace", buffering=1)
    redirected = redirect_stderr(stream) if _is_native_stderr(sys.stderr) else nullcontext()
    with stream, redirected:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(original, 2)


def _duplicate_stderr() -> int:
    """Duplicates descriptor 2 to a number above those of the standard streams, even if one of them is closed."""
    return fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 3)


def _is_native_stderr(stream: IO[str] | None) -> bool:
    try:
        return stream is not None and stream.fileno() == 2
    except (OSError, ValueError):  # a stream without a descriptor, or a closed one
        return False


def processor_count() -> int:
    """Returns the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
