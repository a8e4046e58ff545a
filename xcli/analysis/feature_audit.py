"""What features tell of a data set: labels that are likely wrong, copies, and images unlike all others.

The table of features is read five times: for two fits of a whitening, since what tells copies apart is not what tells
classes apart, for its rows whitened, for the sample to which the judges of labels are fitted, and for what these and
the nearest others say of each row. Memory is that of the whitened rows and of the sample.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xcli.analysis import labels as label_check
from xcli.analysis import outliers
from xcli.analysis.audit_findings import Finding
from xcli.analysis.copy_audit import MAX_LOOKS, find_copies
from xcli.analysis.duplicates import whiten_tables
from xcli.analysis.labels import MAX_GIVEN, choose_sample, fit_judges
from xcli.analysis.nearest import unit_vectors
from xcli.analysis.whitening import fit_tables
from xcli.core.finding_kinds import ACROSS_CLASSES, ACROSS_SPLITS, IN_CLASS, OUTLIER, WRONG_LABEL
from xcli.core.records import ERROR, OK_STATUS, PATH, STATUS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from xcli.analysis.audit_images import AuditImages
    from xcli.analysis.copy_audit import Look
    from xcli.analysis.duplicates import WhitenedRows
    from xcli.analysis.labels import LabelJudges
    from xcli.analysis.vectors import FeatureTables


READINGS = 5
"""How often a table is read."""

_OTHERS = 5_000  # images without a label, or of very small classes, that join the sample


@dataclass
class FeatureAudit:
    """What features tell; the attributes are those of `Audit`."""

    findings: list[Finding] = field(default_factory=list)
    unchecked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class ImageRows:
    """The rows of a table that are those of the images of an audit.

    Attributes:
        images: the images.
        image: int64[rows], the number of each row's image; -1 for rows of no image, and for all but the first of one.
        errors: the error of rows without features, by the number of the image.
    """

    images: AuditImages
    image: NDArray[np.int64]
    errors: dict[int, str]

    @property
    def missing(self) -> int:
        """Number of images that have no row."""
        return len(self.images) - int((self.image >= 0).sum())

    def labels(self) -> NDArray[np.int64]:
        """Returns the number of each row's label, -1 for none."""
        import numpy as np

        return np.where(self.image >= 0, self.images.labels[self.image], -1)

    def path(self, row: int) -> str:
        """Returns the path of a row's image."""
        return self.images.paths[int(self.image[row])]

    def label(self, row: int) -> str | None:
        """Returns its label."""
        return self.images.label(int(self.image[row]))

    def split(self, row: int) -> str:
        """Returns its split."""
        return self.images.split(int(self.image[row]))


def match_rows(images: AuditImages, tables: FeatureTables) -> ImageRows:
    """Finds the row of each image, by its path; of several rows with one path the first."""
    import numpy as np

    places: dict[str, int] = {}
    for number, path in enumerate(images.paths):
        places.setdefault(path, number)
    found, errors = list[int](), dict[int, str]()
    for reader in tables.readers:
        for batch in reader.batches([PATH, STATUS, ERROR]):
            for path, status, error in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                image = places.pop(path or "", -1)
                found.append(image)
                if image >= 0 and status != OK_STATUS:
                    errors[image] = error or "it has no status"
    return ImageRows(images, np.array(found, np.int64), errors)


def audit_features(rows: ImageRows, tables: FeatureTables, look: Look | None) -> FeatureAudit:
    """Looks for wrong labels, copies, and outliers.

    Args:
        rows: of the tables.
        tables: of features; at least one row has a vector.
        look: compares the pixels of pairs of rows, see `find_copies`.
    """
    import numpy as np

    found = FeatureAudit()
    whitened = whiten_tables(tables)
    usable = whitened.ok & (rows.image >= 0)
    _add_copies(found, rows, whitened, usable, look)
    labels = np.where(usable, rows.labels(), -1)
    chosen = choose_sample(labels)
    classes = np.unique(labels[chosen])
    labels[~np.isin(labels, classes)] = -1
    sample = _read_sample(tables, chosen, usable)
    judges = None
    if len(classes) > 1:
        judges = fit_judges(sample.values[sample.is_chosen], labels[chosen], fit_tables(tables))
        if len(chosen) < (total := int((labels >= 0).sum())):
            found.remarks.append(f"the judges of labels are fitted to {len(chosen):,} of {total:,} images")
        if len(classes) > label_check.MAX_CLASSES:
            found.remarks.append(f"there are {len(classes):,} classes, so the nearest images alone judge labels")
    else:
        text = f"there are no two classes of {label_check.MIN_IMAGES} images, which judging labels takes"
        found.unchecked.append((text, (WRONG_LABEL,)))
    near = int(usable.sum()) >= outliers.MIN_IMAGES
    if not near:
        text = f"there are fewer than {outliers.MIN_IMAGES} images, too few to tell what is usual"
        found.unchecked.append((text, (OUTLIER,)))
    found.findings += _Scan(rows, usable, labels, sample).read(tables, judges, near=near)
    return found


def _add_copies(
    found: FeatureAudit, rows: ImageRows, whitened: WhitenedRows, usable: NDArray[np.bool_], look: Look | None
) -> None:
    import numpy as np

    # Kept is what is for validation and tests: without their copies in the training split the figures are true.
    splits = np.where(rows.image >= 0, rows.images.splits[rows.image], -1)
    copies = find_copies(whitened, usable, np.lexsort((np.arange(len(splits)), -splits)), look)
    conflicts = dict[int, int]()
    for row in np.flatnonzero(copies.kept != np.arange(len(copies.kept))).tolist():
        kept = int(copies.kept[row])
        severity, detail = copies.severity(row), copies.detail(row)
        mine, other = rows.label(row), rows.label(kept)
        differs = mine is not None and other is not None and mine != other
        if differs:
            text = f"{detail}; the other image is of {other}"
            found.findings.append(Finding(rows.path(row), mine, ACROSS_CLASSES, severity, text, None, rows.path(kept)))
            if kept not in conflicts or severity > copies.severity(conflicts[kept]):
                conflicts[kept] = row
        if rows.split(row) != rows.split(kept):
            text = f"{detail}; this image is in {rows.split(row)}, the other in {rows.split(kept)}"
            found.findings.append(Finding(rows.path(row), mine, ACROSS_SPLITS, severity, text, None, rows.path(kept)))
        elif not differs:
            found.findings.append(Finding(rows.path(row), mine, IN_CLASS, severity, detail, None, rows.path(kept)))
    for kept, row in conflicts.items():
        text = f"{copies.detail(row)}; the other image is of {rows.label(row)}"
        path, label = rows.path(kept), rows.label(kept)
        found.findings.append(Finding(path, label, ACROSS_CLASSES, copies.severity(row), text, None, rows.path(row)))
    if not copies.looked and look is not None:
        found.remarks.append(
            f"there are more than {MAX_LOOKS:,} pairs of similar images, too many to compare their pixels"
        )


@dataclass(frozen=True, eq=False)
class _Sample:
    """Rows with which others are compared.

    Attributes:
        numbers: int64[m], of the rows, ascending.
        values: float32[m, d], their features.
        is_chosen: bool[m], which of them the judges of labels are fitted to.
    """

    numbers: NDArray[np.int64]
    values: NDArray[np.float32]
    is_chosen: NDArray[np.bool_]


def _read_sample(tables: FeatureTables, chosen: NDArray[np.int64], usable: NDArray[np.bool_]) -> _Sample:
    import numpy as np

    others = usable.copy()
    others[chosen] = False
    rest = np.flatnonzero(others)
    rest = rest[:: max(1, -(-len(rest) // _OTHERS))]
    numbers = np.sort(np.concatenate([chosen, rest]))
    values, done = np.empty((len(numbers), tables.width), np.float32), 0
    for block in tables.blocks():
        own = numbers[done : np.searchsorted(numbers, block.start + len(block.ok))]
        values[done : done + len(own)] = block.values[own - block.start]
        done += len(own)
    return _Sample(numbers, values, np.isin(numbers, chosen))


@dataclass(frozen=True, eq=False)
class _Scan:
    """The last reading.

    Attributes:
        labels: int64[rows], of rows whose labels are judged, else -1.
    """

    rows: ImageRows
    usable: NDArray[np.bool_]
    labels: NDArray[np.int64]
    sample: _Sample

    def read(self, tables: FeatureTables, judges: LabelJudges | None, *, near: bool) -> list[Finding]:
        import numpy as np

        place = np.full(len(self.usable), -1, np.int64)  # in the sample
        place[self.sample.numbers] = np.arange(len(self.sample.numbers))
        judged_place = np.full(len(self.usable), -1, np.int64)  # among those that the judges are fitted to
        chosen = self.sample.numbers[self.sample.is_chosen]
        judged_place[chosen] = np.arange(len(chosen))
        units = unit_vectors(self.sample.values) if near else self.sample.values[:0]
        found, seen, cosines, nearest = list[Finding](), [], [], []
        for block in tables.blocks():
            here = np.arange(block.start, block.start + len(block.ok))
            if judges is not None:
                found += self._wrong(judges, block.values, here, judged_place, chosen)
            own = here[self.usable[here]]
            if near and len(own):
                one = outliers.nearness(block.values[own - block.start], units, place[own])
                seen.append(own)
                cosines.append(one.cosine)
                nearest.append(self.sample.numbers[one.nearest])
        if near:
            found += self._outliers(np.concatenate(seen), np.concatenate(cosines), np.concatenate(nearest))
        return found

    def _wrong(
        self,
        judges: LabelJudges,
        values: NDArray[np.float32],
        here: NDArray[np.int64],
        places: NDArray[np.int64],
        chosen: NDArray[np.int64],
    ) -> Iterator[Finding]:
        import numpy as np

        own = here[self.labels[here] >= 0]
        judged = judges.judge(values[own - here[0]], self.labels[own], places[own])
        names = self.rows.images.names
        for at in np.flatnonzero(judged.wrong).tolist():
            row, suggested, witness = int(own[at]), names[judged.suggested[at]], int(judged.witness[at])
            label, given, best = self.rows.label(row), float(judged.given[at]), float(judged.best[at])
            text = f"the probability of {label} is {given:.4f}, of {suggested} {best:.2f}"
            related = self.rows.path(int(chosen[witness])) if witness >= 0 else None
            yield Finding(self.rows.path(row), label, WRONG_LABEL, 1 - given / MAX_GIVEN, text, suggested, related)

    def _outliers(
        self, numbers: NDArray[np.int64], cosines: NDArray[np.float32], nearest: NDArray[np.int64]
    ) -> Iterator[Finding]:
        import numpy as np

        far, median = outliers.deviations(cosines)
        for at in np.flatnonzero(far > outliers.MAX_DEVIATION).tolist():
            row, severity = int(numbers[at]), 1 - outliers.MAX_DEVIATION / float(far[at])
            text = f"cosine {float(cosines[at]):.2f} to the nearest images, usually {median:.2f}"
            yield Finding(
                self.rows.path(row),
                self.rows.label(row),
                OUTLIER,
                severity,
                text,
                None,
                self.rows.path(int(nearest[at])),
            )
