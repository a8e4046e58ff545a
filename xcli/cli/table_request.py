"""Parses the options of `classify` and `features` into a `TableRequest`."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

from click.core import ParameterSource

from xcli.cli.help import fold
from xcli.cli.options import pixel_options
from xcli.core.errors import UsageError
from xcli.inference.options import RunOptions
from xcli.outputs.options import Output, SaveOptions, TableRequest, check_output_options
from xcli.outputs.target import Stream, parse_target
from xcli.sources.options import SourceOptions
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Callable

    import click

    from xcli.inference.tasks import Task
    from xcli.models.network import LoadedModel
    from xcli.models.spec import ModelSpec


def parse_request(
    ctx: click.Context,
    values: dict[str, Any],
    spec: ModelSpec,
    make_task: Callable[[LoadedModel], Task],
    formats: tuple[str, ...],
) -> TableRequest:
    """Folds the values of a command that writes a table in one of `formats`.

    Raises:
        UsageError: options that do not go together.
        OutputError: the object store of the output cannot be asked.
    """
    format, target = values["format"], parse_target(values["output"])
    save = fold(SaveOptions, values)
    if save.csv_safe and is_on_terminal(values):
        raise UsageError("--csv-safe is for CSV; give --format csv, or -o FILE")
    if isinstance(target, Stream):
        for option in ("part_rows", "part_seconds"):
            if is_given(ctx, option):
                raise UsageError(f"--{option.replace('_', '-')} needs -o FILE: what goes elsewhere has no parts")
    return TableRequest(
        sources=fold(SourceOptions, values),
        spec=spec,
        make_task=make_task,
        pixels=pixel_options(values),
        run=fold(RunOptions, values),
        output=Output(ctx.info_name or "", target, format or target.format(formats, "csv"), values["overwrite"]),
        save=save,
    )


def is_on_terminal(values: dict[str, Any]) -> bool:
    """Whether the rows are shown to a person instead of written."""
    return values["output"] is None and values["format"] is None and sys.stdout.isatty()


def check_request(request: TableRequest) -> None:
    """Checks that the output can be written, before a model is loaded.

    Raises:
        UsageError: options that do not go together, or the output is the manifest.
        OutputError: a file exists, or cannot be written.
    """
    check_output_options(request.output, request.save)
    manifest = request.sources.manifest
    for name in (request.output.target.name, request.save.features_out):
        if name is not None and manifest is not None and _same_file(name, manifest):
            raise UsageError(f"{name} is the manifest and the output at once; give the output another name")


def is_given(ctx: click.Context, name: str) -> bool:
    """Whether a parameter was given on the command line, not by its default or the environment."""
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def command_line() -> str:
    """Returns the command that runs, as a shell would take it."""
    return shlex.join(["xception", *sys.argv[1:]])


def _same_file(one: str, other: str) -> bool:
    if is_url(one) or is_url(other):
        return one == other
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)
