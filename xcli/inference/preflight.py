"""Checks of `xception info`: what this machine offers, and a preflight of sources that reads only image headers."""

from __future__ import annotations

import os
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from statistics import median_low
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ImageError
from xcli.images.decoders import DEFAULT_MAX_PIXELS, load_decoders, open_image
from xcli.images.formats import MAX_FILE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xcli.core.records import ImageRef

    Header = tuple[str, int, int, int]

MAX_LISTED = 20
"""Number of unreadable files that a preflight names; all are counted."""


def machine() -> dict[str, Any]:
    """Returns processors, GPUs and image formats that can be used here. Imports TensorFlow."""
    from xcli.core.process import has_bfloat16, has_int8, processor_count
    from xcli.core.tensorflow import load_tensorflow
    from xcli.images.decoders import supported_formats

    tf = load_tensorflow()
    gpus = tf.config.list_physical_devices("GPU")
    details = [{"device_name": gpu.name} | tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return {
        "processors": processor_count(),
        "bfloat16": has_bfloat16(),
        "int8": has_int8(),
        "gpus": [{"name": one["device_name"], "compute_capability": one.get("compute_capability")} for one in details],
        "image_formats": list(supported_formats()),
    }


@dataclass(slots=True)
class Preflight:
    """Facts from the headers of all images.

    Attributes:
        listed: number of images that a run would take.
        bytes: sum of the sizes of the files.
        widths, heights: smallest, median and largest, in pixels.
        errors: number of unreadable images by reason.
        unreadable: path and error of the first `MAX_LISTED` of them.
        skipped: number of directory entries that are not inputs, by reason.
    """

    listed: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    widths: tuple[int, int, int] | None = None
    heights: tuple[int, int, int] | None = None
    errors: Counter[str] = field(default_factory=Counter)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    def as_dict(self) -> dict[str, Any]:
        # Not asdict(): it turns the counters into pairs.
        return {one.name: getattr(self, one.name) for one in fields(self)} | {"failed": self.failed}


def preflight(refs: Iterable[ImageRef], max_pixels: int = DEFAULT_MAX_PIXELS) -> Preflight:
    """Reads the header of every image, in several threads; images of more than `max_pixels` count as unreadable."""
    load_decoders()
    found = Preflight()
    widths: Counter[int] = Counter()
    heights: Counter[int] = Counter()
    for path, outcome in read_headers(refs, max_pixels):
        found.listed += 1
        if isinstance(outcome, ImageError):
            found.errors[outcome.reason] += 1
            if len(found.unreadable) < MAX_LISTED:
                found.unreadable.append((path, str(outcome)))
            continue
        kind, width, height, size = outcome
        found.formats[kind] += 1
        found.bytes += size
        widths[width] += 1
        heights[height] += 1
    found.widths, found.heights = _spread(widths), _spread(heights)
    return found


def read_headers(
    refs: Iterable[ImageRef], max_pixels: int = DEFAULT_MAX_PIXELS
) -> Iterator[tuple[str, Header | ImageError]]:
    """Yields the path of each image, and its format, width, height and number of bytes, or why it has none."""
    # Few are read ahead, because members of compressed archives hold their bytes in memory.
    threads = min(32, 4 * (os.cpu_count() or 1))
    waiting: deque[tuple[str, Future[Header | ImageError]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for ref in refs:
            waiting.append((ref.path, pool.submit(_header, ref, max_pixels)))
            if len(waiting) == 4 * threads:
                path, outcome = waiting.popleft()
                yield path, outcome.result()
        for path, outcome in waiting:
            yield path, outcome.result()


def _header(ref: ImageRef, max_pixels: int) -> Header | ImageError:
    if ref.error is not None:
        return ref.error
    try:
        data = ref.location.read(MAX_FILE_BYTES)
        with open_image(data, max_pixels) as image:
            kind = "JPEG" if image.format == "MPO" else str(image.format)
            return kind, image.width, image.height, len(data)
    except ImageError as error:
        return error


def _spread(sizes: Counter[int]) -> tuple[int, int, int] | None:
    return (min(sizes), median_low(sizes.elements()), max(sizes)) if sizes else None
