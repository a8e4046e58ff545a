"""Fine-tuning from end to end: data, split, activations, phases of training, bundle and report.

What can be found wrong without computing is found first. While a run is under way its checkpoints live in `RUN.partial`
and the same command goes on from there; RUN appears when everything in it is whole.
"""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from xcli.core.errors import OutputError, UsageError
from xcli.core.tensorflow import choose_devices, kind_of, load_tensorflow
from xcli.core.text import one_line
from xcli.core.version import __version__, versions
from xcli.evaluation.evaluate import Prediction, evaluate
from xcli.evaluation.report import is_within, write_report
from xcli.inference.options import RunOptions
from xcli.models.bundle import BUNDLE_RECIPE, build_model, write_bundle
from xcli.models.loader import load_model
from xcli.sources.labelled import TEST, TRAIN, VALIDATION
from xcli.storage.atomic import write_atomically
from xcli.storage.locks import FileLock
from xcli.storage.streams import write_errors
from xcli.storage.urls import is_url
from xcli.tables.csv import write_csv
from xcli.tables.provenance import digest
from xcli.training.activation_cache import ActivationCache, default_cache_dir
from xcli.training.activations import ActivationExtractor
from xcli.training.base_model import read_base_model
from xcli.training.checkpoints import Checkpoints, prepare_folder
from xcli.training.distribution import Replicas
from xcli.training.freezing import cut_below
from xcli.training.recipe import Recipe, trained_dtype, training_precision
from xcli.training.session import Callbacks, TrainingSession

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xcli.evaluation.evaluate import Evaluation
    from xcli.evaluation.metrics import Metrics
    from xcli.images.preprocessing import Preprocessing
    from xcli.models.hdf5_weights import Weights
    from xcli.models.network import LoadedModel
    from xcli.models.spec import ModelSpec
    from xcli.training.split import Split
    from xcli.training.trainer import EpochMetrics, TrainingState

PARTIAL, BUNDLE = ".partial", "bundle"
HISTORY_FILE, HISTORY_PICTURE, SPLIT_FILE = "history.csv", "history.png", "split.csv"

DEFAULT_CACHE_BYTES = 20 << 30

log = logging.getLogger("xcli")


@dataclass(frozen=True, slots=True)
class RunPaths:
    """Where a run reads and writes.

    Attributes:
        source: the data, as the user named them.
        run: the directory to make.
        cache_dir: of activations; None is the user's cache directory.
        cache_bytes: that activations may take there.
        overwrite: replace RUN.
        restart: drop what an unfinished run has left.
        command_line: for the record.
    """

    source: str
    run: str
    cache_dir: str | None = None
    cache_bytes: int = DEFAULT_CACHE_BYTES
    overwrite: bool = False
    restart: bool = False
    command_line: str = ""

    @property
    def partial(self) -> str:
        """The directory of checkpoints."""
        return self.run.rstrip("/") + PARTIAL


@dataclass(frozen=True, slots=True)
class FineTuneResult:
    """What came of a run.

    Attributes:
        run: the directory that was made.
        metrics: of `split`, computed with the finished bundle; None where RUN was there already, finished.
        split: `validation`, or `train` where there is no validation part.
        test: metrics of the test part, where there is one.
        rows: the history.
        counts: images by split.
        bad: images that could not be read, and were left out, by path: the reason.
    """

    run: str
    metrics: Metrics | None = None
    split: str = VALIDATION
    test: Metrics | None = None
    rows: tuple[EpochMetrics, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)


def check_paths(place: RunPaths) -> None:
    """Refuses names for RUN that cannot be meant, before anything is read.

    Raises:
        UsageError: RUN is within the data, has no name, or is a URL.
        OutputError: RUN is there and is not to be replaced, or its directory is not there.
    """
    if not place.run.strip("/"):
        raise UsageError(f"-o takes the name of a directory to make; received {place.run!r}")
    if is_url(place.run):
        raise UsageError(f"{place.run!r}: finetune writes a directory of this machine; copy that to the object store")
    shown = one_line(place.run)
    if is_within(place.run, place.source) or (
        os.path.isdir(place.source) and is_within(_parent(place.run), place.source)
    ):
        raise UsageError(f"{shown} lies within the data; give a directory elsewhere")
    if not os.path.isdir(_parent(place.run)):
        raise OutputError(f"cannot write {shown}: no such directory: {one_line(_parent(place.run))}, create it first")
    if not os.path.lexists(place.run) or place.overwrite:
        return
    if not os.path.isdir(place.run):
        raise OutputError(f"{shown} exists and is no directory; give another name")
    if os.listdir(place.run) and _finished(place.run) is None:
        raise OutputError(f"{shown} exists and was not made by finetune; give another name, or --overwrite")


def _parent(path: str) -> str:
    return os.path.dirname(path.rstrip("/")) or os.curdir


def _finished(run: str) -> str | None:
    """The fingerprint of a finished run; None where the directory is none."""
    import json

    try:
        with open(os.path.join(run, BUNDLE_RECIPE), encoding="utf-8") as file:
            found = json.load(file)["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def finetune(
    split: Split,
    model: LoadedModel,
    spec: ModelSpec,
    preprocessing: Preprocessing,
    recipe: Recipe,
    place: RunPaths,
    options: RunOptions,
    watch: Callbacks | None = None,
) -> FineTuneResult:
    """Fine-tunes a model on labelled images, and writes the bundle and the report.

    Args:
        split: the images, as `split_images` has put them into parts.
        model: what to start from; its classifier, if it has one, is left out.
        spec: what it was loaded from.
        preprocessing: how images become pixels, here and with the bundle.
        recipe: how to train.
        place: where to read and write; see `check_paths`.
        options: use of the machine; its batch size counts for nothing here.
        watch: is told how it goes.

    Returns:
        What came of it.

    Raises:
        SourceError: no training image of a class can be read.
        UsageError: options do not go together, or an unfinished run had others.
        OutputError: something cannot be written.
        ModelError: the model cannot be started from.
    """
    devices = choose_devices(options.device)
    precision = training_precision(options.precision, devices[0])
    base = read_base_model(model, spec)
    settings = _settings(split, model, preprocessing, recipe, precision, kind_of(devices[0]))
    fingerprint = digest(settings)
    if os.path.isdir(place.run) and not place.overwrite and os.listdir(place.run):
        if _finished(place.run) == fingerprint:
            return FineTuneResult(place.run)
        raise OutputError(f"{one_line(place.run)} exists, of a run with other settings or data; pass --overwrite")
    if base.labels is not None and base.labels.names != split.labels:
        log.warning("%s tells other classes apart: it gets a new head", model.name)
    with _held(place) as folder, load_tensorflow().device(devices[0]):
        cache = ActivationCache(place.cache_dir or default_cache_dir(), place.cache_bytes)
        extractor = ActivationExtractor(
            model=model,
            cut=cut_below(recipe.unfreeze),
            preprocessing=preprocessing,
            augmentation=recipe.augmentation,
            seed=recipe.seed,
            cache=cache,
            devices=devices,
            precision=precision,
            workers=options.workers,
            timeout=options.image_timeout,
        )
        tuning = TrainingSession(split, base, recipe, trained_dtype(precision), Replicas(devices), watch or Callbacks())
        checkpoints = Checkpoints(folder, settings)
        state = checkpoints.load()
        tuning.prepare(extractor)
        weights, progress = tuning.train(checkpoints, state)
        record = _record(settings, fingerprint, place, tuning, progress)
        return _finish(tuning, weights, progress, record, preprocessing, place, options, precision)


def _settings(
    split: Split, model: LoadedModel, preprocessing: Preprocessing, recipe: Recipe, precision: str, device: str
) -> dict[str, Any]:
    """Everything that the weights of a finished run depend on."""
    content = sha256()
    for example in split.examples:
        content.update(
            f"{example.digest} {example.sample.label!r} {example.split}\n".encode("utf-8", "backslashreplace")
        )
    return {
        "version": __version__,
        "versions": versions(),
        "data": content.hexdigest(),
        "labels": list(split.labels),
        "model": {"name": model.name, "sha256": model.digest, "input_range": model.input_range},
        "preprocessing": preprocessing.as_dict(),
        "recipe": recipe.as_dict(),
        "precision": precision,
        "device": device,
    }


@contextmanager
def _held(place: RunPaths) -> Iterator[str]:
    """The directory of checkpoints, for this process alone."""
    folder = prepare_folder(place.partial, place.restart)
    lock = FileLock(folder / ".lock")
    if not lock.acquire():
        raise OutputError(f"another process is at work on {one_line(place.run)}; wait for it")
    try:
        yield str(folder)
    finally:
        lock.release()


def _record(
    settings: dict[str, Any], fingerprint: str, place: RunPaths, tuning: TrainingSession, progress: TrainingState
) -> dict[str, Any]:
    """`run.json` without the preprocessing that `--model RUN` reads."""
    split = tuning.split
    return {
        "tool": {"name": "xception-cli", "version": __version__, "command": "finetune"},
        "command_line": place.command_line,
        "fingerprint": fingerprint,
        "source": place.source,
        "images": {part: len(split.part(part)) for part in (TRAIN, VALIDATION, TEST)},
        "unreadable": len(tuning.bad),
        "skipped": dict(split.skipped),
        "settings": settings,
        "epochs": len(progress.rows),
        "temperature": progress.temperature,
        "input": "float32[batch, size, size, 3], raw RGB pixels from 0 to 255, prepared as `preprocessing` says",
    }


def _finish(
    tuning: TrainingSession,
    weights: Weights,
    progress: TrainingState,
    record: dict[str, Any],
    preprocessing: Preprocessing,
    place: RunPaths,
    options: RunOptions,
    precision: str,
) -> FineTuneResult:
    """Writes everything, tries the bundle as it will be used, and gives RUN its name."""
    split, recipe = tuning.split, tuning.recipe
    folder = os.path.join(place.partial, BUNDLE)
    with write_errors(folder):
        shutil.rmtree(folder, ignore_errors=True)
        os.mkdir(folder)
    final = {**tuning.base.weights, **weights}
    keras_model = build_model(final, len(split.labels), preprocessing.size, tuning.base.scaling, recipe.dropout)
    write_bundle(folder, keras_model, split.labels, preprocessing, record)
    rows = [asdict(row) for row in progress.rows]
    write_csv(folder, HISTORY_FILE, {name: [row[name] for row in rows] for name in rows[0]})
    write_csv(
        folder,
        SPLIT_FILE,
        {
            "path": [example.sample.ref.path for example in split.examples],
            "label": [example.sample.label for example in split.examples],
            "split": [example.split for example in split.examples],
        },
    )
    from xcli.evaluation.plots import history_png

    write_atomically(os.path.join(folder, HISTORY_PICTURE), history_png(rows), overwrite=True)
    tuning.watch.scoring()
    outcome = _score(tuning, folder, preprocessing, place, options, precision, tuple(progress.rows))
    _publish(folder, place)
    return outcome


def _score(
    tuning: TrainingSession,
    folder: str,
    preprocessing: Preprocessing,
    place: RunPaths,
    options: RunOptions,
    precision: str,
    rows: tuple[EpochMetrics, ...],
) -> FineTuneResult:
    """Evaluates the bundle on what it was not trained on, by the road that `classify` takes."""
    model = load_model(model=folder)
    images = tuning.images
    counts = {part: len(tuning.split.part(part)) for part in (TRAIN, VALIDATION, TEST)}
    part = VALIDATION if counts[VALIDATION] else TRAIN
    run_options = RunOptions(None, precision, options.device, options.workers, options.image_timeout)

    def result(name: str) -> Evaluation:
        return evaluate([one.sample for one in tuning.split.part(name)], model, preprocessing, run_options)

    evaluation = result(part)
    metrics, predictions = evaluation.metrics(), evaluation.predictions()
    bad = {images[index].sample.ref.path: text for index, text in tuning.bad.items()}
    if part == VALIDATION:
        predictions += [
            Prediction(images[index].sample.ref, images[index].sample.label, error=text)
            for index, text in tuning.bad.items()
            if images[index].split == TRAIN
        ]
    extra: dict[str, Any] = {"split": part}
    test = None
    if counts[TEST]:
        tested = result(TEST)
        test = tested.metrics()
        extra["test"] = test.as_dict() | {"errors": tested.report.failed}
        write_report(os.path.join(folder, TEST), test, tested.predictions(), extra={"split": TEST})
        bad |= {one.ref.path: one.error for one in tested.predictions() if one.error is not None}
    write_report(folder, metrics, predictions, extra=extra)
    return FineTuneResult(place.run, metrics, part, test, rows, counts, bad)


def _publish(folder: str, place: RunPaths) -> None:
    """Gives the finished directory its name; an older one goes when the new one is there."""
    old = f"{place.partial}/old"
    with write_errors(place.run):
        shutil.rmtree(old, ignore_errors=True)
        if os.path.lexists(place.run):
            os.rename(place.run.rstrip("/"), old)
        os.rename(folder, place.run.rstrip("/"))
    with suppress(OSError):
        shutil.rmtree(place.partial)
