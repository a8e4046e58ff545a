"""The true classes of the images of a table, by their paths: `--truth FILE`."""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from xcli.checks.row_index import hash_places, path_hashes
from xcli.sources.labelled import LABEL, manifest_samples, read_labelled
from xcli.sources.manifests import open_manifest
from xcli.sources.splits import SPLITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from xcli.sources.labelled import Sample

_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Truth:
    """The labels of k paths; some 12 bytes for each.

    Attributes:
        labels: the different labels.
        hashes: uint64[k], of the paths, sorted.
        numbers: int32[k], the place of each path's label in `labels`.
        splits: int8[k], the place of each path's split in `SPLITS`; -1 where the source does not tell it.
        conflicting: number of paths that have more than one label; they are left out.
        example: the first path.
    """

    labels: tuple[str, ...]
    hashes: NDArray[np.uint64]
    numbers: NDArray[np.int32]
    splits: NDArray[np.int8]
    conflicting: int
    example: str

    def places(self, paths: Iterable[str]) -> NDArray[np.int64]:
        """Returns the place of each path in `hashes`, int64[n]; -1 for a path without a label."""
        return hash_places(self.hashes, path_hashes(paths))


def read_truth(source: str) -> Truth:
    """Reads labels: a manifest (CSV or Parquet) with the columns `path` and `label`, or a directory of class folders.

    Both may tell splits, as the data of `finetune` do.

    Raises:
        SourceError: it cannot be read, or a row has no label.
    """
    return _collected(truth_samples(source))


def truth_samples(source: str) -> Iterator[Sample]:
    """Yields what `read_truth` reads, and raises what it does; of a manifest, the images are not looked for."""
    if os.path.isdir(source):
        yield from read_labelled(source).samples
        return
    # They may have been moved since the table was made.
    manifest = open_manifest(source)
    try:
        yield from manifest_samples(source, LABEL, manifest)
    finally:
        manifest.close()


def _collected(samples: Iterator[Sample]) -> Truth:
    import numpy as np

    names: dict[str, int] = {}
    numbers, parts, chunks, example = array("i"), array("b"), [np.zeros(0, np.uint64)], None
    while chunk := list(islice(samples, _CHUNK)):
        chunks.append(path_hashes(sample.ref.path for sample in chunk))
        numbers.extend(names.setdefault(sample.label, len(names)) for sample in chunk)
        parts.extend(-1 if sample.split is None else SPLITS.index(sample.split) for sample in chunk)
        example = chunk[0].ref.path if example is None else example
    hashes, labels, splits = np.concatenate(chunks), np.array(numbers, np.int32), np.array(parts, np.int8)
    order = np.lexsort((labels, hashes))
    hashes, labels, splits = hashes[order], labels[order], splits[order]
    first, count = np.unique(hashes, return_index=True, return_counts=True)[1:]
    # The labels of one path are sorted: they are the same if the first is the last.
    single = labels[first] == labels[first + count - 1]
    kept = first[single]
    return Truth(tuple(names), hashes[kept], labels[kept], splits[kept], int((~single).sum()), example or "")
