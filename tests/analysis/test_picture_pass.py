"""All images of a listing looked at, those that cannot be read among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from xcli.analysis.picture_pass import look_at_pictures
from xcli.core.errors import ImageError
from xcli.sources.locations import file_ref


def test_each_image_has_its_faults_or_its_error(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (200, 300, 3), dtype=np.uint8))
    noise.save(tmp_path / "a.png")
    Image.new("RGB", (400, 100), "white").save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"")
    noise.resize((30, 20)).save(tmp_path / "d.jpg")
    counts = []
    names = ["a.png", "b.png", "c.png", "d.jpg", "gone.png"] * 5
    found = list(
        look_at_pictures(
            (file_ref(bytes(tmp_path / name)) for name in names),
            1,
            lambda images, failed: counts.append((images, failed)),
        )
    )
    assert counts == [(16, 6), (9, 4)]
    outcomes = [one.reason if isinstance(one, ImageError) else [fault.issue for fault in one] for one in found]
    assert outcomes == [[], ["blank", "odd-shape"], "empty", ["tiny"], "missing"] * 5
