"""How long a large directory takes to list, until the first image and until the last."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.timing import Data, Save, alternate, compare_all, group, seconds

if TYPE_CHECKING:
    from benchmarks.settings import Settings


def measure(settings: Settings, save: Save) -> Data:
    """Lists a directory of empty files, again and again; its entries are in the system's cache."""
    folder = fill(Path(settings.scratch, "listing"), settings.listing_files)
    first: list[float] = []
    ours, plain = "ours, all", "sorted names from os.scandir"

    def listed() -> float:
        to_first, to_all = list_once(folder, settings.listing_files)
        first.append(to_first)
        return to_all

    def result(samples: dict[str, list[float]]) -> Data:
        table = {"ours, first image": first, **samples}
        title = f"Listing a directory of {settings.listing_files:,} files"
        return {"groups": [group(title, "s", table, compare_all(samples, [(ours, plain)]))]}

    list_once(folder, settings.listing_files)
    first.clear()
    samplers = {ours: listed, plain: lambda: seconds(lambda: sorted(entry.name for entry in os.scandir(folder)))}
    return result(alternate(samplers, settings.repeats, lambda samples: save(result(samples))))


def fill(folder: Path, count: int) -> Path:
    """Makes a directory of that many empty files."""
    folder.mkdir()
    for number in range(count):
        os.close(os.open(folder / f"{number:07}.jpg", os.O_CREAT | os.O_WRONLY))
    return folder


def list_once(folder: Path, expected: int) -> tuple[float, float]:
    """Seconds until the first image and until all of them.

    Raises:
        RuntimeError: it is another number of images.
    """
    from xcli.sources.listing import list_images
    from xcli.sources.options import SourceOptions

    begin = time.perf_counter()
    with list_images(SourceOptions(sources=(str(folder),))) as listing:
        images = iter(listing)
        count = int(next(images, None) is not None)
        to_first = time.perf_counter() - begin
        count += sum(1 for _ in images)
        to_all = time.perf_counter() - begin
    if count != expected:
        raise RuntimeError(f"{count} images listed of {expected}")
    return to_first, to_all
