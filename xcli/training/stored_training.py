"""`finetune --from-features`: a head trained on stored features, and the ordinary RUN that it becomes.

No pixels are read but those of the mistakes that a picture shows. The network below the head is that of the features,
so that the bundle takes pixels, too. A training takes seconds; one that was interrupted begins again.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from xcli.core.version import __version__, versions
from xcli.evaluation.evaluate import Evaluation, Prediction
from xcli.evaluation.plots import MAX_MISTAKES
from xcli.evaluation.report import worst_mistakes
from xcli.inference.recorded import recorded_features
from xcli.models.head import Head
from xcli.models.labels import Labels
from xcli.sources.row_images import row_images
from xcli.sources.splits import TEST, TRAIN, VALIDATION
from xcli.tables.provenance import digest
from xcli.training.base_model import read_base_model
from xcli.training.batches import balanced_weights
from xcli.training.checkpoints import Checkpoints, TrainingState
from xcli.training.head_fit import FittedHead, Trial, Vectors, fit_head
from xcli.training.run_directory import RunPaths, exclusive, is_finished, publish
from xcli.training.run_result import (
    FineTuneResult,
    data_digest,
    write_new_bundle,
    write_reports,
    write_rows,
    write_split_file,
)
from xcli.training.session import apply_temperature, fit_temperature

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from xcli.analysis.stored import StoredFeatures
    from xcli.evaluation.metrics import Metrics
    from xcli.models.network import LoadedModel
    from xcli.models.spec import ModelSpec
    from xcli.training.labelled_rows import LabelledRows
    from xcli.training.split import Split

TRIALS_FILE = "regularisation.csv"

log = logging.getLogger("xcli")


@dataclass(frozen=True, slots=True)
class HeadRecipe:
    """How to train a head on stored features.

    Attributes:
        val_split, class_weights, calibrate, seed: as in `Recipe`.
    """

    val_split: float = 0.1
    class_weights: str = "none"
    calibrate: bool = True
    seed: int = 0


@dataclass(frozen=True, slots=True)
class HeadTraining:
    """A training of a head, which writes the bundle and the report.

    Attributes:
        stored: the tables.
        rows: those that have a label.
        spec: where the network is looked for.
        chosen: whether the network is that of the spec, instead of the one that the tables name.
        recipe: how to train.
        paths: where to write; see `check_paths`.
        on_trial: called after each regression.
    """

    stored: StoredFeatures
    rows: LabelledRows
    spec: ModelSpec
    chosen: bool
    recipe: HeadRecipe
    paths: RunPaths
    on_trial: Callable[[Trial], object] = lambda trial: None

    def run(self) -> FineTuneResult:
        """Trains the head and writes RUN.

        Raises:
            SourceError, UsageError: the rows cannot be split.
            ModelError: the network of the features is not found.
            OutputError: something cannot be written.
        """
        recorded = recorded_features(self.stored.readers[0])
        model = recorded.load(self.spec, chosen=self.chosen)
        settings = self._settings(model)
        if is_finished(self.paths, settings):
            return FineTuneResult(self.paths.run)
        split, copies = self.rows.split(self.recipe.val_split, self.recipe.seed)
        log.info(
            "%s of %s rows are copies of others; copies are in one part", f"{copies:,}", f"{len(split.examples):,}"
        )
        with exclusive(self.paths) as folder:
            checkpoints = Checkpoints(folder, settings)
            checkpoints.load()
            checkpoints.commit(asdict(TrainingState()), set())
            fitted = self._fit(split)
            log.info("regularisation 1/%g, of %d tried", fitted.trials[fitted.kept].strength, len(fitted.trials))
            head, temperature = self._calibrated(split, fitted, model)
            record = self._record(settings, split, fitted, temperature, copies)
            self._write_bundle(model, head, record)
            self._write_tables(split, fitted)
            result = self._evaluate(split, head)
            publish(self.paths)
            return result

    def _settings(self, model: LoadedModel) -> dict[str, Any]:
        """Returns everything that the head depends on."""
        made = self.stored.provenance
        return {
            "version": __version__,
            "versions": versions("scipy"),
            "data": data_digest(self.rows.examples),
            "labels": list(self.rows.labels),
            "model": {"name": model.name, "sha256": model.digest, "input_range": model.input_range},
            "features": self.stored.described(),
            "preprocessing": made["preprocessing"],
            "recipe": {"unfreeze": "none", **asdict(self.recipe)},
            "precision": made["precision"],
            "device": made["device"],
        }

    def _record(
        self, settings: dict[str, Any], split: Split, fitted: FittedHead, temperature: float, copies: int
    ) -> dict[str, Any]:
        """Returns the members of `run.json`, except the preprocessing that `--model RUN` reads."""
        return {
            "tool": {"name": "xception-cli", "version": __version__, "command": "finetune"},
            "command_line": self.paths.command_line,
            "fingerprint": digest(settings),
            "source": self.paths.source,
            "images": split.counts,
            "copies": copies,
            "unreadable": len(self.rows.errors),
            "unlabelled": self.rows.unlabelled,
            "settings": settings,
            "regularisation": asdict(fitted.trials[fitted.kept]),
            "temperature": temperature,
            "input": "float32[batch, size, size, 3], raw RGB pixels from 0 to 255, prepared as `preprocessing` says",
        }

    def _part(self, split: Split, *parts: str) -> NDArray[np.int64]:
        """Returns the indices of the rows of some parts that have vectors."""
        import numpy as np

        found = [index for index, one in enumerate(split.examples) if one.split in parts and one.error is None]
        return np.array(found, np.int64)

    def _vectors(self, split: Split, part: str) -> Vectors:
        import numpy as np

        numbers = {label: number for number, label in enumerate(split.labels)}
        rows = self._part(split, part)
        classes = np.array([numbers[split.examples[index].sample.label] for index in rows.tolist()], np.int64)
        return Vectors(self.rows.values[rows], classes)

    def _fit(self, split: Split) -> FittedHead:
        import numpy as np

        training, count = self._vectors(split, TRAIN), len(split.labels)
        weights = np.ones(count, np.float32)
        if self.recipe.class_weights == "auto":
            weights = balanced_weights(training.classes, count)
        return fit_head(training, self._vectors(split, VALIDATION), count, weights, self.on_trial)

    def _calibrated(self, split: Split, fitted: FittedHead, model: LoadedModel) -> tuple[Head, float]:
        """Returns the head, with the temperature that was fitted to the validation rows, and this; 1 is none."""
        head = Head(
            name=self.paths.run,
            digest="",
            backbone=model.backbone,
            kernel=fitted.kernel,
            bias=fitted.bias,
            labels=Labels(split.labels, source=self.paths.run),
            preprocessing={},
            settings={},
        )
        if not self.recipe.calibrate:
            return head, 1.0
        judged = self._vectors(split, VALIDATION)
        temperature = fit_temperature(head.scores(judged.values), judged.classes)
        scaled = apply_temperature(head.weights(), temperature)
        return head.with_weights(scaled), temperature

    def _write_bundle(self, model: LoadedModel, head: Head, record: dict[str, Any]) -> None:
        random = model.digest.removeprefix("random-") if model.path is None else ""
        base = read_base_model(model, replace(self.spec, seed=int(random)) if random else self.spec)
        preprocessing = recorded_features(self.stored.readers[0]).preprocessing
        write_new_bundle(self.paths.bundle, base, head.weights(), head.labels.names, preprocessing, record)

    def _write_tables(self, split: Split, fitted: FittedHead) -> None:
        write_rows(self.paths.bundle, TRIALS_FILE, [asdict(trial) for trial in fitted.trials])
        write_split_file(self.paths, split)

    def _evaluate(self, split: Split, head: Head) -> FineTuneResult:
        """Writes the reports into the bundle: of the validation rows, else of the training rows, and of a test part."""
        examples = [one for one in split.examples if one.split != TEST]
        unreadable = [(one, str(one.error)) for one in examples if one.error is not None]
        return write_reports(self.paths, split.counts, partial(self._evaluate_part, split, head), unreadable)

    def _evaluate_part(self, split: Split, head: Head, part: str) -> tuple[Metrics, list[Prediction]]:
        import numpy as np

        indices = [index for index, one in enumerate(split.examples) if one.split == part]
        numbers = {label: number for number, label in enumerate(split.labels)}
        samples = tuple(split.examples[index].sample for index in indices)
        evaluation = Evaluation(
            samples=samples,
            true=np.array([numbers[sample.label] for sample in samples], np.int64),
            scores=np.nan_to_num(head.scores(self.rows.values[indices])),
            errors=tuple(None if (found := split.examples[index].error) is None else str(found) for index in indices),
            labels=split.labels,
        )
        return evaluation.metrics(), _with_images(evaluation.predictions())


def _with_images(predictions: list[Prediction]) -> list[Prediction]:
    """Returns predictions of which the mistakes that a picture will show know where their images may be."""
    shown = {id(one) for one in worst_mistakes(predictions)[:MAX_MISTAKES]}
    refs = row_images(one.ref.path for one in predictions if id(one) in shown)
    return [
        replace(one, ref=replace(next(refs), path=one.ref.path)) if id(one) in shown else one for one in predictions
    ]
