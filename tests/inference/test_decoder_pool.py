"""Processes that decode: what becomes of an image, and of the others, when one crashes, hangs or wants too much."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.imagefiles import encode, gradient
from tests.inference.conftest import children, until
from tests.inference.decoders import decoder, square
from tests.inference.test_pipeline import ROOT, drain, numbers, pipeline, ref
from xcli.core.errors import ExitCode, ImageError, MachineError
from xcli.images.preprocessing import Preprocessing
from xcli.inference import decoder_server
from xcli.inference.decoder_pool import MAX_SILENT
from xcli.inference.decoder_server import DecoderServer
from xcli.inference.pipeline import PixelPipeline
from xcli.sources.locations import file_ref

if TYPE_CHECKING:
    from xcli.core.records import ImageBatch

pytestmark = pytest.mark.usefixtures("own_decoders", "nothing_is_left")


def check(batches: list[ImageBatch], count: int, dead: dict[int, str]) -> None:
    """All rows are there, in order; those that are not dead have the pixels of an undisturbed run."""
    assert numbers(batches) == list(range(count))
    errors = [error for batch in batches for error in batch.errors]
    pixels = np.concatenate([batch.pixels for batch in batches])
    assert {number: str(error) for number, error in enumerate(errors) if error} == dead
    for number in range(count):
        assert (pixels[number] == (0 if number in dead else square(number))).all()


KILLED = "too-large: its decoder was killed (SIGKILL), most likely for want of memory"
LATE = "timeout: not read and decoded within 0.5 s"


@pytest.mark.parametrize(
    ("kind", "arguments", "error"),
    [
        ("segfault", {}, "crashed: its decoder was killed (SIGSEGV)"),
        ("killed", {"signal": signal.SIGABRT}, "crashed: its decoder was killed (SIGABRT)"),
        ("killed", {"signal": signal.SIGBUS}, "crashed: its decoder was killed (SIGBUS)"),
        ("killed", {"signal": signal.SIGKILL}, KILLED),
        ("leave", {}, "crashed: its decoder was ended (exit code 7)"),
        ("hang", {}, LATE),
        ("spin", {}, LATE),
        ("hungry", {"mebibytes": 1 << 20}, "too-large: not enough memory to decode it"),
    ],
)
def test_an_image_that_ends_its_decoder_is_a_row_and_the_others_go_on(kind: str, arguments: dict, error: str) -> None:
    dead = [2, 3, 17, 25]
    batches, raised = drain(pipeline(map(ref, range(40)), decoder(kind, at=dead, **arguments), workers=2, timeout=0.5))
    assert raised is None
    check(batches, 40, dict.fromkeys(dead, error))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_an_image_that_happened_to_be_there_is_tried_again(number: int, tmp_path: Path) -> None:
    spec = decoder("killed_once", at=[9], signal=number, folder=str(tmp_path))
    batches, raised = drain(pipeline(map(ref, range(20)), spec, workers=2))
    assert raised is None
    check(batches, 20, {})


def test_an_image_that_wants_more_than_its_share_is_decoded_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_server, "free_memory", lambda: 1 << 30)
    monkeypatch.setattr(decoder_server, "_SHARE", 0.2)
    monkeypatch.setattr(decoder_server, "_MOST", 0.8)
    spec = decoder("hungry", at=[1, 6], mebibytes=500)
    batches, raised = drain(pipeline(map(ref, range(12)), spec, workers=2))
    assert raised is None
    check(batches, 12, {})
    spec = decoder("hungry", at=[1, 6], mebibytes=900)
    batches, raised = drain(pipeline(map(ref, range(12)), spec, workers=2))
    assert raised is None
    check(batches, 12, dict.fromkeys([1, 6], "too-large: not enough memory to decode it"))


def test_a_storage_that_does_not_answer_stops_the_run() -> None:
    spec = decoder("hang", at=list(range(40, 1000)))
    batches, raised = drain(pipeline(map(ref, range(1000)), spec, batch_size=8, workers=8, timeout=0.3))
    assert type(raised) is MachineError
    assert raised.exit_code == ExitCode.OUTPUT, "a storage that hangs is no bug"
    assert "--image-timeout 0.3 s" in str(raised)
    assert MAX_SILENT == 16
    # No row says anything of images that were not tried.
    done = len(numbers(batches))
    assert 40 <= done <= 40 + 17
    reasons = [error.reason if error else "ok" for batch in batches for error in batch.errors]
    assert reasons == ["ok"] * 40 + ["timeout"] * (done - 40)


def test_any_number_of_images_may_decode_too_slowly() -> None:
    slow = list(range(20))
    batches, raised = drain(
        pipeline(map(ref, range(22)), decoder("hang_after_reading", at=slow), workers=8, timeout=0.2)
    )
    assert raised is None
    check(batches, 22, dict.fromkeys(slow, "timeout: not read and decoded within 0.2 s"))


def test_processes_are_used_again(tmp_path: Path) -> None:
    list(pipeline(map(ref, range(50)), decoder("noting", folder=str(tmp_path)), workers=3))
    assert len({name.partition("-")[2] for name in os.listdir(tmp_path)}) <= 3
    assert len(os.listdir(tmp_path)) == 50


def test_a_server_that_is_killed_is_replaced() -> None:
    batches = iter(pipeline(map(ref, range(400)), workers=2))
    found = [next(batches)]
    (server,) = [child for child in children() if _parent(child) == os.getpid()]
    os.kill(server, signal.SIGKILL)
    rest, raised = drain(batches)
    assert raised is None
    check(found + rest, 400, {})


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_an_answer_that_is_none_of_this_program_ends_its_decoder() -> None:
    _, raised = drain(pipeline(map(ref, range(3)), decoder("lying"), workers=1))
    assert raised is None or type(raised) is MachineError


# ---- what the machine runs out of is no fault of an image ----


def test_an_image_waits_for_descriptors(tmp_path: Path) -> None:
    spec = decoder("refused", times=2, number=errno.EMFILE, folder=str(tmp_path))
    batches, raised = drain(pipeline(map(ref, range(4)), spec, workers=1))
    assert raised is None
    check(batches, 4, {})


def test_lasting_want_of_descriptors_ends_the_run(tmp_path: Path) -> None:
    spec = decoder("refused", times=9, number=errno.EMFILE, folder=str(tmp_path))
    batches, raised = drain(pipeline(map(ref, range(4)), spec, workers=1))
    assert batches == []
    assert type(raised) is MachineError
    assert "no more files can be opened" in str(raised)


def test_another_error_of_the_system_is_a_row_at_once(tmp_path: Path) -> None:
    spec = decoder("refused", times=2, number=errno.EIO, folder=str(tmp_path))
    batches, raised = drain(pipeline(map(ref, range(4)), spec, workers=1))
    assert raised is None
    assert [str(error) for error in batches[0].errors] == ["unreadable: refused"] * 2 + ["None"] * 2


def test_no_room_for_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    _, raised = drain(pipeline(map(ref, range(4))))
    assert type(raised) is MachineError
    assert "cannot be started" in str(raised)


# ---- the end ----

_SCRIPT = """
import sys, time
from tests.inference.decoders import decoder
from tests.inference.test_pipeline import pipeline, ref
from xcli.inference import decoder_server
decoder_server.MODULE = "tests.inference.decoders"
run = pipeline(map(ref, range(1000)), decoder(sys.argv[1], at=[4, 5, 6, 7, 8]), workers=2)
run._start()
next(run._batches())
print("ready", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize(
    ("kind", "number"), [("hang", signal.SIGTERM), ("hang", signal.SIGSEGV), ("spin", signal.SIGKILL)]
)
def test_decoders_die_with_the_run_whatever_ends_it(kind: str, number: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", _SCRIPT, kind], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        memory = set(os.listdir("/dev/shm"))
        begun = children(process.pid)
        assert len(begun) >= 2, "a server, and a worker"
        process.send_signal(number)
        process.wait(10)
        assert until(lambda: not any(map(_is_alive, begun)), 5)
        assert set(os.listdir("/dev/shm")) <= memory
    finally:
        process.kill()
        process.wait()


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_signals_to_the_whole_job_do_not_end_decoders() -> None:
    """Ctrl-C, and what a scheduler sends, reach all processes; the run decides what becomes of its images."""
    batches = iter(pipeline(map(ref, range(400)), workers=2))
    found = [next(batches)]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for child in children():
            os.kill(child, number)
    rest, raised = drain(batches)
    assert raised is None
    check(found + rest, 400, {})


def test_relative_paths_are_those_of_the_directory_in_which_the_run_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of that in which the server was started early."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.png").write_bytes(encode(gradient(), "PNG"))
    monkeypatch.chdir(tmp_path)
    decoder_server.start_early()
    monkeypatch.chdir(tmp_path / "here")
    run = PixelPipeline(iter([file_ref(b"a.png")]), Preprocessing(size=8), batch_size=1)
    batches = iter(run)
    (error,) = next(batches).errors
    assert error is None
    assert list(batches) == []


def test_decoders_import_neither_tensorflow_nor_what_lies_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_server, "MODULE", "xcli.inference.decoder_process")
    for name in ("numpy", "PIL", "json", "xcli"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    server = DecoderServer()
    assert until(lambda: "libopenblas" in _maps(server) or "_imaging" in _maps(server))
    time.sleep(0.3)
    maps = _maps(server)
    assert "tensorflow" not in maps
    assert "libarrow" not in maps
    assert not (tmp_path / "run").exists()
    server.close()


def _maps(server: DecoderServer) -> str:
    return Path(f"/proc/{server._process.pid}/maps").read_text()


def test_image_errors_have_a_reason_for_each_end() -> None:
    assert {"crashed", "too-large", "timeout"} <= set(ImageError.REASONS)
