"""What is said, and what is not said twice."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from xcli.core.levels import unsaid

if TYPE_CHECKING:
    import pytest


def test_what_is_done_a_second_time_is_not_said_again(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("xcli")
    log.warning("before")
    with unsaid():
        log.warning("within")
    log.warning("after")
    assert [record.message for record in caplog.records] == ["before", "after"]
