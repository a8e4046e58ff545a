"""The recipe of a fine-tuning: its settings with their defaults, and the phases of training that they give."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from xcli.core.errors import UsageError
from xcli.core.process import has_bfloat16
from xcli.core.tensorflow import Precision, choose_precision
from xcli.training.augmentation import MAX_VIEWS, Augmentation
from xcli.training.freezing import cut_below
from xcli.training.optimizer import StepOptions

if TYPE_CHECKING:
    from collections.abc import Callable

CLASS_WEIGHTS = ("none", "auto")
MAX_EPOCHS = 10_000

HEAD, BLOCKS = "head", "blocks"
"""Names of the phases."""

HEAD_EPOCHS, HEAD_RATE = 15, 3e-3
BLOCK_EPOCHS, BLOCK_RATE = 8, 3e-4
"""Defaults of the two phases."""

HEAD_VIEWS, BLOCK_VIEWS = 2, 4
"""Views of an image for the head alone, and if blocks are trained too, which would overfit fewer views."""

_WARMUP = 1.0
"""Epochs over which the learning rate rises."""

_AVERAGE = 0.99
"""Decay by step of the running average of the weights, which so spans about the last hundred steps."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training with one learning rate schedule.

    Attributes:
        name: `head` or `blocks`.
        epochs: at most so many.
        rate: highest learning rate.
        warmup: epochs, which need not be whole, over which the rate rises to it.
        patience: epochs without an improvement after which the phase ends.
        batch_size: examples in a step.
        mixup: see `TrainingSet.epoch`; 0 turns it off.
        step: settings of a step.
    """

    name: str
    epochs: int
    rate: float
    warmup: float
    patience: int
    batch_size: int
    mixup: float = 0.0
    step: StepOptions = field(default_factory=StepOptions)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train.

    Attributes:
        unfreeze: what is trained besides the head; see `xcli.training.freezing`.
        views: views of each image, which are computed once and trained on in turn; None is the default.
        augmentation: how views differ.
        val_split: share of each class to split off for validation, if the data have no validation part.
        epochs: of the unfrozen blocks, or of the head if nothing is unfrozen; None is the default of either.
        head_epochs: of the head before the blocks; None is the default.
        learning_rate: the highest of the unfrozen blocks, or of the head if nothing is unfrozen; None is the default.
        head_learning_rate: the highest of the head before the blocks; None is the default.
        label_smoothing, dropout, weight_decay: see `StepOptions`.
        mixup: see `TrainingSet.epoch`; 0 turns it off.
        class_weights: `auto` gives rare classes more weight (see `balanced_weights` in batches), `none` does not.
        batch_size: examples in a step.
        patience: epochs without an improvement after which a phase ends.
        calibrate: divide the logits by a temperature fitted on the validation images.
        seed: of all random numbers.
    """

    unfreeze: str = "block13"
    views: int | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    val_split: float = 0.1
    epochs: int | None = None
    head_epochs: int | None = None
    learning_rate: float | None = None
    head_learning_rate: float | None = None
    label_smoothing: float = 0.1
    dropout: float = 0.3
    weight_decay: float = 0.0
    mixup: float = 0.2
    class_weights: str = "none"
    batch_size: int = 32
    patience: int = 5
    calibrate: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        cut_below(self.unfreeze)
        self._require(("label_smoothing", "dropout"), lambda value: 0 <= value < 1, "from 0 to below 1")
        self._require(("learning_rate", "head_learning_rate"), lambda value: 0 < value <= 1, "above 0 and at most 1")
        self._require(("mixup", "weight_decay"), lambda value: 0 <= value <= 100, "from 0 to 100")
        self._require(("views",), lambda value: 1 <= value <= MAX_VIEWS, f"from 1 to {MAX_VIEWS}")
        self._require(("epochs", "head_epochs"), lambda value: 1 <= value <= MAX_EPOCHS, f"from 1 to {MAX_EPOCHS}")
        if self.class_weights not in CLASS_WEIGHTS:
            raise UsageError(
                f"--class-weights must be one of {', '.join(CLASS_WEIGHTS)}; received {self.class_weights!r}"
            )
        if self.unfreeze == "none" and (self.head_epochs is not None or self.head_learning_rate is not None):
            raise UsageError(
                "--head-epochs and --head-learning-rate are for the head before unfrozen blocks; with --unfreeze none "
                "give --epochs and --learning-rate"
            )

    def _require(self, names: tuple[str, ...], valid: Callable[[float], bool], meaning: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and not valid(value):
                raise UsageError(f"--{name.replace('_', '-')} must be {meaning}; received {value:g}")

    @property
    def view_count(self) -> int:
        """Number of views to compute, the plain one included."""
        views = self.views or (HEAD_VIEWS if self.unfreeze == "none" else BLOCK_VIEWS)
        return self.augmentation.distinct(views)

    def phases(self) -> tuple[Phase, ...]:
        """Returns the phases of training, in order: the head alone, then the unfrozen blocks together with it."""
        step = StepOptions(self.label_smoothing, self.dropout, self.weight_decay, _AVERAGE)
        rest = (_WARMUP, self.patience, self.batch_size, self.mixup, step)
        if self.unfreeze == "none":
            return (Phase(HEAD, self.epochs or HEAD_EPOCHS, self.learning_rate or HEAD_RATE, *rest),)
        head = Phase(HEAD, self.head_epochs or HEAD_EPOCHS, self.head_learning_rate or HEAD_RATE, *rest)
        return (head, Phase(BLOCKS, self.epochs or BLOCK_EPOCHS, self.learning_rate or BLOCK_RATE, *rest))

    def as_dict(self) -> dict[str, Any]:
        """Returns JSON's types, with the number of views and the phases that result."""
        phases = [asdict(phase) for phase in self.phases()]
        return {**asdict(self), "views": self.view_count, "phases": phases}


def training_precision(request: str, device: str) -> Precision:
    """Resolves `--precision` for the frozen part.

    `auto` is bfloat16 on a CPU with bfloat16 instructions, and otherwise as for other commands. It doubles the speed,
    and the features differ from those of float32 by far less than those of two views of an image differ.

    Raises:
        UsageError: the device cannot compute in that precision.
    """
    if request == "auto" and device.startswith("/CPU") and has_bfloat16():
        return "bfloat16"
    return choose_precision(request, device)


def trained_dtype(precision: Precision) -> str:
    """Returns the dtype of the arithmetic in the trained layers: bfloat16 with bfloat16, else float32.

    float16 would need loss scaling; TF32 is float32 with rounded products.
    """
    return "bfloat16" if precision == "bfloat16" else "float32"
