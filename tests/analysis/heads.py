"""A head that no training has made, and tables of features that go with it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.analysis.featuretables import PROVENANCE, with_changes, write_features
from xcli.models.head import Head
from xcli.models.labels import Labels

if TYPE_CHECKING:
    from pathlib import Path

WIDTH = 2048
BACKBONE = "b" * 64
MADE = with_changes(model={"backbone": BACKBONE})
"""The provenance of a table that goes with `head`."""


def head(**changes: Any) -> Head:
    """A head of three classes over MADE's network."""
    random = np.random.default_rng(5)
    made = Head(
        name="RUN",
        digest="d" * 64,
        backbone=BACKBONE,
        kernel=random.normal(0, 0.1, (WIDTH, 3)).astype(np.float32),
        bias=np.array([0.1, 0, -0.1], np.float32),
        labels=Labels(("ant", "bee", "cat"), source="RUN/labels.json"),
        preprocessing={**PROVENANCE["preprocessing"], "input_range": "xception"},
        settings={"precision": "float32", "recipe": {"unfreeze": "none"}},
    )
    return replace(made, **changes)


def vectors(count: int, seed: int = 0) -> np.ndarray:
    """Vectors like averaged activations: none is negative."""
    return np.random.default_rng(seed).exponential(0.4, (count, WIDTH)).astype(np.float32)


def table(target: Path, count: int = 20, provenance: dict[str, Any] | None = MADE, **more: Any) -> str:
    """Writes a table of features that goes with `head`; some rows may be of other kinds, see `write_features`."""
    return write_features(target, vectors(count), provenance=provenance, **more)
