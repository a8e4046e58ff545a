"""The allocator, the processor, free memory, and what native libraries write on standard error."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.thorough import slow
from xcli.core.process import cpu_flags, free_memory, may_have_gpu, reuse_freed_memory

GIB = 1 << 30

if TYPE_CHECKING:
    from pathlib import Path


KEEP = """
import resource
from xcli.core.process import reuse_freed_memory
if {keep}:
    print(reuse_freed_memory())
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


POOLS = """
import ctypes, sys, threading
from xcli.core.process import reuse_freed_memory
print(reuse_freed_memory(one_pool={one_pool}))
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.fclose.argtypes = [ctypes.c_void_p]
together = threading.Barrier(4)
def work():
    libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
file = libc.fopen(sys.argv[1].encode(), b"w")
libc.malloc_info(0, file)
libc.fclose(file)
print(open(sys.argv[1]).read().count("<heap nr="))
"""


@pytest.mark.parametrize("one_pool", [True, False])
def test_threads_share_a_pool_or_have_their_own(one_pool: bool, tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "LD_PRELOAD"))}
    command = [sys.executable, "-c", POOLS.format(one_pool=one_pool), str(tmp_path / "pools.xml")]
    done = subprocess.run(command, env=kept, capture_output=True, text=True, check=True)
    said, pools = done.stdout.split()
    if said == "False":
        pytest.skip("not glibc")
    assert int(pools) == 1 if one_pool else int(pools) > 2


def test_an_allocator_that_the_user_tuned_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    assert not reuse_freed_memory()


def test_the_flags_of_this_processor() -> None:
    flags = cpu_flags()
    assert all(flag == flag.strip() != "" for flag in flags)
    if sys.platform == "linux":
        assert flags & {"fpu", "fp"}


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL")}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env=clean | environment,
    )


SPEAK = """
import os, subprocess, sys
from xcli.core.process import discard_native_stderr
print("before", file=sys.stderr)
discard_native_stderr()
discard_native_stderr()
os.write(2, b"from a C library\\n")
subprocess.run(["sh", "-c", "echo from a child >&2"], check=True)
print("from Python", file=sys.stderr)
os.write(2, b"and more\\n")
"""


def test_what_c_libraries_write_is_kept_back() -> None:
    done = run(SPEAK + 'print("at last \\udcff", file=sys.stderr)')
    assert done.returncode == 0, done.stderr
    assert done.stderr == "before\nfrom Python\nat last \\udcff\n"


def test_a_stream_of_somebody_else_stays_where_it_is() -> None:
    done = run(
        """
        import io, os, sys
        from xcli.core.process import discard_native_stderr
        theirs = sys.stderr = io.StringIO()
        discard_native_stderr()
        os.write(2, b"noise")
        print("words", file=sys.stderr)
        print(sys.stderr is theirs, theirs.getvalue() == "words\\n")
        """
    )
    assert done.stdout == "True True\n"
    assert done.stderr == ""


def test_without_a_descriptor_nothing_changes() -> None:
    done = run(
        """
        import os, sys
        from xcli.core.process import discard_native_stderr
        os.close(2); sys.stderr = None
        discard_native_stderr()
        try:
            os.fstat(2)
        except OSError:
            print("closed")
        """
    )
    assert (done.stdout, done.returncode) == ("closed\n", 0)


@pytest.mark.parametrize("closed", [0, 1])
def test_the_place_of_a_closed_stream_stays_empty(closed: int) -> None:
    """Else what is written to standard output would end in a temporary file, and nobody would know."""
    done = run(
        f"""
        import errno, os, sys
        from xcli.core.process import discard_native_stderr
        os.close({closed})
        discard_native_stderr()
        try:
            os.fstat({closed})
        except OSError as error:
            print(error.errno == errno.EBADF, file=sys.stderr)
        """
    )
    assert done.stderr.startswith("True\n")


def test_a_crash_of_python_is_still_seen() -> None:
    done = run("from xcli.core.process import discard_native_stderr\ndiscard_native_stderr()\nraise ValueError('seen')")
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: seen\n")


@slow
def test_the_start_of_tensorflow_is_silent_and_leaves_the_users_log_level_alone() -> None:
    done = run(
        """
        import os
        from xcli.core.process import discard_native_stderr
        from xcli.core.tensorflow import load_keras
        discard_native_stderr()
        load_keras()
        print(os.environ["TF_CPP_MIN_LOG_LEVEL"], os.environ["KERAS_BACKEND"])
        """,
        TF_CPP_MIN_LOG_LEVEL="0",
    )
    assert (done.stdout, done.stderr, done.returncode) == ("0 tensorflow\n", "", 0)


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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a GPU has other signs")
@pytest.mark.parametrize("sign", ["dev/nvidiactl", "proc/driver/nvidia", "dev/dxg"])
def test_signs_of_a_gpu(sign: str, tmp_path: Path) -> None:
    assert not may_have_gpu(tmp_path)
    (tmp_path / sign).parent.mkdir(parents=True)
    (tmp_path / sign).touch()
    assert may_have_gpu(tmp_path)
