"""Every error that this package raises on purpose, and the exit code with which each one ends a command.

An `ImageError` ends none: it becomes an error row. A message is one line that says what was received and what to do
about it.
"""

from __future__ import annotations

from enum import IntEnum
from signal import Signals


class ExitCode(IntEnum):
    """Exit codes of the command line."""

    OK = 0
    BUG = 1
    USAGE = 2
    MODEL = 3
    ROW_ERRORS = 4
    OUTPUT = 5
    CHECK = 6
    SIGHUP = 129
    SIGINT = 130
    SIGTERM = 143


class XcliError(Exception):
    """Base class of the errors that end a command, with its exit code."""

    exit_code: ExitCode = ExitCode.BUG


class UsageError(XcliError, ValueError):
    """An argument is wrong or does not go with another one."""

    exit_code = ExitCode.USAGE


class SourceError(UsageError):
    """A source cannot be listed: a glob without a match, a manifest without its path column."""


class SourceNotFoundError(SourceError):
    """A source does not exist."""


class ModelError(XcliError):
    """A model cannot be had or does not fit the request."""

    exit_code = ExitCode.MODEL


class WeightsError(ModelError):
    """Weights are missing, damaged, or belong to another architecture."""


class LabelsError(ModelError):
    """Class names cannot be read or do not fit the model."""


class OutputError(XcliError):
    """Output cannot be written."""

    exit_code = ExitCode.OUTPUT


class OutputExistsError(OutputError):
    """An output exists already."""


class ClusterError(OutputError):
    """Machines of a cluster failed, or do not meet the requirements."""


class MachineError(XcliError):
    """The machine cannot serve: it has no more memory, threads or descriptors, or a storage that does not answer."""

    exit_code = ExitCode.OUTPUT


class CheckError(XcliError):
    """A requested check failed."""

    exit_code = ExitCode.CHECK


class TooManyErrors(XcliError):
    """The run was stopped early because it had more error rows than `--max-errors`."""

    exit_code = ExitCode.ROW_ERRORS


class Terminated(BaseException):
    """SIGTERM or SIGHUP was received. Like KeyboardInterrupt it is no Exception, so that error handlers ignore it."""

    def __init__(self, number: int) -> None:
        self.number = Signals(number)
        super().__init__(self.number.name)


class ImageError(Exception):
    """One image cannot be turned into pixels, or these into numbers; the row's `error` column is `reason: message`."""

    REASONS = (  # by which the summary of a run counts error rows
        "missing",  # no such file, or gone since it was listed
        "unreadable",  # permissions, I/O errors, a directory that cannot be listed
        "not-a-file",  # a directory, FIFO, socket or device
        "empty",  # zero bytes
        "not-an-image",  # no decoder recognises the content
        "truncated",  # the data ends early
        "corrupt",  # the data is damaged in another way
        "unsupported",  # an image of a kind that has no defined conversion to 8-bit RGB
        "too-large",  # more pixels than --max-pixels
        "timeout",  # slower than --image-timeout
        "crashed",  # its decoder was ended by a signal, twice
        "not-finite",  # the network's numbers for it are NaN or infinite, or too large for --dtype
    )

    def __init__(self, reason: str, message: str) -> None:
        assert reason in self.REASONS, reason
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return ImageError, (self.reason, self.message)


def reason_of(text: str | None) -> str:
    """Returns the `ImageError.reason` that a value of the `error` column begins with; of None an empty text."""
    return (text or "").partition(":")[0]
