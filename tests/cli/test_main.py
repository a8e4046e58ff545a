"""The boundary: start-up, exit codes, messages, the environment."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import pytest

from tests.cli.conftest import COMMAND, Invoke, run_process, save_photos
from xcli import __version__
from xcli.cli import cli
from xcli.core.errors import ExitCode

HEAVY = {"tensorflow", "keras", "numpy", "PIL", "pyarrow", "matplotlib", "h5py", "rich", "tqdm"}
LIGHT = [
    ["--help"],
    ["--version"],
    ["classify", "--help"],
    ["features", "--help"],
    ["info", "--help"],
    ["merge", "--help"],
    ["verify", "--help"],
    ["report", "--help"],
    ["classify", "--no-such-option"],
    ["classify", "--top", "zero"],
    ["features", "--pooling", "median"],
    ["classify", "--classes", "5"],
    ["classify", "--image-size", "150"],
    ["features", "--weights", "none", "--image-size", "70"],
    ["classify", "no-such-*.jpg"],
    ["classify", "no-such", "neither.jpg"],
    ["features", "no-such", "-o", "x.parquet"],
    ["info", "no-such"],
    ["evaluate", "no-such", "--model", "no-such.keras"],
    ["finetune", "no-such", "-o", "no-run"],
    ["classify", "x.jpg", "-o", "x.unknown"],
    ["merge", "no-such.csv", "-o", "x.csv"],
    ["verify", "no-such.csv"],
    ["report", "no-such.csv", "-o", "x.html"],
    ["bogus"],
]


@pytest.mark.parametrize("args", LIGHT, ids=" ".join)
def test_help_and_usage_errors_import_nothing_heavy(args: list[str]) -> None:
    code = (
        "import sys\nfrom xcli.cli.main import run_command\nfrom xcli.cli.verbosity import Messages\n"
        f"sys.argv = ['xception', *{args!r}]\ncode = run_command(Messages())\n"
        f"print('IMPORTED', code, sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = 0 if args[-1] in ("--help", "--version") else 2
    assert done.stdout.splitlines()[-1] == f"IMPORTED {expected} []", done.stdout + done.stderr


def test_help_is_fast() -> None:
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        subprocess.run([*COMMAND, "--help"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - begin)
    # The best of five: the machine may be busy with other things, the program may not.
    assert min(seconds) < 0.3, seconds


def test_version(invoke: Invoke) -> None:
    result = invoke("--version")
    assert (result.code, result.text) == (0, f"xception, version {__version__}\n")


def test_every_command_and_option_has_help() -> None:
    for name, command in cli.commands.items():
        assert command.help, name
        assert command.short_help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts}"


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["classify", "--top", "0", "."], 2, "--top"),
        (["classify", "no-such", "-o", "x.csv"], 2, "'no-such' (no such file or directory); --missing-ok"),
        (["features", ".", "no-such.tar::a.jpg", "-o", "x/"], 2, "'no-such.tar::a.jpg'"),
        (["classify", "--errors-out", "no/such/list", "--weights", "none", "."], 5, "no/such"),
        (["evaluate", ".", "--model", "no-such.keras"], 2, "no class folders"),
        (["classify", "x-*.jpg"], 2, "'x-*.jpg'"),
        (["classify", "--classes", "7", "."], 2, "classes=7"),
        (["classify", "--weights", "none", "--model", "m.keras", "."], 2, "exclude each other"),
        (["classify", "--shard", "3/2", "."], 2, "3/2"),
        (["classify", "--manifest", "m.csv", "."], 2, "--manifest"),
        (["classify", "--device", "gpu:7", "--weights", "none", "."], 2, "gpu:7"),
        (["classify", "--device", "tpu", "--weights", "none", "."], 2, "tpu"),
        (["classify", "--precision", "float16", "--device", "cpu", "--weights", "none", "."], 2, "float16"),
        (["classify", "--label-type", "wnid", "--weights", "none", "--classes", "3", "."], 2, "wnid"),
        (["classify", "--model", "no-such.keras", "."], 3, "no-such.keras"),
        (["classify", "--weights", "no-such.h5", "."], 3, "no-such.h5"),
        (["classify", "--weights", "none", "--labels", "no-such.txt", "."], 3, "no-such.txt"),
        (["features", "--weights", "none", "--layer", "block99", "."], 2, "block99"),
        (["features", "--weights", "none", "--pooling", "none", "--format", "csv", "."], 2, "maps"),
        (["features", "--weights", "none", "--pooling", "none", "--normalize", "-o", "x.parquet", "."], 2, "maps"),
        (["features", "--weights", "none", "--format", "npy", "."], 2, "-o"),
        (["classify", "--weights", "none", "-o", "no/such/dir/x.csv", "."], 5, "no/such/dir"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_errors_are_one_line_with_their_exit_code(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*args)
    assert result.code == code, result
    assert message in result.err.splitlines()[-1], result
    assert "Traceback" not in result.err
    assert result.out == b""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["classify", "--pooling", "avg", "."], "No such option '--pooling': it belongs to export, features, info."),
        (["features", ".", "--labels=x"], "No such option '--labels': it belongs to classify, evaluate, export, info."),
        (["evaluate", ".", "-0"], "No such option '-0': it belongs to classify, features, info, merge, verify."),
        (["classify", "--offlin", "."], "Did you mean '--offline'?"),
        (["help", "clasify"], "No such command 'clasify'. Did you mean 'classify'?"),
        (["a b.jpg", "-o", "x.csv"], "did you mean xception classify 'a b.jpg' -o x.csv?"),
        (
            ["classify", "--classes", "7", "."],
            "received classes=7: leave --classes out, or give a network with so many",
        ),
        (["info", "--weights", "none", "--classes", "3", "--labels", "two"], "or --weights none --classes 2)"),
        (["classify", "--weights", "none", "--classes", "1", "--labels", "two", "."], "is the first line a heading"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_meant_is_said(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b.jpg").touch()
    (tmp_path / "two").write_text("cat\ndog\n")
    result = invoke(*args)
    assert result.code in (2, 3), result
    assert message in result.err, result


@pytest.mark.parametrize("name", [[], ["classify"], ["merge"]])
def test_help_is_a_command_too(invoke: Invoke, name: list[str]) -> None:
    assert invoke("help", *name) == invoke(*name, "--help")


def test_no_weights_and_no_network_names_the_ways_out(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "KERAS_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    result = invoke("classify", tmp_path, "--offline")
    assert result.code == ExitCode.MODEL
    for way in ("--weights FILE", "XCEPTION_WEIGHTS_DIR", "XCEPTION_WEIGHTS_URL", "--weights none", "--model FILE"):
        assert way in result.err


def test_a_bug_is_one_line_and_a_traceback_only_under_debug(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oh\nno")

    monkeypatch.setattr("xcli.cli.table_run.list_images", broken)
    result = invoke("classify", tmp_path)
    assert result.code == 1
    assert len(result.err.splitlines()) == 1
    assert "ZeroDivisionError" in result.err
    assert "--debug" in result.err
    assert "Traceback" in invoke("classify", tmp_path, "--debug").err
    assert "Traceback" in invoke("--debug", "classify", tmp_path).err


def test_options_come_from_the_environment(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XCEPTION_CLASSIFY_TOP", "none")
    result = invoke("classify", tmp_path)
    assert result.code == 2
    assert "XCEPTION_CLASSIFY_TOP" in result.err or "--top" in result.err


@pytest.mark.parametrize(
    ("variables", "args", "message"),
    [
        ({"WEIGHTS": "none"}, ["--model", "no.keras"], "no such model: no.keras"),
        ({"MODEL": "no.keras"}, ["--weights", "no.h5"], "cannot read weights from no.h5"),
        ({"MODEL": "no.keras", "INPUT_RANGE": "raw"}, ["--weights", "no.h5"], "cannot read weights from no.h5"),
        ({"MANIFEST": "no.csv", "ESCAPED_PATHS": "1"}, ["--device", "tpu", "--weights", "none"], "received 'tpu'"),
        ({"FEATURES_OUT": "f.npy", "RESTART": "1"}, ["-o", "-", "--model", "no.keras"], "no such model: no.keras"),
        ({"FORMAT": "csv", "RUNNER": "local"}, ["-o", "new/", "--model", "no.keras"], "no such model: no.keras"),
        ({"RUNNER": "ray"}, ["-o", "x.csv", "--model", "no.keras"], "no such model: no.keras"),
        ({"CSV_SAFE": "1"}, ["-o", "x.jsonl", "--model", "no.keras"], "no such model: no.keras"),
    ],
    ids=str,
)
def test_what_is_typed_beats_a_variable_that_excludes_it(
    invoke: Invoke,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    args: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(f"XCEPTION_CLASSIFY_{name}", value)
    result = invoke("classify", ".", *args)
    assert result.code in (2, 3), result
    assert message in result.err
    assert "XCEPTION" not in result.err, result


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"MODEL": "no.keras", "WEIGHTS": "no.h5"},
            "received XCEPTION_CLASSIFY_WEIGHTS=no.h5 (--model is set by XCEPTION_",
        ),
        ({"MODEL": "no.keras"}, "no such model: no.keras (--model is set by XCEPTION_CLASSIFY_MODEL)"),
        ({"DEVICE": "tpu", "WEIGHTS": "none"}, "received 'tpu' (--device is set by XCEPTION_CLASSIFY_DEVICE)"),
        ({"NULL": "1"}, "as a source; it says how the list on standard input is separated (--null is set by XCEPTION_"),
        ({"CLASSES": "7"}, "(--classes is set by XCEPTION_CLASSIFY_CLASSES)"),
        ({"TOP": "many"}, "Invalid value for XCEPTION_CLASSIFY_TOP: 'many'"),
    ],
    ids=str,
)
def test_messages_name_the_variable(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"XCEPTION_CLASSIFY_{name}", value)
    result = invoke("classify", tmp_path)
    assert result.code in (2, 3), result
    assert message in result.err
    assert "received --" not in result.err


def test_variables_that_set_nothing_are_named_once(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLASSIFY_TOPP", "CLASIFY_TOP", "X", "REPORT", "WEIGHTS_URL", "MERGE_REPORT", "TEST_DATA"):
        monkeypatch.setenv(f"XCEPTION_{name}", "1")
    result = invoke("verify", "no-such.csv")
    assert result.code == 2
    meant = "did you mean XCEPTION_CLASSIFY_TOP?"
    assert result.err.splitlines()[0] == (
        f"xception: no option has the variable XCEPTION_CLASIFY_TOP ({meant}), XCEPTION_CLASSIFY_TOPP ({meant}), "
        "XCEPTION_REPORT (did you mean XCEPTION_VERIFY_REPORT?), XCEPTION_X"
    )
    assert len(result.err.splitlines()) == 2


def test_a_container_may_name_its_version(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("0.1.0", "1"):
        monkeypatch.setenv("XCEPTION_VERSION", value)
        assert invoke("classify", "no-such-*.jpg").code == 2


def test_messages_do_not_drive_the_terminal(invoke: Invoke) -> None:
    result = invoke("classify", "--model", "e\x1b[31m\u202e.keras", ".")
    assert result.code == 3
    assert "\x1b" not in result.err
    assert "\u202e" not in result.err


def test_log_file(invoke: Invoke, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    (tmp_path / "empty").mkdir()
    result = invoke("-q", "features", tmp_path / "empty", "--weights", "none", "--image-size", "71", "--log-file", log)
    assert (result.code, result.err) == (0, "")
    assert "no images found" in log.read_text()
    assert invoke("classify", "--model", "no-such.keras", tmp_path, "--log-file", log).code == 3
    assert "no-such.keras" in log.read_text()
    assert invoke("--log-file", tmp_path / "no" / "log", "features", tmp_path).code == 2


def test_a_log_file_is_not_written_through_the_link_of_another_user(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    precious, log = tmp_path / "precious", tmp_path / "run.log"
    precious.write_text("content\n")
    log.symlink_to(precious)
    command = ("verify", tmp_path / "none.csv", "--log-file", log)
    assert "cannot open" in invoke(*command).err
    assert "none.csv" in precious.read_text(), "a link of one's own is followed"
    precious.write_text("content\n")
    monkeypatch.setattr("xcli.storage.directories.is_of_another_user", lambda path: path == str(log))
    result = invoke(*command)
    assert result.code == 2
    assert "run.log: it is a symbolic link of another user" in result.err
    assert precious.read_text() == "content\n"


def test_what_is_said_at_each_level(invoke: Invoke, tmp_path: Path) -> None:
    save_photos(tmp_path / "photos", ["a.jpg", "b.jpg"])
    (tmp_path / "photos" / "c.jpg").write_bytes(b"no image")
    log, target = tmp_path / "log", tmp_path / "x.csv"
    (tmp_path / "empty").mkdir()
    command = ("features", tmp_path / "photos", tmp_path / "empty", "--weights", "none", "--image-size", "71", "-o")
    result = invoke(*command, target, "-v", "--part-rows", "2", "--batch-size", "2", "--log-file", log)
    assert result.code == 4, result
    patterns = [
        r"DETAIL version [\d.]+: xception features .*/photos .*--part-rows 2",
        r"DETAIL model: Xception \(random weights, seed 0\), 20,861,480 parameters, without a file",
        r"DETAIL listed '.*/photos': 3 images",
        r"DETAIL listed '.*/empty': 0 images",
        r"WARNING '.*/empty' holds no images",
        r"DETAIL listed in all: 3 images; skipped: nothing",
        r"DETAIL batches of 2 images of 71 x 71 pixels, in float32 on /CPU:0",
        r'DETAIL settings: {"size": 71, .*"pooling": "avg"',
        r"DETAIL x.csv.partial: a part of 2 rows is saved",
        r"DETAIL .*/c.jpg: not-an-image: the content",
        r"DETAIL x.csv.partial: a part of 1 rows is saved",
        r"INFO 3 images: 2 ok, 1 error",
        r"INFO started; progress is reported every 60 s",
    ]
    lines = [line.split(" ", 2)[2].replace(" xcli: ", " ") for line in log.read_text().splitlines()]
    lines = [line.replace(f"{tmp_path}/x.csv", "x.csv") for line in lines if not line.startswith("DEBUG ")]
    assert all(map(re.match, sorted(patterns), sorted(lines))), lines
    assert len(lines) == len(patterns) == len(result.err.splitlines())
    assert len(invoke(*command, target, "--overwrite").err.splitlines()) == 3
    assert "2 images computed" in invoke(*command, target, "--overwrite", "-vv", "--batch-size", "2").err
    assert "is finished and up to date" in invoke(*command, target).err
    assert invoke("-q", *command, target).err == ""


def test_module_and_script_are_the_same_program() -> None:
    assert run_process("--version").text == f"xception, version {__version__}\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/lock"), "cannot read or write a/lock: No space left"),
        (OSError(errno.EIO, "Input/output error"), "the system refused to read or write: Input/output error"),
        (OSError(errno.EMFILE, "Too many open files", "a.txt"), "no more files can be opened"),
        (RuntimeError("can't start new thread"), "no more threads can be started"),
        (ImportError("libx.so: failed to map segment from shared object"), "there is not enough memory"),
        (MemoryError(), "there is not enough memory"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_the_machine_lacks_is_no_bug(
    error: Exception, message: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: click.Context) -> int:
        raise error

    monkeypatch.setattr(cli, "invoke", fail)
    result = invoke("info")
    assert result.code == 5, result
    assert result.err.startswith(f"xception: error: {message}"), result
    assert result.err.count("\n") == 1


def test_an_interruption_by_a_library_that_gets_no_threads(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> int:
        raise KeyboardInterrupt

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(cli, "invoke", fail)
    assert invoke("info").code == 130
    monkeypatch.setattr(threading.Thread, "start", refuse)
    result = invoke("info")
    assert result.code == 5, result
    assert "no more threads can be started" in result.err


def test_the_help_lists_every_command_under_a_heading(invoke: Invoke) -> None:
    from xcli.cli import HEADINGS, SUMMARIES

    text = invoke("--help").text
    places = [text.index(f"\n{heading}:\n") for heading in HEADINGS]
    assert places == sorted(places)
    assert sorted(SUMMARIES) == sorted(name for commands in HEADINGS.values() for name in commands)
    for name in SUMMARIES:
        assert f"\n  {name} " in text
