"""What goes to standard error and to the log file: -v, -q, --debug, --log-file."""

from __future__ import annotations

import logging
import sys
from typing import Any

import click

from xcli.cli.help import MESSAGES, F, option, path, stack


class Messages:
    """What goes to standard error: how much of it, and whether errors show a traceback.

    The options are accepted before and after the command; the later one adds to the earlier.
    """

    def __init__(self) -> None:
        self.level = 0
        self.debug = False
        self.log_file: str | None = None

    def apply(self) -> None:
        """Sets the logger of the package up."""
        logger = logging.getLogger("xcli")
        shown = (
            logging.DEBUG
            if self.debug
            else {1: logging.INFO, -1: logging.ERROR}.get(
                max(-1, min(self.level, 2)), logging.WARNING if self.level < 1 else logging.DEBUG
            )
        )
        for old in list(logger.handlers):
            logger.removeHandler(old)
        console = _CurrentStderr()
        console.setLevel(shown)
        console.setFormatter(_OneLine("xception: %(message)s"))
        logger.addHandler(console)
        logger.setLevel(shown)
        if self.log_file is not None:
            try:
                file = logging.FileHandler(self.log_file, encoding="utf-8", errors="backslashreplace")
            except OSError as error:
                raise click.UsageError(f"cannot write --log-file {self.log_file}: {error.strerror}") from error
            file.setFormatter(_LogLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
            logger.addHandler(file)
            logger.setLevel(logging.DEBUG)
        logger.propagate = False
        # A reader of standard error that has gone is no reason to complain to it.
        logging.raiseExceptions = False


class _OneLine(logging.Formatter):
    """Messages name files, and a file's name must not drive the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        from xcli.core.text import one_line

        return one_line(super().format(record))


class _LogLine(logging.Formatter):
    """One line a message in the log file too, for `tail` and `less -R` show it on a terminal; tracebacks follow as
    they are."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        from xcli.core.text import one_line

        return one_line(super().formatMessage(record))


class _CurrentStderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to whatever `sys.stderr` is at the time; it changes when native output is captured."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def messages_of(ctx: click.Context) -> Messages:
    """The one `Messages` of this invocation."""
    return ctx.find_root().ensure_object(Messages)


def message_arguments(function: F) -> F:
    """-v, -q, --debug and --log-file; they act at once and are not passed on."""

    def louder(ctx: click.Context, _: click.Parameter, value: int) -> None:
        messages_of(ctx).level += value

    def quieter(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        messages_of(ctx).level -= int(value)

    def debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        messages_of(ctx).debug |= value

    def log_file(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        messages_of(ctx).log_file = value or messages_of(ctx).log_file

    shared: dict[str, Any] = {"expose_value": False, "is_eager": True}
    return stack(
        [
            option(
                "-v --verbose", MESSAGES, "-v: more detail; -vv: debug output.", count=True, callback=louder, **shared
            ),
            option("-q --quiet", MESSAGES, "Show only errors.", is_flag=True, callback=quieter, **shared),
            option("--debug", MESSAGES, "Show a traceback with each error.", is_flag=True, callback=debug, **shared),
            path("--log-file", MESSAGES, "FILE", "Append all messages to FILE.", callback=log_file, **shared),
        ],
        function,
    )
