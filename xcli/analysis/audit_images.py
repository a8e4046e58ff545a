"""The images of an audit: their paths, labels and splits, from class folders, a manifest, or a table of features."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xcli.analysis.truth import truth_samples
from xcli.core.errors import SourceError
from xcli.core.records import PATH
from xcli.core.text import escape_path, one_line
from xcli.sources.row_images import row_images
from xcli.sources.splits import SPLITS, TRAIN
from xcli.storage.local import LocalFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from xcli.analysis.vectors import FeatureTables
    from xcli.core.records import ImageRef
    from xcli.sources.labelled import LabelledImages, Sample


@dataclass(frozen=True, eq=False)
class AuditImages:
    """n images, in the order of the data.

    Attributes:
        paths: as the column `path` has them.
        labels: int64[n], places in `names`; -1 for images without a label.
        names: of the classes, sorted.
        splits: int64[n], places in `SPLITS`; -1 where the data do not say.
        empty: classes without an image.
        refs: to the images; None where they have to be found by their paths.
    """

    paths: list[str]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    splits: NDArray[np.int64]
    empty: tuple[str, ...] = ()
    refs: tuple[ImageRef, ...] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def label(self, image: int) -> str | None:
        """Returns the label of an image."""
        return self.names[self.labels[image]] if self.labels[image] >= 0 else None

    def split(self, image: int) -> str:
        """Returns the split of an image."""
        return SPLITS[self.splits[image]] if self.splits[image] >= 0 else "no split"

    def references(self, folder: str | None = None) -> Iterator[ImageRef]:
        """Yields references to the images; with a folder, to those that are found there by the ends of their paths."""
        return iter(self.refs) if self.refs is not None and folder is None else row_images(self.paths, folder)

    def place(self, image: int) -> str:
        """Returns where an image is, as the column `path` has it; a manifest may have paths relative to a directory."""
        location = None if self.refs is None else self.refs[image].location
        return escape_path(location.path) if isinstance(location, LocalFile) else self.paths[image]

    def class_sizes(self) -> Counter[str]:
        """Counts the images of each class: of the training split, if there is one."""
        import numpy as np

        trained = self.splits == SPLITS.index(TRAIN)
        counted = self.labels[trained if trained.any() else np.ones(len(self), bool)]
        sizes = Counter(dict.fromkeys((*self.names, *self.empty), 0))
        sizes.update(self.names[label] for label in counted.tolist() if label >= 0)
        return sizes


def images_of_data(data: LabelledImages) -> AuditImages:
    """Returns the images of class folders, or of a manifest."""
    samples = data.samples
    return _made([one.ref.path for one in samples], samples, data.empty, tuple(one.ref for one in samples))


def images_of_table(tables: FeatureTables, truth: str) -> tuple[AuditImages, int]:
    """Returns the images of tables of features, with the labels of `truth`, and how many of these are no rows.

    Args:
        tables: of features.
        truth: a manifest with the columns `path`, `label` and perhaps `split`, or class folders.

    Raises:
        SourceError: the truth cannot be read, or has a label for none of the rows.
    """
    known: dict[str, Sample] = {}
    for sample in truth_samples(truth):
        known.setdefault(sample.ref.path, sample)
    batches = (batch for reader in tables.readers for batch in reader.batches([PATH]))
    paths = [path or "" for batch in batches for path in batch.column(0).to_pylist()]
    samples = [known.get(path) for path in paths]
    matched = {sample.ref.path for sample in samples if sample is not None}
    if not matched:
        example = f": that has {one_line(next(iter(known)))!r}, the table {one_line(paths[0])!r}" if paths else ""
        raise SourceError(f"no row of {one_line(tables.readers[0].name)} has its path in {one_line(truth)}{example}")
    return _made(paths, samples), len(known) - len(matched)


def _made(
    paths: list[str],
    samples: Iterable[Sample | None],
    empty: tuple[str, ...] = (),
    refs: tuple[ImageRef, ...] | None = None,
) -> AuditImages:
    import numpy as np

    samples = list(samples)
    names = sorted({one.label for one in samples if one is not None})
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([-1 if one is None else numbers[one.label] for one in samples], np.int64)
    splits = [-1 if one is None or one.split is None else SPLITS.index(one.split) for one in samples]
    return AuditImages(paths, labels, tuple(names), np.array(splits, np.int64), empty, refs)
