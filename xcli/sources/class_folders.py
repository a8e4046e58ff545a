"""The layout of a data set in directories: which folders are splits, which are classes, and which are neither."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xcli.core.errors import SourceError
from xcli.core.shortage import patiently
from xcli.core.text import escape_path, join_names
from xcli.images.formats import has_image_extension
from xcli.sources.archives.members import LINK
from xcli.sources.directories import look_at
from xcli.sources.patterns import not_image_reason
from xcli.sources.splits import split_of_name
from xcli.sources.system_folders import SYSTEM_FOLDER, is_system_folder
from xcli.storage import disk

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Sequence

LAYOUT = "give a directory with a folder for each class, one with train/ and validation/ of such, or a manifest"

NO_CLASS = "without a class folder"
"""The reason under which images in no class folder are counted."""

# Folders that programs make beside data, and in which pictures may lie.
_NOT_CLASSES = frozenset("runs run logs log output outputs results checkpoints weights models".split())

log = logging.getLogger("xcli")


@dataclass(frozen=True, slots=True)
class Shape:
    """What lies directly in a folder, hidden and system folders apart.

    Attributes:
        folders: all of them if there is no image, else perhaps some.
        has_images: whether there is an image.
    """

    folders: frozenset[str]
    has_images: bool

    @property
    def deep(self) -> bool:
        """Whether it holds folders, and no image itself."""
        return bool(self.folders) and not self.has_images


def list_folders(
    top: str, skipped: Counter[str], *, include_system: bool = False, no_follow: bool = False
) -> list[str]:
    """Returns the folders in a directory, by the bytes of their names; counts the other entries.

    Raises:
        SourceError: the directory cannot be listed.
    """
    try:
        names = sorted(patiently(lambda: disk.system.listdir(os.fsencode(top))))
    except OSError as error:
        raise SourceError(f"cannot list '{escape_path(top)}': {error.strerror}; {LAYOUT}") from None
    folders = []
    for name in names:
        if name.startswith(b"."):
            skipped["hidden"] += 1
            continue
        path = os.path.join(os.fsencode(top), name)
        if no_follow and os.path.islink(path):
            skipped[LINK] += 1
            continue
        is_directory, problem = look_at(path)
        if is_directory and is_system_folder(name) and not include_system:
            skipped[SYSTEM_FOLDER] += 1
        elif is_directory:
            folders.append(os.fsdecode(name))
        elif has_image_extension(name):
            skipped[NO_CLASS] += 1
        elif problem and problem.reason != "not-a-file":
            skipped["broken symlink"] += 1
        else:
            skipped[not_image_reason(name)] += 1
    return folders


def shape_of(folder: str) -> Shape:
    """Looks at a folder; one that cannot be listed is empty, and becomes an error where it is read."""
    folders, has_images = set(), False
    try:
        with patiently(lambda: disk.system.scandir(folder)) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.add(entry.name)
                elif has_image_extension(os.fsencode(entry.name)):
                    has_images = True
                    break  # a class may have millions
    except OSError:
        pass
    return Shape(frozenset(name for name in folders if not is_system_folder(os.fsencode(name))), has_images)


def find_splits(source: str, folders: Sequence[str]) -> dict[str, str]:
    """Returns the folder of each split; nothing if the folders are classes: `train` may also be a kind of vehicle.

    Raises:
        SourceError: folders of splits and other folders lie side by side, or a split is there twice.
    """
    named = [folder for folder in folders if split_of_name(folder) is not None]
    others = [folder for folder in folders if folder not in named]
    if named and others:
        deep = [folder for folder in named if shape_of(os.path.join(source, folder)).deep]
        if not deep:
            log.warning(
                "in '%s', %s %s taken for %s, like %s: give a manifest if that is wrong",
                escape_path(source),
                quoted(named),
                "is" if len(named) == 1 else "are",
                "a class" if len(named) == 1 else "classes",
                quoted(others),
            )
            return {}
        raise SourceError(
            f"'{escape_path(source)}' has {quoted(named)} with folders in {'it' if len(named) == 1 else 'them'}, and "
            f"{quoted(others)} besides: move those away, give one of the splits, or give a manifest"
        )
    splits: dict[str, str] = {}
    for folder in named:
        split = split_of_name(folder)
        assert split is not None
        if split in splits:
            raise SourceError(
                f"'{escape_path(source)}' has both {quoted([splits[split], folder])}, which is the same split twice; "
                "keep one of them"
            )
        splits[split] = folder
    return splits


def check_classes(top: str, folders: Sequence[str]) -> None:
    """Looks whether folders can be classes, and warns of those that are unlike all others.

    Raises:
        SourceError: all hold the same folders, so these are the classes.
    """
    shapes = {folder: shape_of(os.path.join(top, folder)) for folder in folders}
    deep = [folder for folder, shape in shapes.items() if shape.deep]
    if len(folders) > 1 and len(deep) == len(folders):
        common = sorted(frozenset.intersection(*(shape.folders for shape in shapes.values())))
        if len(common) > 1:
            raise SourceError(
                f"the folders {quoted(folders)} in '{escape_path(top)}' are no classes, because each holds the same "
                f"folders: {quoted(common)}. Give one of them; name them train, validation and test if that is what "
                "they are; or give a manifest with the columns path and label"
            )
    odd = deep if 2 * len(deep) < len(folders) else []
    odd = [folder for folder in folders if folder in odd or (folder.lower() in _NOT_CLASSES and len(folders) > 2)]
    if odd:
        log.warning(
            "in '%s', %s is taken for a class, but looks unlike the other folders; move it away if it is none",
            escape_path(top),
            quoted(odd),
        )


def quoted(names: Iterable[str]) -> str:
    """Quotes names for a message, which shows the first ten."""
    return join_names(f"'{escape_path(name)}'" for name in names)
