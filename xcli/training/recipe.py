"""What a user can say of a fine-tuning, with the defaults, and the phases of training that follow from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from xcli.core.errors import UsageError
from xcli.core.process import has_bfloat16
from xcli.core.tensorflow import choose_precision
from xcli.training.augmentation import MAX_VIEWS, Augmentation
from xcli.training.freezing import cut_below
from xcli.training.optimizer import StepOptions
from xcli.training.trainer import Phase

if TYPE_CHECKING:
    from xcli.core.tensorflow import Precision

CLASS_WEIGHTS = ("none", "auto")
MAX_EPOCHS = 10_000

HEAD, BLOCKS = "head", "blocks"
"""Names of the phases."""

HEAD_EPOCHS, HEAD_RATE = 15, 3e-3
BLOCK_EPOCHS, BLOCK_RATE = 8, 3e-4
"""Defaults of the two phases."""

HEAD_VIEWS, BLOCK_VIEWS = 2, 4
"""Views of an image: for the head alone, and where blocks are trained too and have more to learn by heart."""

_WARMUP = 1.0
"""Epochs over which the learning rate rises."""

_AVERAGE = 0.99
"""Decay of the running average of the weights, a step: it spans the last hundred steps."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train.

    Attributes:
        unfreeze: what is trained besides the head; see `xcli.training.freezing`.
        views: views of each image that are computed once and trained on in turn; None is the default.
        augmentation: how views differ.
        val_split: share of each class to split off for validation, where the data have no such part.
        epochs: of the unfrozen blocks, or of the head where nothing is unfrozen; None is the default of either.
        head_epochs: of the head before the blocks; None is the default.
        learning_rate: the highest of the unfrozen blocks, or of the head where nothing is unfrozen; None likewise.
        head_learning_rate: the highest of the head before the blocks; None likewise.
        label_smoothing: see `StepOptions`.
        dropout: likewise.
        weight_decay: likewise.
        mixup: see `TrainingSet.epoch`; 0 mixes nothing.
        class_weights: `auto` gives rare classes more weight (see `balanced_weights` in batches), `none` does not.
        batch_size: examples in a step.
        patience: epochs without a better one after which a phase ends.
        calibrate: divide the logits by a temperature fitted on the validation images.
        seed: of everything that is random.
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
        for name in ("label_smoothing", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise UsageError(f"--{option} is a share from 0 to below 1; received {getattr(self, name):g}")
        for name in ("learning_rate", "head_learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                option = name.replace("_", "-")
                raise UsageError(f"--{option} is above 0 and at most 1; received {value:g}")
        for name in ("mixup", "weight_decay"):
            if not 0 <= getattr(self, name) <= 100:
                option = name.replace("_", "-")
                raise UsageError(f"--{option} is from 0 to 100; received {getattr(self, name):g}")
        if self.views is not None and not 1 <= self.views <= MAX_VIEWS:
            raise UsageError(f"--views is from 1 to {MAX_VIEWS}; received {self.views}")
        for name in ("epochs", "head_epochs"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MAX_EPOCHS:
                option = name.replace("_", "-")
                raise UsageError(f"--{option} is from 1 to {MAX_EPOCHS}; received {value}")
        if self.class_weights not in CLASS_WEIGHTS:
            raise UsageError(f"--class-weights is one of {', '.join(CLASS_WEIGHTS)}; received {self.class_weights!r}")
        if self.unfreeze == "none" and (self.head_epochs is not None or self.head_learning_rate is not None):
            raise UsageError(
                "--head-epochs and --head-learning-rate are for the head before unfrozen blocks; with --unfreeze none "
                "give --epochs and --learning-rate"
            )

    @property
    def view_count(self) -> int:
        """Views that are worth computing, the plain one included."""
        views = self.views or (HEAD_VIEWS if self.unfreeze == "none" else BLOCK_VIEWS)
        return self.augmentation.distinct(views)

    def phases(self) -> tuple[Phase, ...]:
        """The phases of training, in order: the head, and the unfrozen blocks with it."""
        if self.unfreeze == "none":
            return (self._phase(HEAD, self.epochs or HEAD_EPOCHS, self.learning_rate or HEAD_RATE),)
        head = self._phase(HEAD, self.head_epochs or HEAD_EPOCHS, self.head_learning_rate or HEAD_RATE)
        return (head, self._phase(BLOCKS, self.epochs or BLOCK_EPOCHS, self.learning_rate or BLOCK_RATE))

    def _phase(self, name: str, epochs: int, rate: float) -> Phase:
        step = StepOptions(self.label_smoothing, self.dropout, self.weight_decay, _AVERAGE)
        return Phase(name, epochs, rate, _WARMUP, self.patience, self.batch_size, self.mixup, step)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; with the phases as they come out."""
        phases = [asdict(phase) for phase in self.phases()]
        return {**asdict(self), "views": self.view_count, "phases": phases}


def training_precision(request: str, device: str) -> Precision:
    """Resolves `--precision` for the frozen part.

    As everywhere, except that `auto` is bfloat16 on a CPU with instructions for it: at twice the speed, the features
    then differ from those of float32 by far less than those of one view differ from those of another.

    Raises:
        UsageError: the device cannot compute in that precision.
    """
    if request == "auto" and device.startswith("/CPU") and has_bfloat16():
        return "bfloat16"
    return choose_precision(request, device)


def trained_dtype(precision: Precision) -> str:
    """Type of the arithmetic in the trained layers: bfloat16 with bfloat16, else float32.

    float16 would need its losses scaled; TF32 is float32 on a GPU that rounds its products.
    """
    return "bfloat16" if precision == "bfloat16" else "float32"
