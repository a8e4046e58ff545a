"""What the tests of images share."""

from __future__ import annotations

import pytest
from PIL import Image

from xcli.images import decoders


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `load_decoders` sets in the process as it is at the start of a program; pytest resets a part of it."""
    decoders.load_decoders.cache_clear()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)
