"""`--runner ray` of `classify` and `features`: its options, and the run over a cluster."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import click

from xcli.cli.help import CLUSTER, COUNT, choice, number, option, options
from xcli.cli.options import command_line, is_given
from xcli.cli.progress import Progress
from xcli.cli.verbosity import messages_of
from xcli.core.errors import UsageError
from xcli.core.process import hide_library_output
from xcli.outputs.options import TableRequest, check_output_options
from xcli.outputs.target import Directory
from xcli.sources.listing import list_images

if TYPE_CHECKING:
    from xcli.core.records import RunCounts
    from xcli.outputs.save import OnComparison

RUNNERS = LOCAL, RAY = "local", "ray"

_RAY_OPTIONS = ("ray_address", "ray_workers", "cpus_per_worker", "gpus_per_worker")

log = logging.getLogger("xcli")

_RUNNER = (
    "local: this machine with all its GPUs. ray: a Ray cluster; -o must then be a directory that all machines share, "
    "or a prefix of an object store."
)
_ADDRESS = "Address of the cluster: auto, or HOST:PORT [default: start a cluster on this machine]."
_WORKERS = "Number of workers [default: as many as the cluster can run]."
_CPUS = "Processors of each worker [default: those of a machine, or its share of them for each GPU]."
_GPUS = "GPUs of each worker [default: 1 if the cluster has GPUs]."

cluster_arguments = options(
    choice("--runner", CLUSTER, RUNNERS, _RUNNER, default=LOCAL, show_default=True),
    option("--ray-address", CLUSTER, _ADDRESS, metavar="ADDRESS"),
    number("--ray-workers", CLUSTER, "N", COUNT, _WORKERS),
    number("--cpus-per-worker", CLUSTER, "N", COUNT, _CPUS),
    number("--gpus-per-worker", CLUSTER, "N", click.IntRange(min=0), _GPUS),
)
"""Where the work is done; the values stay with the command, for `is_on_cluster` and `run_on_cluster`."""


def is_on_cluster(ctx: click.Context, values: dict[str, Any]) -> bool:
    """Whether `--runner ray` was given.

    Raises:
        UsageError: an option for it was given without it.
    """
    if values["runner"] == RAY:
        return True
    for name in _RAY_OPTIONS:
        if values[name] is not None and is_given(ctx, name):
            raise UsageError(f"--{name.replace('_', '-')} goes with --runner ray")
    return False


def run_on_cluster(
    ctx: click.Context, request: TableRequest, values: dict[str, Any], on_comparison: OnComparison
) -> tuple[RunCounts, float | None]:
    """Runs a command over a cluster; returns the counts, and the seconds (None: finished before).

    `on_comparison` is as for `xcli.outputs.save.save`.

    Raises:
        UsageError: a run over a cluster cannot do this.
        OutputError: the output exists, or cannot be written.
    """
    from xcli.cluster.driver import ClusterRun
    from xcli.cluster.ray_backend import ClusterOptions, require_ray
    from xcli.sources.archives.listing import WholeArchives

    _check_request(ctx, request, values)
    messages = messages_of(ctx)
    hide_library_output(debug=messages.debug)
    require_ray()
    chosen = ClusterOptions(
        values["ray_address"], values["ray_workers"], values["cpus_per_worker"], values["gpus_per_worker"]
    )
    with list_images(request.sources, archives=WholeArchives, numbers=True) as listing:
        quiet = messages.level < 0
        progress = Progress(values["progress"], quiet=quiet, total=lambda: run.total, kept=lambda: run.report.resumed)
        run = ClusterRun(listing, request, chosen, command_line(), progress.begin, progress.count, on_comparison)
        with progress:
            return run.report, run.run()


def _check_request(ctx: click.Context, request: TableRequest, values: dict[str, Any]) -> None:
    """Refuses what a run over a cluster cannot do, and an output that cannot be written."""
    target = request.output.target
    if not isinstance(target, Directory) or request.output.format != "parquet":
        raise UsageError("--runner ray writes a directory of Parquet parts: give -o DIR/, with the slash")
    if request.save.features_out is not None:
        raise UsageError("--features-out is for one machine; over a cluster run features by itself")
    if request.run.device.startswith("gpu:"):
        raise UsageError(
            f"--device {request.run.device} is for one machine; workers of a cluster take the GPUs they are given"
        )
    if values["profile"]:
        raise UsageError("--profile is for one machine")
    if is_given(ctx, "part_seconds"):
        raise UsageError("--part-seconds is for one machine; with --runner ray a part has --part-rows images")
    check_output_options(request.output, request.save)
