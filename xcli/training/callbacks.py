"""What a fine-tuning reports while it is under way: the metrics of each epoch, and calls at each stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xcli.training.activation_cache import ActivationCache
    from xcli.training.recipe import Phase


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """One epoch of the history.

    Attributes:
        phase: name of the phase.
        epoch: number within the phase, from 1.
        learning_rate: at the last step.
        loss, accuracy: over the epoch's training batches, with their augmentation and mixup.
        val_loss, val_accuracy: of the averaged weights at the end of the epoch, without label smoothing; None without
            a validation part.
        seconds: duration.
    """

    phase: str
    epoch: int
    learning_rate: float
    loss: float
    accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    seconds: float

    @property
    def rank(self) -> tuple[float, float] | None:
        """Validation accuracy and negative loss, which is greater for a better epoch; None without validation."""
        if self.val_accuracy is None or self.val_loss is None:
            return None
        return self.val_accuracy, -self.val_loss


class Callbacks:
    """Calls made during a fine-tuning. All of them do nothing here; a subclass overrides what it needs."""

    def on_extraction_begin(self, images: int) -> None:
        """The activations of `images` images, summed over the views, are about to be computed."""

    def on_images_extracted(self, images: int) -> None:
        """The activations of `images` more images have been computed."""

    def on_extraction_end(self, reused: int, views: int, size: int, cache: ActivationCache) -> None:
        """All `views` views are in the cache, `reused` of them from earlier runs; together they take `size` bytes."""

    def on_phase_begin(self, phase: Phase, done: int) -> None:
        """A phase begins, or continues after `done` epochs."""

    def on_step_end(self, step: int, steps: int) -> None:
        """Step `step` of the `steps` of an epoch is done."""

    def on_epoch_end(self, metrics: EpochMetrics, phase: Phase) -> None:
        """An epoch is done."""

    def on_evaluation_begin(self) -> None:
        """The finished model is about to be evaluated on the images that it was not trained on."""
