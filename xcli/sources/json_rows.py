"""The rows of JSON lines, none of which fills the memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, BinaryIO

from xcli.core.text import valid_text

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_LINE = 1 << 24  # bytes; of a table of `classify` with all scores of 100,000 classes


def json_rows(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """Yields the object of each line that is not empty, texts without lone surrogates.

    Raises:
        ValueError: a line is no object, or is too long. OSError: the file cannot be read.
    """
    for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE), b""), 1):
        if len(line) == _MAX_LINE:
            raise ValueError(f"line {number} is too long")
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            if not isinstance(value, dict):
                raise ValueError("it is no object")
            yield {valid_text(name): valid_text(one) if isinstance(one, str) else one for name, one in value.items()}
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number}: {error}") from None
