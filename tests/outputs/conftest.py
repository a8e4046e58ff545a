"""Networks that are traced once for all tests."""

from tests.tracedonce import traced_once  # noqa: F401 - a fixture
