"""Lists images with their classes: of class folders, with or without `train/` and `validation/`, or of a manifest.

The whole listing is kept in memory, some 500 bytes for each image, because only its end shows which classes are
missing. No image is opened.
"""

from __future__ import annotations

import logging
import os
import unicodedata
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from xcli.core.errors import SourceError, UsageError
from xcli.core.records import PATH, ImageRef
from xcli.core.text import escape_path, one_line, valid_text
from xcli.sources.archives.members import is_archive_name
from xcli.sources.class_folders import LAYOUT, NO_CLASS, check_classes, find_splits, list_folders, quoted
from xcli.sources.directories import look_at
from xcli.sources.excluded import EXCLUDED
from xcli.sources.listing import Listing, list_images
from xcli.sources.options import SourceOptions
from xcli.sources.splits import SPLITS, TEST, TRAIN, VALIDATION, split_of_name
from xcli.storage.local import LocalFile
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from xcli.sources.excluded import Exclusions
    from xcli.sources.manifests import Manifest

LABEL, SPLIT = "label", "split"
"""Default names of a manifest's columns of classes and of splits."""

UNLABELLED_TEST = "test image without a class"
"""The reason under which the images of a test part are counted that has no class folders."""

_MANIFEST_EXTENSIONS = (".csv", ".tsv", ".tab", ".parquet")

_MAX_LABEL = 1 << 12  # characters

log = logging.getLogger("xcli")


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image; its class is the folder's name, or the manifest's label, without surrounding white space."""

    ref: ImageRef
    label: str
    split: str | None = None  # one of `SPLITS`, or None where the data do not say


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """A listed data set.

    Attributes:
        samples: splits as in `SPLITS`, folders and files by the bytes of their names; of a manifest as its rows.
        labels: the classes that have an image, sorted by code points: of the training split if there is one, else all.
        skipped: number of directory entries that are not samples, by reason.
        empty: the class folders without an image, sorted: of the training split if there is one, else all.
    """

    samples: tuple[Sample, ...]
    labels: tuple[str, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    empty: tuple[str, ...] = ()

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have a sample, in the order of `SPLITS`; none if the data have no splits."""
        found = {sample.split for sample in self.samples}
        return tuple(split for split in SPLITS if split in found)

    def part(self, split: str | None) -> tuple[Sample, ...]:
        """Returns the samples of one split; None stands for samples without one."""
        return tuple(sample for sample in self.samples if sample.split == split)


def read_labelled(
    source: str,
    *,
    path_column: str = PATH,
    label_column: str = LABEL,
    manifest_base: str | None = None,
    include_system: bool = False,
    no_follow: bool = False,
    allow_private_hosts: bool = False,
) -> LabelledImages:
    """Lists labelled images; there may be only one class, or none if all class folders are empty.

    Empty class folders, images outside class folders, and classes without a validation image are warnings.

    Args:
        source: a directory of class folders, which are searched recursively; a directory of `train`, `validation` and
            `test` (or other names of these, see `splits`), each with class folders; or a manifest, CSV or Parquet, with
            a column of labels and perhaps one of splits, named `split`.
        path_column: the manifest's column of paths.
        label_column: the manifest's column of labels: text or integers.
        manifest_base, include_system, no_follow, allow_private_hosts: as in `SourceOptions`.

    Raises:
        SourceError: the source is none of these; a row has no label, or an unknown split; a split has a class that
            training lacks; folders or labels differ only in case.
        UsageError: `manifest_base` was given without a manifest.
    """
    if not source:
        raise SourceError(f"the data have an empty name; {LAYOUT}")
    shown = f"'{escape_path(source)}'"
    options = SourceOptions(
        manifest=source,
        path_column=path_column,
        manifest_base=manifest_base,
        no_follow=no_follow,
        allow_private_hosts=allow_private_hosts,
    )
    if is_url(source):
        if not source.lower().endswith(_MANIFEST_EXTENSIONS):
            raise SourceError(f"{shown}: class folders are read on this machine only; copy them, or give a manifest")
        return _read_manifest(source, label_column, options)
    is_directory, problem = look_at(os.fsencode(source))
    if is_directory:
        if manifest_base is not None:
            raise UsageError(f"--manifest-base was given, but {shown} is a directory, not a manifest")
        return _read_directory(source, include_system, no_follow)
    if problem is not None:
        raise SourceError(f"cannot read {shown}: {problem.message}; {LAYOUT}")
    if is_archive_name(os.fsencode(source)):
        raise SourceError(f"{shown} is an archive, which has no class folders; unpack it, or give a manifest")
    return _read_manifest(source, label_column, options)


@dataclass(slots=True)
class _Found:
    samples: list[Sample] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    folders: list[tuple[str | None, str]] = field(default_factory=list)  # (split, class)
    include_system: bool = False
    no_follow: bool = False
    trusted: int | None = None  # as in `LocalFile`

    def folders_in(self, top: str, skipped: Counter[str] | None = None) -> list[str]:
        """Returns the folders in a directory; counts the other entries."""
        skipped = self.skipped if skipped is None else skipped
        return list_folders(top, skipped, include_system=self.include_system, no_follow=self.no_follow)

    def guarded(self, ref: ImageRef) -> ImageRef:
        """Returns a reference to a file in which no link below the data set is followed, if that is asked for."""
        if self.trusted is None or not isinstance(ref.location, LocalFile):
            return ref
        return replace(ref, location=replace(ref.location, trusted=self.trusted))

    def images_in(self, top: str) -> Listing:
        """Lists the images in a folder."""
        return list_images(SourceOptions((top,), include_system=self.include_system, no_follow=self.no_follow))


def _read_directory(source: str, include_system: bool, no_follow: bool) -> LabelledImages:
    found = _Found(include_system=include_system, no_follow=no_follow, trusted=len(source) if no_follow else None)
    folders = found.folders_in(source)
    splits = find_splits(source, folders)
    if not splits:
        _read_classes(source, folders, None, found)
    for split in SPLITS:
        if split in splits:
            top = os.path.join(source, splits[split])
            if split == TEST and len(splits) > 1 and _is_unlabelled(top, found):
                continue
            _read_classes(top, found.folders_in(top), split, found)
    if found.skipped[NO_CLASS]:
        text = "images beside the class folders of '%s' have no class, and are left out: %d of them"
        log.warning(text, escape_path(source), found.skipped[NO_CLASS])
    return _checked(source, found)


def _is_unlabelled(top: str, found: _Found) -> bool:
    """Says whether a test part has images without classes, as in competitions; they are counted and named."""
    labels = {label for _, label in found.folders}
    folders = found.folders_in(top, Counter())
    if len(folders) > 1 or any(_class_name(folder) in labels for folder in folders):
        return False
    count = sum(1 for _ in found.images_in(top))
    found.skipped[UNLABELLED_TEST] += count
    log.warning("'%s' has no class folders: its images have no class, and are left out: %d", escape_path(top), count)
    return True


def _read_classes(top: str, folders: Sequence[str], split: str | None, found: _Found) -> None:
    if not folders:
        images = found.skipped[NO_CLASS]
        beside = f", and {images:,} image{'s' if images != 1 else ''} without a class" if images else ""
        raise SourceError(f"'{escape_path(top)}' has no class folders{beside}; {LAYOUT}")
    check_classes(top, folders)
    classes: dict[str, str] = {}
    for folder in folders:
        label = _class_name(folder)
        if not label:
            raise SourceError(f"the name of {folder!r} in '{escape_path(top)}' is only white space; rename it")
        if label in classes:
            both = quoted([classes[label], folder])
            raise SourceError(
                f"{both} in '{escape_path(top)}' are the same class, but for white space or the normal form of Unicode "
                "(accents composed or not); rename one"
            )
        classes[label] = folder
        found.folders.append((split, label))
        listing = found.images_in(os.path.join(top, folder))
        prefix = os.fsencode(folder)
        # The keys are relative to the folder above, because classes may have files of the same name.
        keyed = (replace(ref, key=prefix + b"/" + ref.key) if ref.error is None else ref for ref in listing)
        found.samples += [Sample(found.guarded(ref), label, split) for ref in keyed]
        found.skipped.update(listing.skipped)
    _check_case(classes, f"in '{escape_path(top)}', the folders")


def _class_name(text: str) -> str:
    """Returns the name of a class: in Unicode's composed normal form (NFC), without white space around it."""
    return unicodedata.normalize("NFC", valid_text(text)).strip()


def _check_case(labels: Iterable[str], where: str) -> None:
    """Raises SourceError where labels differ only in case, unless they are single letters, as in handwriting."""
    seen: dict[str, str] = {}
    for label in labels:
        other = seen.setdefault(label.casefold(), label)
        if other != label and len(label) > 1:
            raise SourceError(
                f"{where} {quoted([other, label])} differ only in upper and lower case, and are one class to a reader: "
                "join them, or give them different names"
            )


def _read_manifest(source: str, label_column: str, options: SourceOptions) -> LabelledImages:
    shown = f"the manifest '{escape_path(source)}'"
    found = _Found()
    with list_images(options) as listing:
        found.samples.extend(manifest_samples(source, label_column, listing))
        found.skipped.update(listing.skipped)
    labelled = {(sample.ref.path, sample.label) for sample in found.samples}
    several = [path for path, count in Counter(path for path, _ in labelled).items() if count > 1]
    if several:
        log.warning("%s has more than one label for %d of its paths, %s first", shown, len(several), min(several))
    _check_case(sorted({sample.label for sample in found.samples}), f"{shown}: the labels")
    return _checked(source, found)


def manifest_samples(source: str, label_column: str, rows: Manifest | Listing) -> Iterator[Sample]:
    """Yields the labelled images of a manifest as they are read.

    Args:
        source: names the manifest in messages.
        label_column: its column of labels.
        rows: the manifest, or the listing of it.

    Raises:
        SourceError: it has no such column, or no images; a row has no label, or an unknown split.
    """
    shown = f"the manifest '{escape_path(source)}'"
    names = [column.name for column in rows.extra_columns]
    if valid_text(label_column) not in names:
        listed = quoted(names) if names else "no column but that of the paths"
        raise SourceError(f"{shown} has no column '{label_column}', only {listed}; name it with --label-column")
    label_at = names.index(valid_text(label_column))
    split_at = names.index(SPLIT) if SPLIT in names else None
    number = 0
    for number, ref in enumerate(rows, start=1):
        where = f"{shown}, image {number} ({ref.path or 'without a path'})"
        if ref.error is not None and ref.extra[label_at] is None:
            raise SourceError(f"{shown} cannot be used: {ref.error.message}; mend it")
        label = _label(ref.extra[label_at], where, label_column)
        split = None if split_at is None else _split(ref.extra[split_at], where)
        # The other columns are not needed, and would take memory for every sample.
        yield Sample(replace(ref, extra=()), label, split)
    if not number:
        raise SourceError(f"{shown} lists no images")


def _label(value: Any, where: str, column: str) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
        raise SourceError(f"{where}: column '{column}' holds {value!r}, which is no class name; store text or integers")
    label = "" if value is None else _class_name(str(value))
    if not label:
        raise SourceError(f"{where}: the label is empty; give every image a class, or drop the row")
    if len(label) > _MAX_LABEL:
        raise SourceError(f"{where}: the label has {len(label):,} characters, more than any name of a class")
    return label


def _split(value: Any, where: str) -> str:
    split = split_of_name(value) if isinstance(value, str) else None
    if split is None:
        given = "nothing" if value is None or value == "" else repr(value)
        raise SourceError(
            f"{where}: the split is {given}; it must be train, validation (val, valid, dev, eval) or test"
        )
    return split


def _checked(source: str, found: _Found) -> LabelledImages:
    shown = f"'{escape_path(source)}'"
    classes: dict[str | None, set[str]] = {}
    for sample in found.samples:
        classes.setdefault(sample.split, set()).add(sample.label)
    splits = {split for split, _ in found.folders}
    # The folders of other splits count only where there is no training split.
    relevant = splits & {None, TRAIN} or splits
    filled = set().union(*(classes.get(split, ()) for split in relevant))
    empty = sorted({label for split, label in found.folders if split in relevant} - filled)
    if empty:
        log.warning("%s has class folders without an image: %s", shown, ", ".join(empty))
    if TRAIN in classes or TRAIN in splits:
        _compare_splits(shown, classes, empty)
    labels = classes[TRAIN] if TRAIN in classes else set().union(*classes.values())
    return LabelledImages(tuple(found.samples), tuple(sorted(labels)), found.skipped, tuple(empty))


def _compare_splits(shown: str, classes: Mapping[str | None, set[str]], empty: Sequence[str]) -> None:
    trained = classes.get(TRAIN, set())
    for split in (VALIDATION, TEST):
        unknown = sorted(classes.get(split, set()) - trained)
        if unknown:
            hint = " (its folder there is empty)" if set(unknown) <= set(empty) else ""
            raise SourceError(
                f"the {split} split of {shown} has classes that the training split lacks{hint}: "
                f"{', '.join(unknown)}; add images of them to train, or take them out"
            )
    missing = sorted(trained - classes.get(VALIDATION, trained))
    if missing:
        log.warning("the validation split of %s has no image of %s", shown, ", ".join(missing))


def leave_out(data: LabelledImages, excluded: Exclusions, *, trains: bool) -> LabelledImages:
    """Returns labelled images without those that are excluded; they are counted among the skipped ones.

    Raises:
        SourceError: none of these images is excluded; or with `trains`, all images of a class are.
    """
    kept = tuple(sample for sample in data.samples if sample.ref.path not in excluded.paths)
    count = len(data.samples) - len(kept)
    if excluded.paths and data.samples and not count:
        raise SourceError(excluded.found_none(data.samples[0].ref.path))
    lost = set(data.labels) - {sample.label for sample in kept}
    if trains and lost:
        raise SourceError(f"{one_line(excluded.source)} leaves no image of the class {one_line(min(lost))!r}")
    log.info("%s images are left out for %s", f"{count:,}", one_line(excluded.source))
    return replace(data, samples=kept, skipped={**data.skipped, EXCLUDED: count})
