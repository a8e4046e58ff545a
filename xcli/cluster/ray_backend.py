"""Ray Data as the engine that brings blocks to workers: a cluster, what it has, and a run of blocks over it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xcli.cluster.blocks import Done
from xcli.cluster.worker import Agreement, Worker
from xcli.core.errors import ClusterError, UsageError
from xcli.core.process import processor_count
from xcli.core.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from xcli.cluster.blocks import Block
    from xcli.cluster.worker import Job

_CALLS, _IN_FLIGHT = 2, 3
"""Blocks that a worker is at work on, one with the engine and one before or after it; and those that it has."""

_ENOUGH = 0.9
"""Share of a cluster's processors or GPUs that a division should put to use."""

_QUIET = {
    "RAY_enable_metrics_collection": "0",
    "RAY_metrics_report_interval_ms": "60000",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_event_stats": "0",
}
"""Settings of a cluster that lives as long as one run: nobody will look at its metrics."""

log = logging.getLogger("xcli")


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """What a run may use of a cluster.

    Attributes:
        address: of a cluster (`auto` or `HOST:PORT`); None starts one on this machine.
        workers: engines; None is as many as there is room for.
        cpus: processors of each; None is all of a machine, or those that go with a GPU; of machines that differ, a
            size that leaves at most a tenth of the cluster without work.
        gpus: GPUs of each; None is one where there are any.
    """

    address: str | None = None
    workers: int | None = None
    cpus: int | None = None
    gpus: int | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """What each worker gets, and how many there are.

    Attributes:
        workers: engines.
        cpus: processors of each.
        gpus: GPUs of each.
    """

    workers: int
    cpus: int
    gpus: int


def require_ray() -> Any:
    """Ray, with its part for data.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise UsageError("--runner ray needs Ray Data; install it with: pip install 'ray[data]'") from None
    return ray


def divide(nodes: Iterable[dict[str, float]], options: ClusterOptions, *, use_gpus: bool) -> Share:
    """Decides what each worker gets.

    Args:
        nodes: resources of each machine, as Ray has them: `CPU`, `GPU`.
        options: what the user said.
        use_gpus: whether the engine may run on a GPU.

    Raises:
        UsageError: no machine has what a worker is to have.
    """
    machines = [(int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in nodes]
    gpus = options.gpus if options.gpus is not None else int(use_gpus and any(gpu for _, gpu in machines))
    able = [(cpu, gpu) for cpu, gpu in machines if cpu and gpu >= gpus]
    cpus = options.cpus
    if cpus is None:
        # Whole machines: an engine makes good use of all processors, and the weights are there once. Where machines
        # are of several sizes, a small one must not decide for the others: it is left out rather.
        choices = sorted({max(1, cpu * gpus // gpu) if gpus else cpu for cpu, gpu in able}, reverse=True) or [1]
        used = {choice: _room(able, choice, gpus) * (1 if gpus else choice) for choice in choices}
        cpus = next(choice for choice in choices if used[choice] >= _ENOUGH * max(used.values()))
    room = _room(able, cpus, gpus)
    if not room:
        have = ", ".join(f"{cpu} CPUs and {gpu} GPUs" for cpu, gpu in machines) or "nothing"
        raise UsageError(
            f"no machine of the cluster has {cpus} CPUs and {gpus} GPUs for a worker (they have: {have}); change "
            "--cpus-per-worker or --gpus-per-worker"
        )
    return Share(min(options.workers or room, room), cpus, gpus)


def _room(machines: list[tuple[int, int]], cpus: int, gpus: int) -> int:
    """How many workers of such a size there is room for."""
    return sum(min(cpu // cpus, gpu // gpus if gpus else cpu) for cpu, gpu in machines)


@contextmanager
def cluster(options: ClusterOptions, *, use_gpus: bool) -> Iterator[Share]:
    """Connects to a cluster, or starts one, for the time of the context.

    Raises:
        UsageError: Ray is not installed, the cluster cannot be reached, or has no room for a worker.
    """
    ray = require_ray()
    # Without this a worker that has no GPU would lose sight of its machine's, and Ray says so at every start.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    settings: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it writes down all of it in files of its own
    if options.address is None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        settings |= {"address": "local", "num_cpus": processor_count(), "include_dashboard": False}
    else:
        settings |= {"address": options.address}
    handlers = _handlers()
    try:
        with _away_from_here():
            ray.init(**settings)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        place = options.address or "on this machine"
        raise UsageError(f"no Ray cluster at {place}: {one_line(str(error))}; is --ray-address right?") from None
    finally:
        # Ray puts a handler of its own in the place of this program's.
        for number, handler in handlers.items():
            signal.signal(number, handler)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        share = divide(nodes, options, use_gpus=use_gpus)
        log.info(
            "Ray: %d machines, %d workers of %d CPUs and %d GPUs", len(nodes), share.workers, share.cpus, share.gpus
        )
        yield share
    finally:
        ray.shutdown()


@contextmanager
def _away_from_here() -> Iterator[None]:
    """A context whose current directory is the root of the file system.

    Ray puts the current directory, and that of the program if modules are looked for there, in front of the places
    where workers look for modules; images lie there, which may be anybody's, and Python files beside them.
    """
    here = os.open(os.curdir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir("/")
        yield
    finally:
        os.fchdir(here)
        os.close(here)


def _handlers() -> dict[int, Any]:
    """This program's handlers of signals; none where they cannot be set, outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    return {number: handler for number, handler in found.items() if handler is not None}


class _Spokesman(Agreement):
    """Speaks for the agreement, which is an actor, in another process.

    Args:
        actor: its handle.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def offer(self, fingerprint: dict[str, Any] | None) -> dict[str, Any] | None:
        import ray

        found: dict[str, Any] | None = ray.get(self._actor.offer.remote(fingerprint))
        return found

    def begin(self, number: int) -> int:
        import ray

        return int(ray.get(self._actor.begin.remote(number)))


def stage_blocks(blocks: Iterable[Block]) -> list[Any]:
    """Puts blocks into the cluster's memory, one after the other; gives what Ray calls references to them."""
    import ray

    with _explained():
        return [ray.put(block.to_frame()) for block in blocks]


def run_blocks(
    blocks: list[Any],
    job: Job,
    share: Share,
    earlier: dict[str, Any] | None,
    worker: Callable[..., Any] = Worker,
) -> Iterator[Done]:
    """Has blocks computed by workers all over the cluster.

    Args:
        blocks: the work, as `stage_blocks` gives it.
        job: what to do.
        share: what each worker gets.
        earlier: fingerprint of an earlier run of which there are parts.
        worker: the class whose objects compute (for tests).

    Yields:
        What came of each block, in the order in which they end; each block at least once.

    Raises:
        ClusterError: the cluster is lost.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    with _explained():
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        agreement = _Spokesman(ray.remote(Agreement).options(num_cpus=0, scheduling_strategy=here).remote(earlier))
        ray.data.DataContext.get_current().enable_progress_bars = False
        dataset = ray.data.from_pandas_refs(blocks).map_batches(
            worker,
            batch_size=None,
            batch_format="pandas",
            compute=ray.data.ActorPoolStrategy(
                size=share.workers,
                max_tasks_in_flight_per_actor=_IN_FLIGHT,
                max_concurrent_calls_per_actor=_CALLS,
                enable_true_multi_threading=True,
            ),
            fn_constructor_args=(job, agreement),
            num_cpus=share.cpus,
            num_gpus=share.gpus,
        )
        frames = iter(dataset.iter_batches(batch_size=None, batch_format="pandas", prefetch_batches=0))
    while True:
        with _explained():
            frame = next(frames, None)
        if frame is None:
            return
        yield from Done.of(frame)


@contextmanager
def _explained() -> Iterator[None]:
    """A context in which what Ray raises becomes an error of a line."""
    import ray

    try:
        yield
    except (ray.exceptions.RayError, ConnectionError) as error:
        reason = one_line((str(error).strip().splitlines() or [""])[-1])
        raise ClusterError(
            f"the cluster could not finish the run ({type(error).__name__}: {reason}); the same command goes on from "
            "what is done"
        ) from error
