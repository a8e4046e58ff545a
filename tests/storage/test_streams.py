"""Outputs that are written to directly."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading

import pytest

from xcli.core.errors import OutputError, UsageError
from xcli.storage.atomic import commit, open_output
from xcli.storage.streams import CheckedStream, DirectFile, is_direct


def test_a_stream_that_takes_part_of_what_it_is_given() -> None:
    taken = []

    class Narrow:
        def write(self, data: memoryview) -> int:
            taken.append(bytes(data[:3]))
            return len(taken[-1])

    assert CheckedStream(Narrow(), "pipe").write(memoryview(b"12345678")) == 8
    assert taken == [b"123", b"456", b"78"]


def test_a_stream_that_takes_nothing() -> None:
    class Busy:
        def write(self, data: memoryview) -> None:
            return None

    with pytest.raises(OutputError, match="cannot write pipe: Resource temporarily unavailable"):
        CheckedStream(Busy(), "pipe").write(b"1")


def test_kinds_of_targets(tmp_path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    direct = [None, "-", "/dev/stdout", "/dev/stderr", "/dev/fd/9", "/proc/self/fd/9", "/dev/null"]
    assert all(is_direct(target) for target in [*direct, str(tmp_path / "fifo")])
    assert not any(is_direct(str(tmp_path / name)) for name in ("", "file", "missing", "file/below"))
    with pytest.raises(UsageError, match="empty"):
        open_output("", False)


def test_a_fifo_is_written_as_it_is(tmp_path) -> None:
    fifo = tmp_path / "fifo.csv"
    os.mkfifo(fifo)
    got = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
    reader.start()
    file = open_output(str(fifo), overwrite=False)
    file.stream.write(b"rows")
    commit([file])
    reader.join(5)
    assert got == [b"rows"]
    assert os.listdir(tmp_path) == ["fifo.csv"]


def test_a_descriptor_keeps_its_position(tmp_path) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    try:
        os.write(descriptor, b"before ")
        file = open_output(f"/dev/fd/{descriptor}", overwrite=False)
        file.stream.write(b"rows")
        commit([file])
        os.write(descriptor, b" after")
    finally:
        os.close(descriptor)
    assert (tmp_path / "log").read_bytes() == b"before rows after"
    with pytest.raises(OutputError, match="cannot write /dev/fd/987654: Bad file descriptor"):
        open_output("/dev/fd/987654", overwrite=False)


@pytest.mark.parametrize("target", ["-", "/dev/stdout"])
def test_standard_output_stays_open_and_in_order(capfdbinary, target: str) -> None:
    code = (
        "import sys; from xcli.storage.atomic import commit, open_output\n"
        "print('text', end=' '); file = open_output(sys.argv[1], False); file.stream.write(b'rows ')\n"
        "commit([file]); print('more', end='')"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    subprocess.run([sys.executable, "-c", code, target], check=True, env=environment)
    assert capfdbinary.readouterr().out == b"text rows more"


def test_standard_output_that_is_a_file_is_appended_to(tmp_path) -> None:
    code = (
        "from xcli.storage.atomic import commit, open_output; file = open_output('/dev/stdout', False); "
        "file.stream.write(b'new'); commit([file])"
    )
    log = tmp_path / "log"
    log.write_bytes(b"old ")
    with log.open("ab") as stream:
        subprocess.run([sys.executable, "-c", code], check=True, stdout=stream)
    assert log.read_bytes() == b"old new"


def test_standard_output_that_is_closed(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OutputError, match="standard output: it is closed"):
        DirectFile(None)


def test_a_closed_pipe_is_not_an_output_error() -> None:
    reading, writing = os.pipe()
    file = open_output(f"/dev/fd/{writing}", False)
    os.close(writing)
    os.close(reading)
    file.stream.write(b"rows")
    with pytest.raises(BrokenPipeError):
        commit([file])
    file.discard()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_device() -> None:
    file = open_output("/dev/full", False)
    file.stream.write(b"rows")
    with pytest.raises(OutputError, match=r"^cannot write /dev/full: No space left on device$"):
        commit([file])
    file.discard()


def test_streams_are_what_encoders_take() -> None:
    stream = CheckedStream(io.BytesIO(), "buffer")
    stream.write(b"abc")
    assert stream.seek(1) == 1
    stream.write(b"B")
    assert stream._stream.getvalue() == b"aBc"
