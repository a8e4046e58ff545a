"""Xception for directories of images: the network, a loader, and batch inference, from Python.

    from xcli import Xception, load_model, classify, features, export

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xcli.core.version import __version__

if TYPE_CHECKING:
    from xcli.api import classify, export, extract_features, features, load_model
    from xcli.core.errors import XcliError
    from xcli.images.preprocessing import Preprocessing
    from xcli.inference.options import RunOptions
    from xcli.models.network import LoadedModel
    from xcli.models.spec import ModelSpec
    from xcli.models.xception import Xception

_HOMES = {
    "LoadedModel": "models.network",
    "ModelSpec": "models.spec",
    "Preprocessing": "images.preprocessing",
    "RunOptions": "inference.options",
    "Xception": "models.xception",
    "XcliError": "core.errors",
    "classify": "api",
    "export": "api",
    "extract_features": "api",
    "features": "api",
    "load_model": "api",
}

__all__ = [
    "LoadedModel",
    "ModelSpec",
    "Preprocessing",
    "RunOptions",
    "Xception",
    "XcliError",
    "__version__",
    "classify",
    "export",
    "extract_features",
    "features",
    "load_model",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"xcli.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
