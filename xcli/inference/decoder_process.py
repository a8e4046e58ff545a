"""What runs in the processes that read and decode images, away from TensorFlow.

The server is a process with one thread. It imports Pillow and numpy once, and forks a worker in a few milliseconds
whenever one is asked for. A worker takes chunks of images over a socket and writes their pixels into shared memory.

    run ── start, spawn, end ──> server ── fork ──> worker
     └──────────────── chunks ──────────────────────┘

Whatever ends the run closes the server's socket. Then the server ends the workers; if it dies itself, the system does.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.core.errors import ImageError, MachineError
from xcli.core.process import reuse_freed_memory
from xcli.core.shortage import has_memory, patiently, raise_shortage, shortage
from xcli.images.decoders import load_decoders
from xcli.images.preprocessing import Preprocessing
from xcli.images.resampling import load_resampler
from xcli.images.warnings import HINTS, listen
from xcli.inference.decoder_messages import SentBytes, receive, send, unpack_location
from xcli.inference.pixel_slots import DECODING, DONE, FAILED, READING, STAGE, WARNINGS, SlotLayout, note_state

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from xcli.core.records import Location, Readable

    Decoder = Callable[[Readable, Preprocessing], NDArray[np.uint8]]

WARNING_BITS = {kind: 1 << bit for bit, kind in enumerate(HINTS)}
NO_MEMORY = "not enough memory to decode it"

_PR_SET_PDEATHSIG = 1
_KILL_SECONDS = 2.0


def find_decoder(module: str, function: str, arguments: dict[str, Any]) -> Decoder:
    """Calls a function of this package that returns a decoder."""
    decoder: Decoder = getattr(import_module(f"xcli.{module}"), function)(**arguments)
    return decoder


@dataclass(slots=True)
class Settings:
    """What all workers of a run do, and where.

    Attributes:
        preprocessing: how images become pixels.
        decode: reads and decodes an image.
        layout: of the shared memory.
        memory: its descriptor.
        share, most: bytes of memory that a worker may take for an ordinary image, and for one that is decoded alone.
    """

    preprocessing: Preprocessing
    decode: Decoder
    layout: SlotLayout
    memory: int
    share: int
    most: int

    @classmethod
    def of(cls, value: dict[str, Any], memory: int) -> Settings:
        return cls(
            Preprocessing(**value["preprocessing"]),
            find_decoder(*value["decoder"]),
            SlotLayout(*value["layout"]),
            memory,
            *value["limits"],
        )


def main() -> None:
    """Serves the socket whose descriptor is the last argument, until the other end is closed."""
    control = socket.socket(fileno=int(sys.argv[-1]))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        # They are sent to all processes of a terminal or a job; the run decides what becomes of its images.
        signal.signal(number, signal.SIG_IGN)
    reuse_freed_memory()
    load_decoders()
    load_resampler()
    import numpy as np  # noqa: F401 - forked workers have it already

    gc.collect()
    gc.freeze()
    os._exit(_serve(control))


def _serve(control: socket.socket) -> int:
    workers: set[int] = set()
    settings: Settings | None = None
    while (message := receive(control)) is not None:
        request = message.value
        if "start" in request:
            _, (memory, here), _, _ = socket.recv_fds(control, 1, 2)
            os.fchdir(here)
            settings = Settings.of(request["start"], memory)
            send(control, {})
        elif "end" in request:
            send(control, {"status": _end(request["end"])})
            workers.discard(request["end"])
        else:
            assert settings is not None, "start comes first"
            _spawn(control, settings, workers)
    for pid in workers:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return 0


def _spawn(control: socket.socket, settings: Settings, workers: set[int]) -> None:
    """Forks a worker, and sends its number and the other end of its socket."""
    try:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            server = os.getpid()
            pid = os.fork()
            if pid == 0:
                control.close()
                ours.close()
                os._exit(_work(theirs, settings, server))
            workers.add(pid)
            send(control, {"pid": pid})
            socket.send_fds(control, [b"x"], [ours.fileno()])
    except OSError as error:
        send(control, {"errno": error.errno})


def _end(pid: int) -> int | None:
    """Kills a worker; returns its status as of `os.waitpid`, None if it hangs in the system, where nothing ends it."""
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + _KILL_SECONDS
    while time.monotonic() < end:
        with suppress(ChildProcessError):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return status
        time.sleep(0.002)
    return None


def _work(channel: socket.socket, settings: Settings, server: int) -> int:
    """The life of a worker: takes chunks until the other end of the socket is closed."""
    try:
        with suppress(OSError, AttributeError):  # only on Linux; elsewhere the closed socket ends it
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:
            return 0
        worker = _Worker(settings)
        while (message := receive(channel)) is not None:
            send(channel, worker.decode_chunk(message.value, message.data))
    except BrokenPipeError:
        pass
    except BaseException:  # noqa: BLE001 - nothing is above; the run finds the worker gone
        traceback.print_exc()
        return 1
    return 0


@dataclass(slots=True)
class _Worker:
    """Decodes chunks of images into slots.

    Attributes:
        settings: see there.
        idle_bytes: what it needs without an image.
    """

    settings: Settings
    idle_bytes: int = field(init=False)
    _slots: dict[int, mmap.mmap] = field(default_factory=dict)
    _limit: int = 0

    def __post_init__(self) -> None:
        self.idle_bytes = _data_bytes()

    def decode_chunk(self, chunk: dict[str, Any], data: bytes) -> dict[str, Any]:
        """Decodes the images of a chunk, of one slot, and returns the answer.

        The answer holds `errors`, an index and the items of a `_Problem` each, and `seconds`. If the machine, or this
        program, is at fault, `machine` or `bug` tells how, and the rest of the images is left out.
        """
        begin = time.monotonic()
        answer: dict[str, Any] = {"errors": []}
        self._limit_memory(self.settings.most if chunk["alone"] else self.settings.share)
        number = chunk["slot"]
        if number not in self._slots:
            self._slots[number] = self.settings.layout.map(self.settings.memory, number)
        pixels, notes = self.settings.layout.arrays(self._slots[number])
        try:
            for index, location in _images(chunk["images"], data):
                problem = self._decode(location, pixels[index], notes[index], alone=chunk["alone"])
                if problem is not None:
                    answer["errors"].append([index, *problem])
        except MachineError as error:
            answer["machine"] = str(error)
        except Exception:  # noqa: BLE001 - raised again in the run
            answer["bug"] = traceback.format_exc()
        return answer | {"seconds": time.monotonic() - begin}

    def _decode(
        self, location: Location | SentBytes, pixels: NDArray[np.uint8], note: Any, *, alone: bool
    ) -> _Problem | None:
        note[STAGE] = READING
        if not isinstance(location, SentBytes):  # whose state came with the bytes
            note_state(note, location.state())
        note[WARNINGS] = 0

        def warned(kind: str) -> None:
            note[WARNINGS] |= WARNING_BITS[kind]

        listen(warned)
        problem = patiently(lambda: self._attempt(_Noted(location, note), pixels))
        if problem is None:
            note[STAGE] = DONE
            return None
        if problem.of_memory and alone and not has_memory():
            raise_shortage(MemoryError())
        pixels[:] = 0
        note[STAGE] = FAILED
        return problem

    def _attempt(self, location: Readable, pixels: NDArray[np.uint8]) -> _Problem | None:
        """Decodes once; raises what has a want of descriptors for its cause, which passes."""
        try:
            found = self.settings.decode(location, self.settings.preprocessing)
        except MemoryError:
            return _Problem("too-large", NO_MEMORY, of_memory=True)
        except ImageError as error:
            is_short = shortage(error) is not None
            of_memory = is_short and error.reason == "too-large"
            if of_memory or not is_short:
                return _Problem(error.reason, error.message, of_memory)
            raise
        if found.dtype != pixels.dtype or found.shape != pixels.shape:
            raise TypeError(f"a decoder returned {found.dtype}{list(found.shape)}")
        pixels[:] = found
        return None

    def _limit_memory(self, size: int) -> None:
        if size == self._limit:
            return
        self._limit = size
        with suppress(OSError, ValueError):  # a smaller limit is set from outside
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (self.idle_bytes + size, hard))


class _Problem(NamedTuple):
    """What is wrong with an image, and whether it might be well with more memory."""

    reason: str
    message: str
    of_memory: bool = False


class _Noted:
    """A location that notes when its bytes have been read."""

    def __init__(self, location: Readable, note: Any) -> None:
        self._location, self._note = location, note

    def read(self, max_bytes: int) -> bytes:
        data = self._location.read(max_bytes)
        self._note[STAGE] = DECODING
        return data


def _images(images: list[Any], data: bytes) -> Iterator[tuple[int, Location | SentBytes]]:
    """Yields the index of each image in its slot, and its location; a number stands for so many bytes of `data`."""
    start = 0
    for index, where in images:
        if isinstance(where, int):
            yield index, SentBytes(data[start : start + where])
            start += where
        else:
            yield index, unpack_location(where)


def _data_bytes() -> int:
    """Returns the bytes that count towards RLIMIT_DATA, of which the shared memory is no part."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[5]) * resource.getpagesize()
    return 0
