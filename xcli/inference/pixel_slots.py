"""Batches of pixels in memory that this process shares with the processes that decode.

A slot holds one batch: its pixels, and for each image what the decoder notes about it. The memory has no name, so that
nothing is left behind whatever ends these processes.
"""

from __future__ import annotations

import io
import mmap
import os
import tempfile
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xcli.core.records import FileState

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WAITING, READING, DECODING, DONE, FAILED = range(5)
"""Stages of an image, in the column `STAGE`."""

STAGE, SIZE, MTIME, WARNINGS = range(4)
"""Columns of a slot's notes: the stage, the state of the file (a size of -1 is an unknown state), a bit a warning."""

_CHANNELS = 3
_NOTE_BYTES = 8 * (WARNINGS + 1)


def note_state(note: NDArray[np.int64], state: FileState | None) -> None:
    """Writes the state of a file into the notes of its image; None is an unknown state."""
    note[SIZE], note[MTIME] = (-1, 0) if state is None else state


def states_of(notes: NDArray[np.int64]) -> list[FileState | None]:
    """Returns the states in the notes of images."""
    return [FileState(size, mtime) if size >= 0 else None for size, mtime in notes[:, SIZE : MTIME + 1].tolist()]


@dataclass(frozen=True, slots=True)
class SlotLayout:
    """What a slot consists of: `batch_size` images of `size` x `size` pixels."""

    batch_size: int
    size: int

    @property
    def pixel_bytes(self) -> int:
        bytes_ = self.batch_size * self.size * self.size * _CHANNELS
        return bytes_ + -bytes_ % 8

    @property
    def stride(self) -> int:
        """Bytes from one slot to the next: a slot begins at a page, since it is mapped by itself."""
        used = self.pixel_bytes + self.batch_size * _NOTE_BYTES
        return used + -used % mmap.ALLOCATIONGRANULARITY

    def map(self, descriptor: int, number: int) -> mmap.mmap:
        return mmap.mmap(descriptor, self.stride, offset=number * self.stride)

    def arrays(self, memory: mmap.mmap) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Returns the pixels, uint8[batch_size, size, size, 3], and the notes, int64[batch_size, 4], of a slot."""
        import numpy as np

        whole = np.frombuffer(memory, np.uint8)
        shape = (self.batch_size, self.size, self.size, _CHANNELS)
        pixels = whole[: self.batch_size * self.size * self.size * _CHANNELS].reshape(shape)
        end = self.pixel_bytes + self.batch_size * _NOTE_BYTES
        return pixels, whole[self.pixel_bytes : end].view(np.int64).reshape(self.batch_size, -1)


@dataclass(frozen=True, slots=True)
class Slot:
    """One batch in shared memory; `pixels` and `notes` as in `SlotLayout.arrays`."""

    number: int
    pixels: NDArray[np.uint8]
    notes: NDArray[np.int64]


class PixelSlots:
    """Slots of shared memory. One is used again when nothing refers to its arrays any more.

    Args:
        layout: of each slot.

    Attributes:
        layout: of each slot.
    """

    def __init__(self, layout: SlotLayout) -> None:
        self.layout = layout
        self._file = _nameless_file()
        # The number of a closed descriptor may at once be that of another file, which is not to be cut, mapped or
        # closed in its place. The garbage collector may close in the thread that takes: hence a lock that knows it.
        self._lock = threading.RLock()
        weakref.finalize(self, self._file.close).atexit = False
        self._mapped: list[mmap.mmap] = []
        self._free: deque[int] = deque()

    @property
    def descriptor(self) -> int:
        """The descriptor of the memory, for the processes that decode; ValueError when it is closed."""
        return self._file.fileno()

    def take(self) -> Slot:
        """Returns a slot that nothing else uses; must be called by one thread at a time.

        Raises:
            OSError: there is no memory for one more.
            ValueError: the slots are closed, and none is free.
        """
        try:
            number = self._free.popleft()
        except IndexError:
            number = len(self._mapped)
            with self._lock:
                os.ftruncate(self.descriptor, (number + 1) * self.layout.stride)
                self._mapped.append(self.layout.map(self.descriptor, number))
        pixels, notes = self.layout.arrays(self._mapped[number])
        # Every view of the slot, a tensor's too, keeps the array alive that both are views of. The garbage collector
        # may call this at any moment and in any thread: appending needs no lock.
        weakref.finalize(pixels.base, self._free.append, number).atexit = False
        notes[:] = 0
        return Slot(number, pixels, notes)

    def close(self) -> None:
        """Closes the descriptor; arrays that are still in use stay valid. May be called again, and from any thread."""
        with self._lock:
            self._file.close()


def _nameless_file() -> io.FileIO:
    if hasattr(os, "memfd_create"):
        return io.FileIO(os.memfd_create("xception-pixels", os.MFD_CLOEXEC), "r+")
    with tempfile.TemporaryFile() as file:
        return io.FileIO(os.dup(file.fileno()), "r+")
