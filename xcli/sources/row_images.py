"""From the column `path` of a table back to the images of its rows."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from xcli.core.errors import ImageError, XcliError
from xcli.core.text import unescape_path
from xcli.sources.archives.listing import SEPARATOR, Archives
from xcli.sources.locations import file_ref, unlisted_object_ref
from xcli.sources.patterns import PathFilter
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xcli.core.records import ImageRef


def row_images(paths: Iterable[str], images: str | None = None) -> Iterator[ImageRef]:
    """Yields the references to the images of rows; what is wrong with a path is the error of its reference.

    Args:
        paths: as the column has them.
        images: the directory in which local images are looked for; None is where their paths say.
    """
    archives = Archives(PathFilter(system=True), Counter())
    for text in paths:
        yield _row_image(text, images, archives)


def _row_image(text: str, images: str | None, archives: Archives) -> ImageRef:
    try:
        path = unescape_path(text)
        if is_url(path) and images is None:
            return archives.member(os.fsencode(path)) or unlisted_object_ref(path)
        if images is not None:
            path = _moved(path, images)
        encoded = os.fsencode(path)
        is_member = SEPARATOR in path and not os.path.lexists(path)
        return (archives.member(encoded) if is_member else None) or file_ref(encoded)
    except (XcliError, ValueError) as error:  # a damaged path, or packages that are missing
        return file_ref(b"?", error=ImageError("unreadable", str(error)))


def _moved(path: str, folder: str) -> str:
    """Returns where an image is in the folder: at the longest end of its path that exists there.

    No part of a path leads out of the folder: `.` and `..` are left out.
    """
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    for start in range(len(parts)):
        candidate = os.path.join(folder, *parts[start:])
        archive = candidate.partition(SEPARATOR)[0]
        if os.path.lexists(candidate) or (archive != candidate and os.path.lexists(archive)):
            return candidate
    return os.path.join(folder, *parts)
