"""What is wrong with a labelled data set, before one trains on it: all findings of an audit, in their order."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xcli.analysis.audit_findings import Finding, in_order
from xcli.analysis.feature_audit import audit_features
from xcli.analysis.picture_pass import look_at_pictures
from xcli.analysis.pixel_check import check_pixels
from xcli.core.errors import ImageError
from xcli.core.finding_kinds import FEATURE_KINDS, KINDS, PICTURE_KINDS, SMALL_CLASS, UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from xcli.analysis.audit_images import AuditImages
    from xcli.analysis.feature_audit import ImageRows
    from xcli.analysis.vectors import FeatureTables

log = logging.getLogger("xcli")

MIN_CLASS_IMAGES = 20
"""Images of a class for training, below which it is small."""

_GONE = "missing"  # the reason of an image that is no longer where the table says


@dataclass
class Audit:
    """An audit, as far as it is.

    Attributes:
        images: that are looked at.
        findings: sorted by `finished`.
        unchecked: why kinds of findings were not, or not wholly, looked for; the reason, and the kinds.
        remarks: what else there is to say.
    """

    images: AuditImages
    findings: list[Finding] = field(default_factory=list)
    unchecked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def finished(self) -> Audit:
        """Adds what the numbers of images of the classes say, and sorts the findings."""
        self.findings += _small_classes(self.images)
        self.findings = in_order(self.findings)
        return self

    def counts(self) -> dict[str, int]:
        """Returns the number of findings of each kind that has some, in the order of the kinds."""
        found = Counter(one.issue for one in self.findings)
        return {kind: found[kind] for kind in KINDS if found[kind]}

    def add_features(
        self,
        rows: ImageRows,
        tables: FeatureTables,
        *,
        pixels: bool,
        folder: str | None = None,
        workers: int | None = None,
        progress: Callable[[str, int, int], object] = lambda unit, done, of: None,
    ) -> None:
        """Adds what features tell, see `audit_features`.

        Args:
            rows, tables: the rows of the images, and their tables.
            pixels: whether to look at the pixels of images that may be copies.
            folder, workers, progress: see `check_pixels`.
        """

        def look(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float32]:
            import numpy as np

            different, places = np.unique(np.concatenate([first, second]), return_inverse=True)
            log.info("comparing the pixels of %s pairs of images that may be copies", f"{len(first):,}")
            names = [self.images.place(int(rows.image[row])) for row in different.tolist()]
            one, other = places[: len(first)], places[len(first) :]
            return check_pixels(names, one, other, images=folder, workers=workers, progress=progress).agreement

        found = audit_features(rows, tables, look if pixels else None)
        self.findings += found.findings
        self.remarks += found.remarks
        self.unchecked += found.unchecked
        if rows.missing:
            text = f"{rows.missing:,} of {len(self.images):,} images have no row in the table of features"
            self.unchecked.append((text, FEATURE_KINDS))

    def add_pictures(
        self,
        errors: dict[int, str],
        *,
        folder: str | None = None,
        listed: bool,
        workers: int | None = None,
        progress: Callable[[int, int], object] = lambda images, failed: None,
    ) -> None:
        """Looks at all images as pictures.

        Args:
            errors: of the table of features, by the numbers of images, for those that are no longer there.
            folder: in which images are looked for, see `AuditImages.references`.
            listed: whether the images were found on the disk; if not, one may be elsewhere now.
            workers, progress: see `look_at_pictures`.
        """
        gone = 0
        refs = self.images.references(folder)
        for number, outcome in enumerate(look_at_pictures(refs, workers, progress)):
            if not isinstance(outcome, ImageError):
                self.findings += (self._of(number, *fault) for fault in outcome)
            elif outcome.reason == _GONE and not listed:
                gone += 1
                if number in errors:
                    self.findings.append(self._of(number, UNREADABLE, 1.0, errors[number]))
            else:
                self.findings.append(self._of(number, UNREADABLE, 1.0, str(outcome)))
        if gone:
            text = f"{gone:,} of {len(self.images):,} images are not where the table says (--images DIR says where)"
            self.unchecked.append((text, PICTURE_KINDS))

    def add_errors(self, errors: dict[int, str]) -> None:
        """Adds images that cannot be read, as the table of features says it, where pictures are not looked at."""
        self.findings += (self._of(number, UNREADABLE, 1.0, text) for number, text in errors.items())

    def _of(self, number: int, issue: str, severity: float, detail: str) -> Finding:
        return Finding(self.images.paths[number], self.images.label(number), issue, severity, detail)


def _small_classes(images: AuditImages) -> Iterator[Finding]:
    for name, size in images.class_sizes().items():
        if size < MIN_CLASS_IMAGES:
            text = f"{size:,} image{'' if size == 1 else 's'} to train with, fewer than {MIN_CLASS_IMAGES}"
            yield Finding(None, name, SMALL_CLASS, 1 - size / MIN_CLASS_IMAGES, text)
