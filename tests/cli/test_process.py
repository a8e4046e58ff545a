"""Behaviour at the boundary of the process: noise, pipes, signals, lists on standard input. Real processes."""

from __future__ import annotations

import csv
import fcntl
import io
import os
import re
import signal
import socket
import subprocess
import termios
import time
from array import array
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, clean_environment, run_process, save_photos
from tests.thorough import slow, thorough

FAST = ("--weights", "none", "--image-size", "71")


def test_a_list_on_standard_input_and_nothing_but_our_words_on_standard_error(photos: Path, tmp_path: Path) -> None:
    names = "a.jpg\nsub/e.jpg\n\na.jpg\n"
    noisy = {"TMPDIR": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "0"}  # TensorFlow says all that it has to say
    result = run_process("features", "-", *FAST, cwd=photos, stdin=names.encode(), **noisy)
    assert result.code == 0, result
    begin, end = result.err.splitlines()
    assert begin == "xception: started; progress is reported every 60 s"
    assert end.startswith("xception: 3 images: 3 ok in ")
    assert [row[0] for row in csv.reader(io.StringIO(result.text))][1:] == ["a.jpg", "sub/e.jpg", "a.jpg"]
    assert list(tmp_path.iterdir()) == [], "nothing is left in the temporary directory"


@slow
def test_a_list_with_nul_and_names_of_any_kind(tmp_path: Path) -> None:
    names = [b"line\nbreak.jpg", b"quote'\".jpg", "\N{CAT FACE}.jpg".encode(), b"\xff\xfe.jpg", b"back\\slash.jpg"]
    (original,) = save_photos(tmp_path, ["x"])
    for name in names:
        os.link(original, os.path.join(os.fsencode(tmp_path), name))
    result = run_process("features", "-", "-0", *FAST, cwd=tmp_path, stdin=b"\0".join(names))
    assert result.code == 0, result
    rows = list(csv.reader(io.StringIO(result.text, newline="")))[1:]
    escaped = ["line\nbreak.jpg", "quote'\".jpg", "\N{CAT FACE}.jpg", r"\xff\xfe.jpg", r"back\\slash.jpg"]
    assert [row[0] for row in rows] == escaped
    assert len({tuple(row[3:]) for row in rows}) == 1


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    save_photos(tmp_path, [f"{number:02}.jpg" for number in range(40)])
    args = (*COMMAND, "features", str(tmp_path), *FAST, "--batch-size", "1")
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment()) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"path,status,error,f0,")
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(60) == 0, errors
    assert errors == b"xception: started; progress is reported every 60 s\n"


@thorough
def test_a_closed_pipe_is_quiet_for_info_too() -> None:
    script = f'"{COMMAND[0]}" -m xcli info --layers | head -n 1; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=clean_environment(), timeout=60, check=False
    )
    assert done.stdout.splitlines()[-1] == "0", done
    assert done.stderr == ""


HALF, PART = 35, 10
ONE_BY_ONE = (*FAST, "--batch-size", "1", "--part-rows", str(PART))


def end_early(source: Path, target: Path, number: signal.Signals) -> tuple[int, str, float]:
    """Starts a run and sends it a signal once it has finished a part: exit code, standard error, seconds to the end."""
    args = (*COMMAND, "features", str(source), *ONE_BY_ONE, "-o", str(target))
    part = Path(f"{target}.partial/part-00000.arrow")
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment()) as process:
        deadline = time.monotonic() + 60
        while not part.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        begin = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        return process.returncode, errors.decode(), time.monotonic() - begin


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs; the names of the second half are links to those of the first."""
    root = tmp_path_factory.mktemp("many")
    for path in save_photos(root, [f"{n:03}.jpg" for n in range(HALF)]):
        os.link(path, root / f"{int(path.stem) + HALF:03}.jpg")
    return root


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=thorough),
        pytest.param(signal.SIGHUP, 129, marks=thorough),
    ],
)
def test_a_run_that_a_signal_ends_can_be_continued(
    many: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    target = tmp_path / "out.csv"
    found, errors, seconds = end_early(many, target, number)
    assert found == code, errors
    assert "Traceback" not in errors
    assert seconds < 10
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv.partial"]
    assert re.search(r"stopped after \d+ images; the same command goes on from there", errors)
    result = run_process("features", many, *ONE_BY_ONE, "-o", target)
    assert result.code == 0, result
    kept = re.search(r"continuing: (\d+) rows are kept from before", result.err)
    assert kept is not None, result
    assert PART <= int(kept[1]) < 2 * HALF
    assert f"{kept[1]} kept from before" in result.err.splitlines()[-1]
    _, *rows = csv.reader(io.StringIO(target.read_text()))
    assert [row[0] for row in rows] == sorted(map(str, many.iterdir()))
    # The first rows are of the process that was ended, and the last ones, of the same photographs, of the other.
    assert [row[1:] for row in rows[:HALF]] == [row[1:] for row in rows[HALF:]]
    assert len({tuple(row[3:]) for row in rows}) == HALF
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.csv.meta.json", "out.csv.states"]


@slow
def test_a_second_process_on_the_same_output_is_refused(many: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    args = (*COMMAND, "features", str(many), *ONE_BY_ONE, "-o", str(target))
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment()) as process:
        deadline = time.monotonic() + 60
        while not Path(f"{target}.partial/part-00000.arrow").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)
        try:
            result = run_process("features", many, *ONE_BY_ONE, "-o", target)
        finally:
            process.send_signal(signal.SIGCONT)
        assert result.code == 5, result
        assert f"is being written by process {process.pid} on {socket.gethostname()}" in result.err
        assert process.wait(60) == 0
    assert target.exists()


def test_ctrl_c_while_waiting_for_names() -> None:
    args = (*COMMAND, "features", "-", *FAST)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(args, env=clean_environment(), **pipes) as process:
        assert process.stdin is not None
        process.stdin.write(b"\n")  # no name, but whoever has read it waits for one
        process.stdin.flush()
        waiting, deadline = array("i", [1]), time.monotonic() + 60
        while waiting[0]:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
            fcntl.ioctl(process.stdin, termios.FIONREAD, waiting)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


@slow
def test_a_file_deleted_during_the_run_is_a_row(tmp_path: Path) -> None:
    names = [f"{n:02}.jpg" for n in range(60)]
    paths = save_photos(tmp_path, names)
    args = (*COMMAND, "features", str(tmp_path), *FAST, "--batch-size", "1", "--workers", "1")
    pipe, environment = subprocess.PIPE, clean_environment()
    # Without a buffer, as `communicate` would not see what `readline` has read of the next row.
    with subprocess.Popen(args, bufsize=0, stdout=pipe, stderr=pipe, env=environment) as process:
        assert process.stdout is not None
        # The first row is out, so the directory has been listed; the last of it is far from being read.
        head = process.stdout.readline() + process.stdout.readline()
        paths[-1].unlink()
        rest, errors = process.communicate(timeout=60)
    rows = list(csv.reader(io.StringIO((head + rest).decode())))[1:]
    assert [Path(row[0]).name for row in rows] == names
    assert [row[1] for row in rows] == ["ok"] * 59 + ["error"]
    assert rows[-1][2].startswith("missing: ")
    assert process.returncode == 4, errors


@thorough
def test_a_full_disk_is_exit_5(photos: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    result = run_process("features", photos, *FAST, "-o", "/dev/full", "--format", "csv")
    assert result.code == 5, result
    assert "No space left" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("redirection", "code"),
    [
        pytest.param("2>&-", 4, marks=thorough),
        pytest.param(">&-", 5, marks=thorough),
        pytest.param("2>/dev/full", 4, marks=thorough),
        (">/dev/full", 5),
    ],
)
def test_streams_that_are_closed_or_full(tmp_path: Path, redirection: str, code: int) -> None:
    save_photos(tmp_path, ["a.jpg"])
    (tmp_path / "bad.jpg").touch()
    words = f'"{COMMAND[0]}" -m xcli features "{tmp_path}" {" ".join(FAST)}'
    output = f'-o "{tmp_path}/x.csv"' if redirection.startswith("2") else ""
    done = subprocess.run(
        ["bash", "-c", f"{words} {output} {redirection}"],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr


@slow
def test_no_terminal_no_progress_and_no_colour(photos: Path) -> None:
    result = run_process("features", photos, *FAST, TERM="xterm-256color", FORCE_COLOR="1")
    assert b"\x1b" not in result.out
    assert "\x1b" not in result.err
    assert "\r" not in result.err


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to read resident memory")
@thorough
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    originals = save_photos(tmp_path, ["a", "b", "c", "d"])
    names = [os.fspath(originals[number % 4]) for number in range(800)]
    args = (*COMMAND, "features", "-", *FAST)
    resident = {}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(args, env=clean_environment(), **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n".join(names).encode())
        process.stdin.close()
        for number, _ in enumerate(process.stdout):
            if number in (300, 770):
                status = Path(f"/proc/{process.pid}/status").read_text()
                resident[number] = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    assert process.returncode == 0
    assert resident[770] - resident[300] < 50, resident


@slow
def test_nothing_in_the_current_directory_is_imported(tmp_path: Path) -> None:
    """Images lie there, which may be anybody's, and Python files beside them."""
    save_photos(tmp_path, ["a.jpg"])
    for name in ("PIL", "pyarrow", "numpy", "rich", "queue", "platformdirs"):
        (tmp_path / f"{name}.py").write_text(f"open('imported', 'a').write({name!r})\n")
    result = run_process("info", ".", "--json", cwd=tmp_path)
    assert result.code == 0, result
    assert not (tmp_path / "imported").exists(), (tmp_path / "imported").read_text()
