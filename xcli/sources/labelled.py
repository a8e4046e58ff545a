"""Lists images with their classes: of class folders, with or without `train/` and `validation/`, or of a manifest.

The whole listing is kept in memory, some 500 bytes for each image, because only its end shows which classes are
missing. No image is opened.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from xcli.core.errors import SourceError
from xcli.core.records import PATH, ImageRef
from xcli.core.text import escape_path, join_names, valid_text
from xcli.images.formats import has_image_extension
from xcli.sources.archives.members import is_archive_name
from xcli.sources.directories import look_at
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

TRAIN, VALIDATION, TEST = SPLITS = "train", "validation", "test"
"""Values of `Sample.split`."""

LABEL, SPLIT = "label", "split"
"""Default names of a manifest's columns of classes and of splits."""

NO_CLASS = "without a class folder"
"""The reason under which images in no class folder are counted."""

_MANIFEST_EXTENSIONS = (".csv", ".tsv", ".tab", ".parquet")
_NAMES = {TRAIN: TRAIN, VALIDATION: VALIDATION, "val": VALIDATION, TEST: TEST}
_LAYOUT = "give a directory with a folder for each class, one with train/ and validation/ of such, or a manifest"

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


def read_labelled(source: str, *, path_column: str = PATH, label_column: str = LABEL) -> LabelledImages:
    """Lists labelled images; there may be only one class, or none if all class folders are empty.

    Empty class folders, images outside class folders, and classes without a validation image are warnings.

    Args:
        source: a directory of class folders, which are searched recursively; a directory of `train`, `validation` (or
            `val`) and `test`, each with class folders; or a manifest, CSV or Parquet, with a column of labels and
            perhaps one of splits, named `split`.
        path_column: the manifest's column of paths.
        label_column: the manifest's column of labels: text or integers.

    Raises:
        SourceError: the source is none of these; a row has no label, or an unknown split; a split has a class that
            training lacks.
    """
    if not source:
        raise SourceError(f"the data have an empty name; {_LAYOUT}")
    shown = f"'{escape_path(source)}'"
    if is_url(source):
        if not source.lower().endswith(_MANIFEST_EXTENSIONS):
            raise SourceError(f"{shown}: class folders are read on this machine only; copy them, or give a manifest")
        return _read_manifest(source, path_column, label_column)
    is_directory, problem = look_at(os.fsencode(source))
    if is_directory:
        return _read_directory(source)
    if problem is not None:
        raise SourceError(f"cannot read {shown}: {problem.message}; {_LAYOUT}")
    if is_archive_name(os.fsencode(source)):
        raise SourceError(f"{shown} is an archive, which has no class folders; unpack it, or give a manifest")
    return _read_manifest(source, path_column, label_column)


@dataclass(slots=True)
class _Found:
    samples: list[Sample] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    folders: list[tuple[str | None, str]] = field(default_factory=list)  # (split, class)


def _read_directory(source: str) -> LabelledImages:
    found = _Found()
    folders = _folders(source, found.skipped)
    splits = _splits(source, folders)
    if not splits:
        _read_classes(source, folders, None, found)
    else:
        for split in SPLITS:
            if split in splits:
                top = os.path.join(source, splits[split])
                _read_classes(top, _folders(top, found.skipped), split, found)
    if found.skipped[NO_CLASS]:
        text = "images beside the class folders of '%s' have no class, and are left out: %d of them"
        log.warning(text, escape_path(source), found.skipped[NO_CLASS])
    return _checked(source, found)


def _folders(top: str, skipped: Counter[str]) -> list[str]:
    """Returns the folders in a directory, by the bytes of their names; counts the other entries."""
    try:
        names = sorted(os.listdir(os.fsencode(top)))
    except OSError as error:
        raise SourceError(f"cannot list '{escape_path(top)}': {error.strerror}; {_LAYOUT}") from None
    folders = []
    for name in names:
        if name.startswith(b"."):
            skipped["hidden"] += 1
            continue
        is_directory, problem = look_at(os.path.join(os.fsencode(top), name))
        if is_directory:
            folders.append(os.fsdecode(name))
        elif has_image_extension(name):
            skipped[NO_CLASS] += 1
        else:
            skipped["broken symlink" if problem and problem.reason != "not-a-file" else "not an image"] += 1
    return folders


def _splits(source: str, folders: Sequence[str]) -> dict[str, str]:
    """Returns the folder of each split; nothing if the folders are classes: `train` may also be a kind of vehicle."""
    named = [folder for folder in folders if folder.lower() in _NAMES]
    others = [folder for folder in folders if folder not in named]
    if named and others:
        deep = [folder for folder in named if _folders(os.path.join(source, folder), Counter())]
        if len(deep) < 2:
            return {}
        raise SourceError(
            f"'{escape_path(source)}' has {_quoted(named)} with folders in them, and {_quoted(others)} besides: move "
            "those away, or give one of the splits"
        )
    splits: dict[str, str] = {}
    for folder in named:
        split = _NAMES[folder.lower()]
        if split in splits:
            raise SourceError(
                f"'{escape_path(source)}' has both {_quoted([splits[split], folder])}, which is the same split twice; "
                "keep one of them"
            )
        splits[split] = folder
    return splits


def _read_classes(top: str, folders: Sequence[str], split: str | None, found: _Found) -> None:
    if not folders:
        images = found.skipped[NO_CLASS]
        beside = f", and {images:,} image{'s' if images != 1 else ''} without a class" if images else ""
        raise SourceError(f"'{escape_path(top)}' has no class folders{beside}; {_LAYOUT}")
    classes: dict[str, str] = {}
    for folder in folders:
        label = valid_text(folder).strip()
        if not label:
            raise SourceError(f"a folder in '{escape_path(top)}' has a name of nothing but white space; rename it")
        if label in classes:
            both = _quoted([classes[label], folder])
            raise SourceError(f"{both} in '{escape_path(top)}' are the same class, but for white space; rename one")
        classes[label] = folder
        found.folders.append((split, label))
        listing = list_images(SourceOptions((os.path.join(top, folder),)))
        prefix = os.fsencode(folder)
        # The keys are relative to the folder above, because classes may have files of the same name.
        found.samples += [
            Sample(replace(ref, key=prefix + b"/" + ref.key if ref.error is None else ref.key), label, split)
            for ref in listing
        ]
        found.skipped.update(listing.skipped)


def _read_manifest(source: str, path_column: str, label_column: str) -> LabelledImages:
    shown = f"the manifest '{escape_path(source)}'"
    found = _Found()
    with list_images(SourceOptions(manifest=source, path_column=path_column)) as listing:
        names = [column.name for column in listing.extra_columns]
        if valid_text(label_column) not in names:
            listed = _quoted(names) if names else "no column but that of the paths"
            raise SourceError(f"{shown} has no column '{label_column}', only {listed}; name it with --label-column")
        label_at = names.index(valid_text(label_column))
        split_at = names.index(SPLIT) if SPLIT in names else None
        for number, ref in enumerate(listing, start=1):
            where = f"{shown}, image {number} ({ref.path or 'without a path'})"
            if ref.error is not None and ref.extra[label_at] is None:
                raise SourceError(f"{shown} cannot be used: {ref.error.message}; mend it")
            label = _label(ref.extra[label_at], where, label_column)
            split = None if split_at is None else _split(ref.extra[split_at], where)
            # The other columns are not needed, and would take memory for every sample.
            found.samples.append(Sample(replace(ref, extra=()), label, split))
        found.skipped.update(listing.skipped)
    if not found.samples:
        raise SourceError(f"{shown} lists no images")
    labelled = {(sample.ref.path, sample.label) for sample in found.samples}
    several = [path for path, count in Counter(path for path, _ in labelled).items() if count > 1]
    if several:
        log.warning("%s has more than one label for %d of its paths, %s first", shown, len(several), min(several))
    return _checked(source, found)


def _label(value: Any, where: str, column: str) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
        raise SourceError(f"{where}: column '{column}' holds {value!r}, which is no class name; store text or integers")
    label = "" if value is None else valid_text(str(value)).strip()
    if not label:
        raise SourceError(f"{where}: the label is empty; give every image a class, or drop the row")
    return label


def _split(value: Any, where: str) -> str:
    split = _NAMES.get(value.strip().lower()) if isinstance(value, str) else None
    if split is None:
        given = "nothing" if value is None or value == "" else repr(value)
        raise SourceError(f"{where}: the split is {given}; it must be train, validation (or val) or test")
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


def _quoted(names: Iterable[str]) -> str:
    return join_names(f"'{escape_path(name)}'" for name in names)
