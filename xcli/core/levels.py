"""The levels of messages on the logger "xcli".

ERROR    what ends the command; all that -q leaves
WARNING  what may be wrong with the data, the settings or the machine
INFO     what is done: the summary at the end, what is continued, downloaded, finished and up to date; shown without -v
DETAIL   -v: settings, model, sources, batches, each part that is saved, each image that fails
DEBUG    -vv: each batch, and what libraries say
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

DETAIL = 15

logging.addLevelName(DETAIL, "DETAIL")


@contextmanager
def unsaid() -> Iterator[None]:
    """A context for what is done a second time, whose messages are those of the first time; errors are raised."""

    def nothing(_: logging.LogRecord) -> bool:
        return False

    log = logging.getLogger("xcli")
    log.addFilter(nothing)
    try:
        yield
    finally:
        log.removeFilter(nothing)
