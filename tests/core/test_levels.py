"""What is said, and what is not said twice."""

from __future__ import annotations

import logging

import pytest

from xcli.core.levels import unsaid


def test_what_is_done_a_second_time_is_not_said_again(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("xcli")
    log.warning("before")
    with pytest.raises(ValueError, match="raised"), unsaid():
        log.warning("within")
        raise ValueError("raised")
    log.warning("after")
    assert [record.message for record in caplog.records] == ["before", "after"]
