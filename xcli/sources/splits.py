"""The parts of a data set, and the names that data sets give to their folders and `split` values."""

from __future__ import annotations

import re

TRAIN, VALIDATION, TEST = SPLITS = "train", "validation", "test"
"""Values of `Sample.split`."""

_PARTS = {
    TRAIN: ("train", "training"),
    VALIDATION: ("val", "valid", "validation", "dev", "eval"),
    TEST: ("test", "testing", "holdout", "hold out"),
}
_SPLIT_OF = {name: split for split, names in _PARTS.items() for name in names}
# Such as `train_set`, `Test-Split`, `valset`, `val2017`, `images_train` and `test 1`.
_ADDED = r"(?:set|split|data|images?|imgs?)"
_NAME = re.compile(rf"(?:{_ADDED}[ _-])?(.+?)(?:[ _-]?{_ADDED})?(?:[ _-]?[0-9]+)?")


def split_of_name(name: str) -> str | None:
    """Returns which of `SPLITS` a folder's name or a `split` value means; None for any other text."""
    match = _NAME.fullmatch(name.strip().lower())
    return None if match is None else _SPLIT_OF.get(re.sub("[_-]", " ", match[1]))
