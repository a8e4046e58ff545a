"""Starts the processes that decode, and ends them: this process's side of `decoder_process`."""

from __future__ import annotations

import atexit
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.core.errors import MachineError
from xcli.core.process import free_memory
from xcli.core.shortage import raise_shortage
from xcli.inference.decoder_messages import Message, receive, send

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xcli.images.preprocessing import Preprocessing
    from xcli.inference.pixel_slots import PixelSlots

log = logging.getLogger("xcli")

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import main; main()"
MODULE = "xcli.inference.decoder_process"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""A library with threads of its own could not be forked, and the decoders are many already."""

_SHARE, _MOST = 0.4, 0.3
"""Parts of the free memory: what all workers may take together, and what one image that is decoded alone may."""

_UNKNOWN_MEMORY = 8 << 30
_END_SECONDS = 5.0


class DecoderSpec(NamedTuple):
    """Names a function of this package that returns a decoder, for another process.

    A decoder is a function of a `Readable` and a `Preprocessing` that returns uint8[size, size, 3] and raises
    ImageError.
    """

    module: str = "images.preprocessing"
    function: str = "image_decoder"
    arguments: dict[str, Any] = {}  # noqa: RUF012 - JSON, never changed


class ServerGone(Exception):
    """The server has ended, or has been ended."""


class Worker(NamedTuple):
    """A process that decodes, and the socket to it."""

    pid: int
    channel: socket.socket


class DecoderServer:
    """The process from which those that decode are forked; it begins to import what they need at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair()
        self._control = ours
        debugging = log.isEnabledFor(logging.DEBUG)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        "-P",
                        "-c",
                        _START.format(module=MODULE),
                        json.dumps(_module_path()),
                        str(theirs.fileno()),
                    ],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=None if debugging else subprocess.DEVNULL,
                    env={**os.environ, **_ONE_THREAD},
                )
            except OSError as error:
                ours.close()
                raise_shortage(error)
                raise MachineError(f"the processes that decode cannot be started: {error}") from error

    def start(self, preprocessing: Preprocessing, decoder: DecoderSpec, slots: PixelSlots, workers: int) -> None:
        """Says what the workers are to do; must be called once, before `spawn`."""
        free = free_memory() or _UNKNOWN_MEMORY
        settings = {
            "preprocessing": asdict(preprocessing),
            "decoder": decoder,
            "layout": [slots.layout.batch_size, slots.layout.size],
            "limits": [int(free * _SHARE / workers), int(free * _MOST)],
        }
        # Relative paths begin at the directory that is current now; it may be another than when the server was made.
        here = os.open(os.curdir, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY)
        try:
            with self._lock:
                self._ask({"start": settings}, [slots.descriptor, here])
        finally:
            os.close(here)

    def spawn(self) -> Worker:
        """Starts one more worker.

        Raises:
            MachineError: the machine has no room for one more process.
        """
        with self._lock:
            answer = self._ask({"spawn": True}).value
            if "pid" not in answer:
                error = OSError(answer["errno"], os.strerror(answer["errno"]))
                raise_shortage(error)
                raise MachineError(f"a process that decodes cannot be started: {error.strerror}") from error
            _, descriptors, _, _ = socket.recv_fds(self._control, 1, 1)
            return Worker(answer["pid"], socket.socket(fileno=descriptors[0]))

    def end(self, worker: Worker) -> int | None:
        """Ends a worker; returns its status as of `os.waitpid`, None if it hangs in the system and cannot be ended."""
        worker.channel.close()
        with self._lock:
            status = self._ask({"end": worker.pid}).value["status"]
        return None if status is None else int(status)

    def _ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> Message:
        answer = None
        with suppress(OSError):
            send(self._control, request)
            if descriptors:
                socket.send_fds(self._control, [b"x"], descriptors)
            answer = receive(self._control)
        if answer is None:
            raise ServerGone
        return answer

    def close(self) -> None:
        """Ends all workers, and the server."""
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._control.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _module_path() -> list[str]:
    """Returns where modules are looked for, without the current directory: it may hold images and code of strangers."""
    here = {"", os.curdir}
    with suppress(OSError):
        here.add(os.getcwd())
    return [str(Path(__file__).resolve().parents[2]), *(entry for entry in sys.path if entry not in here)]


_spare: list[DecoderServer] = []


def start_early() -> None:
    """Starts a server for the next run, so that it imports its libraries while this process imports TensorFlow."""
    if not _spare:
        _spare.append(DecoderServer())


@atexit.register
def close_spare() -> None:
    """Ends the server that was started early, if no run has taken it."""
    while _spare:
        _spare.pop().close()


def take_server() -> DecoderServer:
    """Returns the server that was started early, or a new one."""
    try:
        return _spare.pop()
    except IndexError:
        return DecoderServer()
