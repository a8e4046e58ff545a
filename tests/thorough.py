"""What the daily tests leave out, since it takes long; `make test-faults` runs it too."""

from __future__ import annotations

import os

import pytest

WHOLE = os.environ.get("TEST_FAULTS") == "all"
"""Whether everything is to be tried, and not what fits into the daily tests."""

thorough = pytest.mark.skipif(not WHOLE, reason="takes long: make test-faults")

across_versions = pytest.mark.skipif(
    not WHOLE and "ACROSS_VERSIONS" not in os.environ, reason="takes long: make test-oldest, test-newest, test-faults"
)

SLOW = WHOLE or not {"TEST_SLOW", "ACROSS_VERSIONS"}.isdisjoint(os.environ)
"""Whether tests with the mark `slow` run; `make test` leaves them out, and CI runs `make test-slow` behind it."""

slow = pytest.mark.slow
