"""What `xception report` is told."""

from __future__ import annotations

from dataclasses import dataclass

from xcli.core.errors import UsageError

MAX_PAGE_MB = 1000
MAX_CLUSTERS = 1000


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """How a report is made.

    Attributes:
        truth: a manifest of the true classes of a table's images, or a directory of class folders.
        images: a directory in which the images are looked for, by the ends of their paths; None is where the table
            says.
        top_images: rows of each class that are shown for being the surest, and as many for being the least sure; of
            each cluster of features the most typical ones.
        clusters: of features; None depends on the number of rows.
        max_size: of the page, in megabytes (10^6 bytes).
        workers: decodes at a time; None is one a processor.
    """

    truth: str | None = None
    images: str | None = None
    top_images: int = 12
    clusters: int | None = None
    max_size: float = 25.0
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.top_images < 1:
            raise UsageError(f"the number of images of a class must be positive; received {self.top_images}")
        if self.clusters is not None and not 1 <= self.clusters <= MAX_CLUSTERS:
            raise UsageError(f"the number of clusters is from 1 to {MAX_CLUSTERS}; received {self.clusters}")
        if not 0.1 <= self.max_size <= MAX_PAGE_MB:
            raise UsageError(f"the size of the page is from 0.1 to {MAX_PAGE_MB} MB; received {self.max_size:g} MB")
