"""Fine-tuning from labelled images to a finished RUN: activations, training, bundle and report.

Errors that need no computation to be found are raised first. The checkpoints of an unfinished run are in `RUN.partial`,
from which the same command continues; RUN appears when all files in it are complete.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from xcli.analysis.duplicates import DEFAULT_THRESHOLD
from xcli.core.levels import DETAIL
from xcli.core.tensorflow import Precision, choose_devices, kind_of, load_keras, load_tensorflow
from xcli.core.version import __version__, environment, versions
from xcli.evaluation.evaluate import Prediction, evaluate
from xcli.evaluation.report import HISTORY_FILE
from xcli.inference.engines.openvino import requested_device
from xcli.inference.options import AUTO
from xcli.models.loader import load_model
from xcli.sources.splits import TEST
from xcli.storage.atomic import write_atomically
from xcli.tables.provenance import digest
from xcli.training.activation_cache import ActivationCache
from xcli.training.activations import ActivationExtractor
from xcli.training.base_model import BaseModel, read_base_model
from xcli.training.batches import TrainingData, extract_activations
from xcli.training.callbacks import Callbacks
from xcli.training.checkpoints import Checkpoints, TrainingState
from xcli.training.copy_split import divide_by_features, holds_state, read_split, write_split
from xcli.training.optimizer import Replicas
from xcli.training.recipe import Recipe, trained_dtype, training_precision
from xcli.training.run_directory import RunPaths, exclusive, is_finished, publish
from xcli.training.run_result import (
    FineTuneResult,
    data_digest,
    write_new_bundle,
    write_reports,
    write_rows,
    write_split_file,
)
from xcli.training.session import TrainingSession

if TYPE_CHECKING:
    from xcli.evaluation.metrics import Metrics
    from xcli.images.preprocessing import Preprocessing
    from xcli.inference.options import RunOptions
    from xcli.models.network import LoadedModel
    from xcli.models.spec import ModelSpec
    from xcli.sources.labelled import LabelledImages
    from xcli.training.split import Split

HISTORY_PICTURE = "history.png"

log = logging.getLogger("xcli")


@dataclass(frozen=True, slots=True)
class FineTuning:
    """A fine-tuning of a model on labelled images, which writes the bundle and the report.

    Attributes:
        split: the images, as `split_images` has assigned them to parts.
        model: what to start from; its classifier, if it has one, is left out.
        spec: what it was loaded from.
        preprocessing: how images become pixels, here and with the bundle.
        recipe: how to train.
        paths: where to read and write; see `check_paths`.
        options: how to use the machine; its batch size is not used.
        callbacks: called at each stage.
        data: what the split was made of; it is made anew by what the features tell of copies. None keeps the split.
    """

    split: Split
    model: LoadedModel
    spec: ModelSpec
    preprocessing: Preprocessing
    recipe: Recipe
    paths: RunPaths
    options: RunOptions
    callbacks: Callbacks = field(default_factory=Callbacks)
    data: LabelledImages | None = None

    def run(self) -> FineTuneResult:
        """Trains the model and writes RUN.

        Raises:
            SourceError: no training image of a class can be read.
            UsageError: options contradict each other, or an unfinished run had others.
            OutputError: something cannot be written.
            ModelError: the model cannot be trained from.
        """
        load_keras()  # which writes the model in the end, and may refuse the settings that it finds
        devices = choose_devices(requested_device(self.options))
        precision = training_precision(self.options.precision, devices[0])
        base = read_base_model(self.model, self.spec)
        older = self._settings(precision, kind_of(devices[0]))
        settings = older | ({} if self.data is None else {"copies": {"threshold": DEFAULT_THRESHOLD}})
        log.log(
            DETAIL, "training in %s on %s with %s", precision, ", ".join(devices), json.dumps(self.recipe.as_dict())
        )
        if is_finished(self.paths, settings, older):
            return FineTuneResult(self.paths.run)
        if base.labels is not None and base.labels.names != self.split.labels:
            log.warning("the classes of %s differ from those of the data: it gets a new head", self.model.name)
        with exclusive(self.paths) as folder, load_tensorflow().device(devices[0]):
            cache = ActivationCache(self.paths.cache_dir, self.paths.cache_bytes)
            model, preprocessing = self.model, self.preprocessing
            extractor = ActivationExtractor(model, self.recipe, preprocessing, cache, devices, precision, self.options)
            checkpoints = Checkpoints(folder, settings, base.with_head(len(self.split.labels)))
            tuning = self
            if self.data is not None and holds_state(folder, older):
                # An earlier version has begun it, which divided the images by their bytes alone.
                checkpoints = Checkpoints(folder, older, checkpoints.start)
            elif self.data is not None:
                tuning = replace(self, split=self._divided(folder, checkpoints, extractor))
            return tuning._train(base, checkpoints, extractor, precision, devices)

    def _divided(self, folder: str, checkpoints: Checkpoints, extractor: ActivationExtractor) -> Split:
        """Returns the split in which copies are in one part: that of the unfinished run, or a new one."""
        assert self.data is not None
        known = None if checkpoints.load() is None else read_split(folder, self.split)
        if known is not None:
            return known
        images = tuple(one for one in self.split.examples if one.split != TEST)
        plain = extractor.extract([images], self.callbacks)[0]
        split = divide_by_features(self.data, self.split, plain, self.recipe.val_split, self.recipe.seed)
        write_split(folder, split)
        return split

    def _train(
        self,
        base: BaseModel,
        checkpoints: Checkpoints,
        extractor: ActivationExtractor,
        precision: Precision,
        devices: tuple[str, ...],
    ) -> FineTuneResult:
        settings = checkpoints.settings
        state = checkpoints.training_state()
        data = extract_activations(self.split, self.recipe.view_count, extractor, self.callbacks)
        dtype, replicas = trained_dtype(precision), Replicas(devices)
        session = TrainingSession(self.recipe, base, data, dtype, replicas, self.callbacks)
        weights, state = session.train(checkpoints, state)
        record = self._record(settings, data, state)
        folder, labels, dropout = self.paths.bundle, self.split.labels, self.recipe.dropout
        write_new_bundle(folder, base, weights, labels, self.preprocessing, record, dropout)
        self._write_history(state)
        self.callbacks.on_evaluation_begin()
        result = self._evaluate(data, precision)
        publish(self.paths)
        return replace(result, kept=state.kept_epoch)

    def _settings(self, precision: Precision, device: str) -> dict[str, Any]:
        """Returns everything that the weights of a finished run depend on."""
        model, engine = self.model, self.options.named_engine()
        return (
            {
                "version": __version__,
                "versions": versions(*self.preprocessing.packages, *engine.values()),
                "data": data_digest(self.split.examples),
                "labels": list(self.split.labels),
                "model": {"name": model.name, "sha256": model.digest, "input_range": model.input_range},
                "preprocessing": self.preprocessing.as_dict(),
                "recipe": self.recipe.as_dict(),
                "precision": precision,
                "device": device,
            }
            | engine
            | environment()
        )

    def _record(self, settings: dict[str, Any], data: TrainingData, state: TrainingState) -> dict[str, Any]:
        """Returns the members of `run.json`, except the preprocessing that `--model RUN` reads."""
        kept = state.kept_epoch
        return {
            "tool": {"name": "xception-cli", "version": __version__, "command": "finetune"},
            "command_line": self.paths.command_line,
            "fingerprint": digest(settings),
            "source": self.paths.source,
            "images": self.split.counts,
            "unreadable": len(data.errors),
            "skipped": dict(self.split.skipped),
            "settings": settings,
            "epochs": len(state.rows),
            "kept": {"phase": kept.phase, "epoch": kept.epoch} if kept is not None else None,
            "temperature": state.temperature,
            "input": "float32[batch, size, size, 3], raw RGB pixels from 0 to 255, prepared as `preprocessing` says",
        }

    def _write_history(self, state: TrainingState) -> None:
        from xcli.evaluation.plots import history_png

        folder, rows = self.paths.bundle, [asdict(row) for row in state.rows]
        write_rows(folder, HISTORY_FILE, rows)
        write_atomically(os.path.join(folder, HISTORY_PICTURE), history_png(rows, state.kept))
        write_split_file(self.paths, self.split)

    def _evaluate(self, data: TrainingData, precision: Precision) -> FineTuneResult:
        """Evaluates the bundle as `xception evaluate` would, and writes the reports into it."""
        model = load_model(model=self.paths.bundle)
        # TensorFlow is loaded, and OpenVINO would first compile the new model.
        options = replace(self.options, batch_size=None, precision=precision, engine=AUTO)

        def evaluate_part(name: str) -> tuple[Metrics, list[Prediction]]:
            samples = [one.sample for one in self.split.part(name)]
            evaluation = evaluate(samples, model, self.preprocessing, options)
            return evaluation.metrics(), evaluation.predictions()

        unreadable = [(data.images[index], text) for index, text in data.errors.items()]
        return write_reports(self.paths, self.split.counts, evaluate_part, unreadable)
