"""Lets timm be imported beside a torchvision whose compiled operators do not fit the installed PyTorch.

timm's image pipeline needs none of these operators, but torchvision refuses to be imported when they are missing.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

_kept: list[Any] = []
"""A library of operators is there as long as its object is."""


def import_timm() -> Any:
    """timm, after declaring the operators that torchvision looks for, where its own are missing."""
    import torch

    spec = find_spec("torchvision")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    if folder is not None and not _loads(torch, folder):
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
    import timm

    return timm


def _loads(torch: Any, folder: Path) -> bool:
    for file in folder.glob("_C*.so"):
        try:
            torch.ops.load_library(str(file))
        except OSError:  # built for another PyTorch
            continue
        return True
    return False
