"""Files named as sources that list images, but are none themselves: recognised by a look at their heads."""

from __future__ import annotations

import os
import re
from contextlib import suppress

from xcli.core.text import escape_path
from xcli.images.formats import has_image_extension
from xcli.sources.manifests import PARQUET_MAGIC

_EXTENSIONS = frozenset((b"", *b".txt .text .lst .list .csv .tsv .tab .parquet .pq".split()))
_HEAD_BYTES = 4096


def how_to_list(path: bytes) -> str | None:
    """Says how to take the images that a regular file lists; None if it seems to list none."""
    head = b""
    if os.path.splitext(path)[1].lower() in _EXTENSIONS:
        with suppress(OSError), open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    shown = escape_path(os.fsdecode(path))
    if not head.startswith(PARQUET_MAGIC):
        if not any(map(_is_image, re.split(rb"[\0\r\n,;\t]+", head))):
            return None
        if b"\0" in head:
            return f"'{shown}' lists images, and is none itself: - -0 < {shown} takes them"
        if _is_image(head.split(b"\n", 1)[0]):  # a table begins with the names of its columns
            return f"'{shown}' lists images, and is none itself: - < {shown} takes them"
    return f"'{shown}' is a table, not an image: --manifest {shown} takes the images that it lists"


def _is_image(name: bytes) -> bool:
    return has_image_extension(name.strip(b" \r\"'"))
