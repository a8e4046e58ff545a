"""A batch of images on its way to the engine: what is known of its images before all of them are decoded."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from xcli.core.records import ImageBatch
from xcli.inference.pixel_slots import Slot, states_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xcli.core.errors import ImageError
    from xcli.core.records import ImageRef
    from xcli.inference.prefetch import PrefetchedObject


@dataclass(slots=True)
class PixelBatch:
    """A batch on its way: images are added, decoded in any order, and complete when all of them are.

    Attributes:
        number: of the batch in the run.
        slot: where the pixels are.
        refs: the images, and for those in object stores the request that was begun.
        errors: by index.
        warnings: kinds of warnings.
        failure: why the batch cannot be completed.
        done: set once all images have been dealt with.
    """

    number: int
    slot: Slot
    refs: list[tuple[ImageRef, PrefetchedObject | None]] = field(default_factory=list)
    errors: dict[int, ImageError] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failure: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _open: int = 1

    def begin(self) -> None:
        """Counts a chunk that is to be decoded."""
        with self._lock:
            self._open += 1

    def end(self, failure: BaseException | None = None) -> None:
        """Counts a chunk less, or that no more images will be added."""
        with self._lock:
            self._open -= 1
            self.failure = self.failure or failure
            if not self._open:
                self.done.set()

    @property
    def pixels(self) -> NDArray[np.uint8]:
        return self.slot.pixels[: len(self.refs)]

    def finished(self, pixels: NDArray[np.uint8]) -> ImageBatch:
        """Returns the batch with these copies of its pixels."""
        states = tuple(states_of(self.slot.notes[: len(self.refs)]))
        errors = tuple(map(self.errors.get, range(len(self.refs))))
        return ImageBatch(tuple(ref for ref, _ in self.refs), pixels, errors, states, tuple(self.warnings))


class Chunk(NamedTuple):
    """Some images of a batch, which follow one another."""

    batch: PixelBatch
    indexes: range
