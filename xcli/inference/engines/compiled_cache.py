"""The cache of compiled models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xcli.storage.model_cache import CacheEntry, ModelCache, user_folder

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_LIMIT = 1 << 30
"""Bytes of all models together: some ten of Xception, of 83 MB each."""

CompiledModel = CacheEntry
"""Its content is of its engine's own format."""


def default_folder() -> Path | None:
    """Returns the directory of the models of this user; None where there is no home directory."""
    return user_folder("openvino")


class CompiledCache(ModelCache):
    """Compiled models in a directory; see `ModelCache`."""

    def __init__(self, folder: Path | None, limit: int = DEFAULT_LIMIT) -> None:
        super().__init__(folder, "compiled model", limit)
