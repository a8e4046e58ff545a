"""What goes to standard error and to the log file: -v, -q, --debug, --log-file."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from contextlib import nullcontext
from io import TextIOWrapper
from typing import Any

import click

from xcli.cli.environment import from_environment, unknown_variables, variable_of
from xcli.cli.help import MESSAGES, option, options, path
from xcli.core.levels import DETAIL
from xcli.core.public_urls import without_secrets
from xcli.core.text import one_line
from xcli.core.version import __version__


class Messages:
    """What goes to standard error: how much of it, and whether errors show a traceback.

    The options are accepted before and after the command; the later one adds to the earlier.
    """

    def __init__(self) -> None:
        self.level = 0
        self.debug = False
        self.log_file: str | None = None

    def apply(self) -> None:
        """Sets up the logger of the package."""
        logger = logging.getLogger("xcli")
        levels = (logging.ERROR, logging.INFO, DETAIL, logging.DEBUG)
        shown = logging.DEBUG if self.debug else levels[max(-1, min(self.level, 2)) + 1]
        for old in list(logger.handlers):
            logger.removeHandler(old)
        console = _CurrentStderr()
        console.setLevel(shown)
        console.setFormatter(_OneLine("xception: %(message)s"))
        logger.addHandler(console)
        logger.setLevel(shown)
        if self.log_file is not None:
            try:
                file = _LogFile(self.log_file, encoding="utf-8", errors="backslashreplace")
            except OSError as error:
                raise click.UsageError(f"cannot write --log-file {self.log_file}: {error.strerror}") from error
            file.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
            logger.addHandler(file)
            logger.setLevel(logging.DEBUG)
        logger.propagate = False
        # Nobody reads a complaint that standard error was closed.
        logging.raiseExceptions = False


class _LogFile(logging.FileHandler):
    """Appends to a file, but not through a symbolic link that another user has planted in a shared directory."""

    def _open(self) -> TextIOWrapper:
        from xcli.storage.directories import open_own

        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        binary = os.fdopen(open_own(self.baseFilename, flags), "ab")
        return TextIOWrapper(binary, encoding=self.encoding, errors=self.errors)


class _OneLine(logging.Formatter):
    """Escapes control characters in messages, so that no name controls the terminal; takes credentials out of URLs."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(without_secrets(super().formatMessage(record)))


class _CurrentStderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to the current `sys.stderr`, which changes when native output is captured, and above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)  # which draws no bar before it is imported
        with nullcontext() if tqdm is None else tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def start_messages(ctx: click.Context) -> Messages:
    """Sets up the logger for the command that begins, and names variables that are no option's; returns `Messages`."""
    messages = messages_of(ctx)
    messages.apply()
    log = logging.getLogger("xcli")
    log.log(DETAIL, "version %s: %s", __version__, shlex.join(["xception", *sys.argv[1:]]))
    for one in from_environment(ctx):
        log.log(DETAIL, "%s=%s", variable_of(ctx, one), ctx.params.get(one.name or ""))
    if (unknown := unknown_variables(ctx)) is not None:
        log.warning("%s", unknown)
    return messages


def messages_of(ctx: click.Context) -> Messages:
    """The one `Messages` of this invocation."""
    return ctx.find_root().ensure_object(Messages)


def _louder(ctx: click.Context, _: click.Parameter, value: int) -> None:
    messages_of(ctx).level += value


def _quieter(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    messages_of(ctx).level -= int(value)


def _debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    messages_of(ctx).debug |= value


def _log_file(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    messages_of(ctx).log_file = value or messages_of(ctx).log_file


_VERBOSE = "-v: settings, model, sources, batches, each part that is saved, each error; -vv: debug output."
_AT_ONCE: dict[str, Any] = {"expose_value": False, "is_eager": True}

message_arguments = options(
    option("-v --verbose", MESSAGES, _VERBOSE, count=True, callback=_louder, **_AT_ONCE),
    option("-q --quiet", MESSAGES, "Show only errors.", is_flag=True, callback=_quieter, **_AT_ONCE),
    option("--debug", MESSAGES, "Show a traceback with each error.", is_flag=True, callback=_debug, **_AT_ONCE),
    path("--log-file", MESSAGES, "FILE", "Append all messages to FILE.", callback=_log_file, **_AT_ONCE),
)
"""-v, -q, --debug and --log-file; they act at once and are not passed to the command."""
