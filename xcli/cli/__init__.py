"""The command line: one group, thin commands, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import click

from xcli import __version__
from xcli.cli.classify import classify
from xcli.cli.features import features
from xcli.cli.info import info
from xcli.cli.options import Messages, message_arguments, messages_of
from xcli.errors import ExitCode, Terminated, XcliError

if TYPE_CHECKING:
    from types import FrameType

PROGRAM = "xception"


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "XCEPTION",
        "max_content_width": 100,
    },
)
@message_arguments
@click.version_option(__version__, prog_name=PROGRAM)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Classify and embed directories of images with the Xception network.

    Every image ends as exactly one row, in the order of the sources: its status is `ok`, or `error` with the reason.

    \b
    xception classify ./photos                      a table on the terminal
    xception classify ./photos -o labels.csv        or a file: .csv, .parquet, .jsonl
    xception features ./photos -o features.parquet  one vector of 2048 numbers an image
    xception info ./photos                          what is in there, before a long run

    Every option can be set by the environment, as XCEPTION_<COMMAND>_<OPTION>.
    """


for command in (classify, features, info):
    cli.add_command(command)


def main() -> NoReturn:
    """Runs the command line and ends the process with one of the documented exit codes."""
    messages = Messages()
    signal.signal(signal.SIGTERM, _terminate)
    code = _run(messages)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            # The reader has gone; Python would complain about it once more on its way out.
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    # Not sys.exit: threads that hang in a dead mount, or in TensorFlow, would be waited for.
    os._exit(code)


def _terminate(_: int, __: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated


def _run(messages: Messages) -> int:
    try:
        # Not cli.main(): it would turn a closed pipe into exit code 1.
        with cli.make_context(PROGRAM, sys.argv[1:], obj=messages) as ctx:
            return int(cli.invoke(ctx))
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except click.exceptions.Exit as error:
        return error.exit_code
    except XcliError as error:
        return _fail(messages, str(error), error.exit_code)
    except BrokenPipeError:
        return ExitCode.OK
    except (KeyboardInterrupt, click.Abort):
        return _fail(messages, "interrupted (SIGINT)", ExitCode.SIGINT)
    except Terminated:
        return _fail(messages, "terminated (SIGTERM)", ExitCode.SIGTERM)
    except Exception as error:  # noqa: BLE001 - the boundary: what is left is a bug, and is said to be one
        what = f"{type(error).__name__}: {error}"
        advice = "" if messages.debug else "; run it again with --debug and report what that prints"
        return _fail(messages, f"a bug in xception: {what}{advice}", ExitCode.BUG)


def _fail(messages: Messages, text: str, code: ExitCode) -> int:
    from xcli.tables import one_line

    if messages.debug:
        traceback.print_exc(file=sys.stderr)
    with suppress(OSError):
        click.echo(f"xception: error: {one_line(text)}", err=True)
    return code


__all__ = ["cli", "main", "messages_of"]
