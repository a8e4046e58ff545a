"""The kinds of findings of an audit, by which images can be left out of a listing too."""

from __future__ import annotations

from xcli.core.errors import UsageError

UNREADABLE, WRONG_LABEL = "unreadable", "wrong-label"
ACROSS_CLASSES, ACROSS_SPLITS, IN_CLASS = "copy-across-classes", "copy-across-splits", "copy-in-class"
OUTLIER, SMALL_CLASS = "outlier", "small-class"
BLANK, BLURRED, DARK, BRIGHT, TINY, ODD_SHAPE = "blank", "blurred", "dark", "bright", "tiny", "odd-shape"

COPY_KINDS = ACROSS_CLASSES, ACROSS_SPLITS, IN_CLASS
FEATURE_KINDS = WRONG_LABEL, *COPY_KINDS, OUTLIER
PICTURE_KINDS = BLANK, BLURRED, DARK, BRIGHT, TINY, ODD_SHAPE

KINDS = UNREADABLE, *FEATURE_KINDS, *PICTURE_KINDS, SMALL_CLASS
"""In the order of the table."""


def parse_kinds(text: str) -> tuple[str, ...]:
    """Reads `KIND,...`.

    Raises:
        UsageError: one is unknown.
    """
    return check_kinds(tuple(part.strip() for part in text.split(",")))


def check_kinds(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Returns kinds of findings; raises UsageError if one is unknown."""
    if unknown := [one for one in kinds if one not in KINDS]:
        raise UsageError(f"{unknown[0]!r} is no kind of finding; these are: {', '.join(KINDS)}")
    return kinds
