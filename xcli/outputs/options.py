"""What a run is asked for: what to compute, what to write and where, and what to do about errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xcli.core.errors import UsageError
from xcli.core.text import one_line
from xcli.outputs.dataset import check_directory
from xcli.outputs.parts import DEFAULT_PART_ROWS, DEFAULT_PART_SECONDS
from xcli.outputs.target import Directory, File, KeptTarget, Stream, Target, parse_file
from xcli.storage.atomic import open_output
from xcli.storage.streams import is_direct
from xcli.tables.formats import CSV_SAFE_FORMATS, FEATURES_FORMATS, check_output

if TYPE_CHECKING:
    from collections.abc import Callable

    from xcli.inference.options import RunOptions
    from xcli.inference.tasks import Task
    from xcli.models.network import LoadedModel
    from xcli.models.spec import ModelSpec
    from xcli.sources.options import SourceOptions


@dataclass(frozen=True, slots=True)
class Output:
    """The table that a run writes.

    Attributes:
        command: `classify` or `features`, for the provenance.
        target: where it goes.
        format: a key of `FORMATS`.
        overwrite: whether existing files may be replaced.
        runner: how a cluster divides the work, which its fingerprint has; empty on one machine.
    """

    command: str
    target: Target
    format: str
    overwrite: bool = False
    runner: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """How a run keeps finished rows, and what it does about errors.

    Attributes:
        part_rows: rows after which a part is finished; a killed run loses at most so many.
        part_seconds: seconds after which a part is finished, if that is sooner.
        restart: discard the rows of an unfinished run.
        retry_errors: compute error rows of an earlier run again.
        max_errors: end the run when it has more error rows than this; None is no limit.
        errors_out: a file for the paths of the error rows, each followed by NUL.
        features_out: a second file for the last column, the features; the first file gets the other columns.
        csv_safe: in CSV, put an apostrophe before texts that spreadsheets take for formulas.
        csv_bom: begin CSV with a byte-order mark.
        update: bring a finished output up to date.
        drop_missing: whether an update may drop more than a few rows.
        trust_existing: in an update, take the files of now as those that the rows were made of, where that is not
            recorded.
        of_images: whether the rows are computed from images; only such outputs can be updated.
    """

    part_rows: int = DEFAULT_PART_ROWS
    part_seconds: float = DEFAULT_PART_SECONDS
    restart: bool = False
    retry_errors: bool = False
    max_errors: int | None = None
    errors_out: str | None = None
    features_out: str | None = None
    csv_safe: bool = False
    csv_bom: bool = False
    update: bool = False
    drop_missing: bool = False
    trust_existing: bool = False
    of_images: bool = True

    def how_to_update(self, target: KeptTarget) -> str:
        """Returns what a message says of bringing a finished output up to date."""
        return "--overwrite computes it again" if self.no_update(target) else "--update brings it up to date"

    def how_to_retry(self, target: KeptTarget) -> str:
        """Returns what a message says of trying the error rows of a finished output again."""
        if self.no_update(target):
            return "--overwrite computes all again"
        return f"--update{' --retry-errors' if self.retry_errors else ''} tries them again"

    def no_update(self, target: KeptTarget) -> str | None:
        """Returns why an output cannot be updated; None if it can."""
        if not self.of_images:
            return "it is computed from tables of features"
        second = self.features_file()
        return "it is in an object store" if target.remote or (second is not None and second.remote) else None

    def csv_style(self) -> dict[str, bool]:
        """Returns the options that change CSV, by name, those that are given."""
        return {name: True for name in ("csv_safe", "csv_bom") if getattr(self, name)}

    def features_file(self) -> File | None:
        """Returns the second file.

        Raises:
            UsageError: its name is not that of a file.
            OutputError: the object store cannot be asked.
        """
        return None if self.features_out is None else parse_file(self.features_out, "--features-out")


@dataclass(frozen=True, slots=True)
class TableRequest:
    """What `classify` or `features` was asked for, on one machine or on a cluster.

    Attributes:
        sources: what to list.
        spec: the model.
        make_task: makes the task for the loaded model.
        pixels: arguments of `preprocessing_for`.
        run: how to use the machine.
        output: what to write, and where.
        save: how to keep finished rows, and what to do about errors.
    """

    sources: SourceOptions
    spec: ModelSpec
    make_task: Callable[[LoadedModel], Task]
    pixels: dict[str, Any]
    run: RunOptions
    output: Output
    save: SaveOptions


def check_output_options(output: Output, options: SaveOptions) -> None:
    """Checks that an output can be written, before a model is loaded.

    A finished output passes, because it may be that of the same run; `save` finds out.

    Raises:
        UsageError: options that would do nothing, or that do not go together.
        OutputError: a file exists, or cannot be written.
    """
    check_options(output, options)
    target = output.target
    _check_restart(output, options)
    if options.errors_out is not None and not is_direct(options.errors_out):
        open_output(options.errors_out, overwrite=True).discard()
    if isinstance(target, Directory):
        check_directory(target, output.format)
    else:
        if isinstance(target, File):
            target.complete()  # both tables, if there are two; only then it is seen which run they are of
        replaces = output.overwrite or (isinstance(target, File) and target.recorded_run() is not None)
        check_output(output.format, target.name, replaces)
    second = options.features_file()
    if second is not None:
        replaces = output.overwrite or second.recorded_run() is not None
        check_output(second.format(FEATURES_FORMATS, "parquet"), second.name, replaces)


def _check_update(output: Output, options: SaveOptions) -> None:
    """Raises UsageError for an update that cannot be done, and for options that need one."""
    for name in ("drop_missing", "trust_existing"):
        if getattr(options, name) and not options.update:
            raise UsageError(f"--{name.replace('_', '-')} goes with --update")
    if not options.update:
        return
    if output.overwrite:
        raise UsageError("--update keeps the rows that are still right, --overwrite computes all: give one of them")
    assert not isinstance(output.target, Stream)
    if problem := options.no_update(output.target):
        raise UsageError(
            f"{output.target.name!r} cannot be updated: {problem}. Write a file of this machine, or pass --overwrite "
            "in place of --update"
        )


def _check_restart(output: Output, options: SaveOptions) -> None:
    target, second = output.target, options.features_file()
    if not options.restart or options.update or output.overwrite:
        return
    if isinstance(target, Stream) or target.finished_run() is None:
        return
    if second is None or second.is_finished():
        raise UsageError(
            f"{one_line(target.name)} is finished, and --restart discards unfinished runs only; pass --overwrite to "
            "compute it again"
        )


def check_options(output: Output, options: SaveOptions) -> None:
    """Raises UsageError for options that would do nothing, or that do not go together."""
    target, formats = output.target, [output.format]
    if isinstance(target, Stream):
        needs_file = {
            "--features-out": options.features_out is not None,
            "--restart": options.restart,
            "--update": options.update,
            "--retry-errors": options.retry_errors,
        }
        for name in (name for name, given in needs_file.items() if given):
            raise UsageError(f"{name} needs -o FILE: rows that go elsewhere are not kept")
    elif options.features_out is not None:
        if isinstance(target, Directory):
            raise UsageError(f"--features-out needs -o FILE, but {target.name!r} is a directory")
        second = parse_file(options.features_out, "--features-out")
        if second.real_name == target.real_name:
            raise UsageError(f"{target.name!r} would be both tables; give --features-out another name")
        formats.append(second.format(FEATURES_FORMATS, "parquet"))
    _check_update(output, options)
    for option in (f"--{name.replace('_', '-')}" for name in options.csv_style()):
        if not set(CSV_SAFE_FORMATS).intersection(formats):
            raise UsageError(f"{option} is for CSV, and the table is {output.format}")
