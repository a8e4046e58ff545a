"""The entry point of the program, and the one place where errors become exit codes."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import click

from xcli.cli import PROGRAM, cli
from xcli.cli.completion import VARIABLE, complete
from xcli.cli.verbosity import Messages
from xcli.core.errors import ExitCode, Terminated, XcliError
from xcli.core.shortage import advice, shortage

if TYPE_CHECKING:
    from types import FrameType

log = logging.getLogger("xcli")


def main() -> NoReturn:
    """Runs the command line and ends the process with one of the documented exit codes."""
    _open_missing_streams()
    messages = Messages()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup does for SIGHUP
            signal.signal(number, _terminate)
    code = run_command(messages)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            if stream is sys.stdout and code == ExitCode.OK and not isinstance(error, BrokenPipeError):
                code = _fail(messages, f"cannot write to standard output: {error}", ExitCode.OUTPUT)
            # The reader has closed the pipe; otherwise Python would report that again at its end.
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    # sys.exit would wait for threads that hang in a file system or in TensorFlow.
    os._exit(code)


def _open_missing_streams() -> None:
    """Opens the null device for those of the descriptors 0 to 2 that the caller has closed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is taken, which is this one. Rows must not be lost in a closed standard output, so
            # writing to it fails; messages may be lost.
            os.open(os.devnull, os.O_WRONLY if descriptor == 2 else os.O_RDONLY)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)


def _terminate(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise Terminated(signal.Signals(number))


def run_command(messages: Messages) -> int:
    """Runs the command of `sys.argv`; returns its exit code."""
    try:
        if VARIABLE in os.environ:
            return ExitCode.OK if complete(cli, PROGRAM, messages) else ExitCode.USAGE
        # Not cli.main(): it would turn a closed pipe into exit code 1.
        with cli.make_context(PROGRAM, sys.argv[1:], obj=messages) as ctx:
            return int(cli.invoke(ctx))
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except click.exceptions.Exit as error:
        return error.exit_code
    except XcliError as error:
        return _fail(messages, _with_advice(str(error), error), error.exit_code)
    except BrokenPipeError:
        return ExitCode.OK
    except (KeyboardInterrupt, click.Abort):
        try:
            threading.Thread(target=int).start()
        except RuntimeError as error:  # OpenBLAS, which starts threads when NumPy is imported, has sent the signal
            return _unforeseen(messages, error)
        return _fail(messages, "interrupted (SIGINT)", ExitCode.SIGINT)
    except Terminated as error:
        return _fail(messages, f"terminated ({error.number.name})", 128 + error.number)
    except Exception as error:  # noqa: BLE001 - the boundary: what is left is a bug, and is said to be one
        return _unforeseen(messages, error)


def _with_advice(text: str, error: BaseException) -> str:
    more = advice(error)
    return text if more is None or more in text else f"{text}; {more}"


def _unforeseen(messages: Messages, error: Exception) -> int:
    """Ends with an error that was not translated where it happened: of the machine, of the disk, else a bug."""
    if (reason := shortage(error)) is not None:
        return _fail(messages, reason, ExitCode.OUTPUT)
    if isinstance(error, OSError) and error.errno is not None:
        reason = _with_advice(error.strerror or str(error), error)
        if error.filename is not None:
            name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
            return _fail(messages, f"cannot read or write {name}: {reason}", ExitCode.OUTPUT)
        try:
            sys.stdout.flush()  # what could not be written is still in its buffer
        except (OSError, ValueError):
            return _fail(messages, f"cannot write to standard output: {reason}", ExitCode.OUTPUT)
        return _fail(messages, f"the system refused to read or write: {reason}", ExitCode.OUTPUT)
    report = "" if messages.debug else "; run it again with --debug and report what that prints"
    return _fail(messages, f"a bug in xception: {type(error).__name__}: {error}{report}", ExitCode.BUG)


def _fail(messages: Messages, text: str, code: int) -> int:
    if not log.handlers:  # the command ended before it set them up
        messages.log_file = None
        messages.apply()
    if messages.debug:
        with suppress(OSError):
            traceback.print_exc(file=sys.stderr)
    log.error("error: %s", text)
    return code
