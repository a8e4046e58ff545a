"""Ray: a cluster, the resources of its workers, and a pool of actors that compute blocks."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import threading
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from xcli.cluster.worker import MAX_ATTEMPTS, Job, RunFingerprint, Worker
from xcli.core.errors import ClusterError, UsageError
from xcli.core.levels import DETAIL
from xcli.core.process import processor_count
from xcli.core.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xcli.cluster.blocks import Block, BlockResult

_CALLS, _IN_FLIGHT = 2, 3
"""Blocks that a worker computes at the same time (one with the engine, one before or after), and that it is given."""

_ENOUGH = 0.9
"""Share of a cluster's processors or GPUs that the workers should use."""

_QUIET = {
    "RAY_enable_metrics_collection": "0",
    "RAY_metrics_report_interval_ms": "60000",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_event_stats": "0",
}
"""Settings of a cluster that is started for one run: nobody looks at its metrics."""

_LOOPBACK = "127.0.0.1"

log = logging.getLogger("xcli")


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """What a run may use of a cluster.

    Attributes:
        address: that of a cluster (`auto` or `HOST:PORT`); None starts one on this machine.
        workers: number of workers; None is as many as there is room for.
        cpus: processors of each worker; None is all of a machine, or those that go with a GPU. If machines differ, it
            is a number that leaves at most a tenth of the cluster unused.
        gpus: GPUs of each worker; None is one if the cluster has GPUs.
    """

    address: str | None = None
    workers: int | None = None
    cpus: int | None = None
    gpus: int | None = None


@dataclass(frozen=True, slots=True)
class WorkerResources:
    """The number of workers, and the processors and GPUs of each."""

    workers: int
    cpus: int
    gpus: int


def require_ray() -> Any:
    """Returns the module of Ray.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import ray
    except ImportError:
        raise UsageError("--runner ray needs Ray; install it with: pip install 'ray>=2.59'") from None
    return ray


def divide(nodes: Iterable[dict[str, float]], options: ClusterOptions, *, use_gpus: bool) -> WorkerResources:
    """Decides what each worker gets.

    Args:
        nodes: resources of each machine, as Ray names them: `CPU`, `GPU`.
        options: what the user asked for.
        use_gpus: whether the engine may run on a GPU.

    Raises:
        UsageError: no machine has the resources that a worker needs.
    """
    machines = [(int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in nodes]
    gpus = options.gpus if options.gpus is not None else int(use_gpus and any(gpu for _, gpu in machines))
    able = [(cpu, gpu) for cpu, gpu in machines if cpu and gpu >= gpus]
    cpus = options.cpus
    if cpus is None:
        # Whole machines: an engine uses all processors well, and the weights are in memory once. If machines differ in
        # size, a small one is left out rather than deciding for the others.
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
    return WorkerResources(min(options.workers or room, room), cpus, gpus)


def _room(machines: list[tuple[int, int]], cpus: int, gpus: int) -> int:
    """Returns how many workers of this size the machines have room for."""
    return sum(min(cpu // cpus, gpu // gpus if gpus else cpu) for cpu, gpu in machines)


@contextmanager
def cluster(options: ClusterOptions, *, use_gpus: bool) -> Iterator[WorkerResources]:
    """Connects to a cluster, or starts one, while the context lasts.

    Raises:
        UsageError: Ray is not installed, the cluster cannot be reached, or has no room for a worker.
    """
    if options.address is None and "ray" not in sys.modules:
        # Other users of this machine reach its ports too. Ray reads this when it is imported.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray = require_ray()
    # Without this a worker that has no GPU would lose sight of its machine's, and Ray says so at every start.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    settings: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if options.address is None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        settings |= {"address": "local", "num_cpus": processor_count(), "include_dashboard": False}
        settings |= {"_node_ip_address": _LOOPBACK}
    else:
        settings |= {"address": options.address}
    handlers = _handlers()
    try:
        with _away_from_here(), _on_loopback():
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
        resources = divide(nodes, options, use_gpus=use_gpus)
        log.log(DETAIL, "Ray: %d machines, %d workers of %d CPUs and %d GPUs", len(nodes), *astuple(resources))
        yield resources
    finally:
        ray.shutdown()


@contextmanager
def _away_from_here() -> Iterator[None]:
    """A context whose current directory is the root of the file system.

    Ray makes workers import modules from the directory in which it was started. That may be a directory of images from
    anybody, with Python files among them.
    """
    here = os.open(os.curdir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir("/")
        yield
    finally:
        os.fchdir(here)
        os.close(here)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A context in which Ray takes the loopback address for itself, if it is given.

    It would replace that by an address of the network, and its ports, through which code can be run, would be open to
    all who reach this machine.
    """
    from ray._private import services

    replaced = services.resolve_ip_for_localhost
    try:
        services.resolve_ip_for_localhost = lambda host: host if host == _LOOPBACK else replaced(host)
        yield
    finally:
        services.resolve_ip_for_localhost = replaced


def _handlers() -> dict[int, Any]:
    """Returns this program's signal handlers; none outside of the main thread, where they cannot be set."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    return {number: handler for number, handler in found.items() if handler is not None}


class _FingerprintProxy(RunFingerprint):
    """The run's fingerprint, which is kept by an actor in another process."""

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
    """Puts blocks into the cluster's memory, one after the other; returns Ray's references to them."""
    import ray

    with _ray_errors():
        return [ray.put(block) for block in blocks]


def run_blocks(
    waiting: deque[Any], job: Job, resources: WorkerResources, earlier: dict[str, Any] | None, worker: type = Worker
) -> Iterator[BlockResult]:
    """Computes blocks with workers all over the cluster.

    Args:
        waiting: the work, as `stage_blocks` returns it; more may be added whenever a result is yielded.
        job: what the workers need to know.
        resources: number and size of the workers.
        earlier: fingerprint of an earlier run that has left parts.
        worker: the class of the workers (for tests).

    Yields:
        The result of each block, in the order in which the blocks end; each block at least once.

    Raises:
        ClusterError: the cluster is lost.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    with _ray_errors():
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        shared = ray.remote(RunFingerprint).options(num_cpus=0, scheduling_strategy=here).remote(earlier)
        pool = _Workers(worker, (job, _FingerprintProxy(shared)), resources)
    while waiting or pool.tasks:
        with _ray_errors():
            pool.submit(waiting)
            results = pool.finished(waiting)
        yield from results


class _Workers:
    """The workers of a run, as actors. One that is killed is replaced, and its blocks are given to others.

    Attributes:
        tasks: the actor and the block of each call whose result has not been fetched; the block of an actor's first
            call is None: it ends as soon as the actor runs.
    """

    def __init__(self, kind: type, arguments: tuple[Any, ...], resources: WorkerResources) -> None:
        import ray

        self._arguments = arguments
        self._actor: Any = ray.remote(kind).options(
            num_cpus=resources.cpus, num_gpus=resources.gpus, max_concurrency=_CALLS
        )
        self.tasks: dict[Any, tuple[Any, Any]] = {}
        self._ready: list[Any] = []
        self._deaths = 0
        for _ in range(resources.workers):
            self._start()

    def _start(self) -> None:
        # Blocks go only to actors that run: one that waits for a machine may wait for ever.
        actor: Any = self._actor.remote(*self._arguments)
        self.tasks[actor.__ray_ready__.remote()] = (actor, None)

    def submit(self, waiting: deque[Any]) -> None:
        """Gives blocks to workers that have fewer than they may have."""
        busy = Counter(id(actor) for actor, _ in self.tasks.values())
        for _ in range(_IN_FLIGHT):
            for actor in self._ready:
                if waiting and busy[id(actor)] < _IN_FLIGHT:
                    busy[id(actor)] += 1
                    block = waiting.popleft()
                    self.tasks[actor.compute.remote(block)] = (actor, block)

    def finished(self, waiting: deque[Any]) -> list[BlockResult]:
        """Waits until a call has ended; returns the results, and puts the blocks of killed workers back."""
        import ray

        results = []
        done, _ = ray.wait(list(self.tasks), num_returns=1)
        for call in done:
            actor, block = self.tasks.pop(call)
            try:
                result = ray.get(call)
            except ray.exceptions.RayActorError as error:
                if block is not None:
                    waiting.appendleft(block)
                self._replace(actor, error, started=block is not None)
                continue
            self._deaths = 0
            if block is None:
                self._ready.append(actor)
            else:
                results.append(result)
        return results

    def _replace(self, actor: Any, error: Exception, *, started: bool) -> None:
        """Starts another worker in place of a killed one, unless too many in a row were killed.

        Every call of a killed worker ends in the same error; only the first finds it among those that are ready.
        """
        if started and not any(one is actor for one in self._ready):
            return
        self._deaths += 1
        if self._deaths > MAX_ATTEMPTS:
            raise error
        self._ready = [one for one in self._ready if one is not actor]
        self._start()


@contextmanager
def _ray_errors() -> Iterator[None]:
    """A context that turns exceptions of Ray into a `ClusterError` of one line."""
    import ray

    try:
        yield
    except (ray.exceptions.RayError, ConnectionError) as error:
        reason = one_line((str(error).strip().splitlines() or [""])[-1])
        raise ClusterError(
            f"the cluster could not finish the run ({type(error).__name__}: {reason}); the same command goes on from "
            "what is done"
        ) from error
