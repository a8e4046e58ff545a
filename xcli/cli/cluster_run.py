"""What `classify` and `features` do alike on a cluster: its options, and the run."""

from __future__ import annotations

import logging
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from xcli.cli.display import Progress
from xcli.cli.help import CLUSTER, F, option, stack
from xcli.core.errors import Terminated, UsageError
from xcli.core.process import hide_library_output
from xcli.outputs.options import Output, check_output_options
from xcli.outputs.target import Directory, parse_target
from xcli.sources.listing import list_images

if TYPE_CHECKING:
    from collections.abc import Callable

    from xcli.core.records import RunCounts
    from xcli.inference.options import RunOptions
    from xcli.inference.tasks import Task
    from xcli.models.network import LoadedModel
    from xcli.models.spec import ModelSpec
    from xcli.outputs.options import SaveOptions
    from xcli.sources.options import SourceOptions

RUNNERS = LOCAL, RAY = "local", "ray"

_RAY_OPTIONS = ("ray_address", "ray_workers", "cpus_per_worker", "gpus_per_worker")

log = logging.getLogger("xcli")


def cluster_arguments(function: F) -> F:
    """Where the work is done; the values stay with the command, for `is_on_cluster` and `run_on_cluster`."""
    count = click.IntRange(min=1)
    return stack(
        [
            option(
                "--runner",
                section=CLUSTER,
                type=click.Choice(RUNNERS),
                default=LOCAL,
                show_default=True,
                help="This machine with all its GPUs, or a Ray cluster, where -o is a directory that all machines "
                "share, or a prefix of an object store.",
            ),
            option(
                "--ray-address",
                section=CLUSTER,
                metavar="ADDRESS",
                help="Of the cluster: auto, or HOST:PORT [default: start one on this machine].",
            ),
            option(
                "--ray-workers",
                section=CLUSTER,
                metavar="N",
                type=count,
                help="Engines [default: as many as the cluster has room for].",
            ),
            option(
                "--cpus-per-worker",
                section=CLUSTER,
                metavar="N",
                type=count,
                help="Processors of each [default: a whole machine's, or those that go with a GPU].",
            ),
            option(
                "--gpus-per-worker",
                section=CLUSTER,
                metavar="N",
                type=click.IntRange(min=0),
                help="GPUs of each [default: 1 where there are any].",
            ),
        ],
        function,
    )


def is_on_cluster(ctx: click.Context, values: dict[str, Any]) -> bool:
    """Whether `--runner ray` was given.

    Raises:
        UsageError: an option for it was given without it.
    """
    if values["runner"] == RAY:
        return True
    for name in _RAY_OPTIONS:
        if values[name] is not None and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"--{name.replace('_', '-')} goes with --runner ray")
    return False


def check_cluster_options(
    ctx: click.Context, values: dict[str, Any], recording: SaveOptions, options: RunOptions
) -> Directory:
    """Refuses what a run over a cluster cannot do; returns the dataset's directory.

    Raises:
        UsageError: there is such.
        OutputError: the output is in the way.
    """
    target, form = parse_target(values["output"]), values["format"]
    if not isinstance(target, Directory) or form not in (None, "parquet"):
        raise UsageError("--runner ray writes a directory of Parquet parts: give -o DIR/, with the slash")
    if recording.features_out is not None:
        raise UsageError("--features-out is for one machine; over a cluster run features by itself")
    if options.device.startswith("gpu:"):
        raise UsageError(
            f"--device {options.device} is for one machine; workers of a cluster take the GPUs they are given"
        )
    if values["profile"]:
        raise UsageError("--profile is for one machine")
    if ctx.get_parameter_source("part_seconds") is ParameterSource.COMMANDLINE:
        raise UsageError("--part-seconds is for one machine; with --runner ray a part has --part-rows images")
    check_output_options(Output(ctx.info_name or "", target, "parquet", values["overwrite"]), recording)
    return target


def run_on_cluster(
    target: Directory,
    command: str,
    values: dict[str, Any],
    spec: ModelSpec,
    make_table: Callable[[LoadedModel], Task],
    pixels: dict[str, Any],
    options: RunOptions,
    sources: SourceOptions,
    recording: SaveOptions,
    *,
    show_progress: bool,
    debug: bool,
) -> tuple[RunCounts, float | None]:
    """Runs a command over a cluster; returns what became of the images, and the seconds (None: finished before)."""
    from xcli.cluster.driver import ClusterRun
    from xcli.cluster.ray_backend import ClusterOptions, require_ray
    from xcli.sources.archives.listing import WholeArchives

    hide_library_output(debug=debug)
    require_ray()
    chosen = ClusterOptions(
        values["ray_address"], values["ray_workers"], values["cpus_per_worker"], values["gpus_per_worker"]
    )
    with list_images(sources, archives=WholeArchives) as listing:
        if listing.default_directory:
            log.warning("no SOURCE given: taking the current directory")
        with Progress(enabled=show_progress) as progress:
            run = ClusterRun(
                listing,
                command,
                target,
                spec,
                make_table,
                pixels,
                options,
                recording,
                chosen,
                overwrite=values["overwrite"],
                command_line=shlex.join(["xception", *sys.argv[1:]]),
                on_images=progress.count,
            )
            try:
                return run.report, run.run()
            except (KeyboardInterrupt, Terminated):
                kept = "" if run.published else "; the same command goes on from there"
                log.error("stopped after %d images%s", run.report.rows, kept)
                raise
