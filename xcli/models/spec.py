"""The model that the user asks for: file, weights, labels and sizes, checked as far as possible without a file."""

from __future__ import annotations

from dataclasses import dataclass

from xcli.core.errors import UsageError
from xcli.models.architecture import IMAGE_SIZE, IMAGENET_CLASSES, MIN_SIZE, check_pooling
from xcli.models.folded import INPUT_RANGES


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The model that the user asks for.

    Attributes:
        model: a `.keras` file, or a directory that `xception finetune` made; instead of `weights`.
        weights: `imagenet`, `none` (random) or the path of an HDF5 weights file.
        include_top: with the classifier.
        pooling: of features: `avg`, `max` or None.
        classes: number of classes; None takes those of the weights (1,000 for `imagenet` and `none`).
        labels: a label file.
        image_size: side of the input in pixels; None is 299, or what the model file says.
        input_range: pixel range that a `.keras` file expects: `xception`, `unit` or `raw`; None asks its graph.
        weights_dir, offline, progress: see `locate_imagenet`.
        seed: of random weights.
    """

    model: str | None = None
    weights: str = "imagenet"
    include_top: bool = True
    pooling: str | None = None
    classes: int | None = None
    labels: str | None = None
    image_size: int | None = None
    input_range: str | None = None
    weights_dir: str | None = None
    offline: bool = False
    progress: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_pooling(self.pooling)
        if self.include_top and self.pooling is not None:
            raise UsageError(f"pooling goes only without the top; received pooling={self.pooling!r} with the top")
        if self.classes is not None and self.classes < 1:
            raise UsageError(f"classes must be a positive integer; received {self.classes}")
        if self.input_range not in (None, *INPUT_RANGES):
            raise UsageError(f"the input range is one of {', '.join(INPUT_RANGES)}; received {self.input_range!r}")
        if self.model is not None:
            if self.weights != "imagenet":
                raise UsageError(f"--model and --weights exclude each other; received --weights {self.weights}")
            return
        if self.input_range is not None:
            raise UsageError("--input-range goes with --model: the network itself always takes [-1, 1]")
        size = self.image_size
        if self.include_top and size not in (None, IMAGE_SIZE):
            raise UsageError(
                f"with the top the image size is {IMAGE_SIZE}; received {size}: use features (no top) or --model"
            )
        if size is not None and size < MIN_SIZE:
            raise UsageError(f"the image size must be at least {MIN_SIZE}; received {size}")
        if self.classes is None:
            return
        if not self.include_top:
            raise UsageError(f"classes goes only with the top; received classes={self.classes} without it")
        if self.weights == "imagenet" and self.classes != IMAGENET_CLASSES:
            raise UsageError(
                f"the ImageNet weights have {IMAGENET_CLASSES} classes; received classes={self.classes}: leave "
                "--classes out, or give a network with so many (--model, --weights FILE); finetune makes one"
            )
