"""What the recipe of `xception finetune` is worth: k-fold cross-validation over all labelled images.

    python -m benchmarks.crossvalidation DATA --weights NOTOP.h5 [--folds 5] [--unfreeze block13]

DATA is as for `finetune`; its parts for training and validation are put together and cut anew: stratified, and with
files of the same bytes in the same fold. Activations are computed once, for all folds. Each fold is trained on the
others by the recipe, with its defaults, and scored after every epoch; the best epoch is what `finetune` would keep, the
last one is free of that choice.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xcli.training.freezing import UNFREEZE
from xcli.training.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xcli.training.split import Example


def fold_of(examples: Sequence[Example], folds: int, seed: int) -> list[int]:
    """A fold for every example: of each class about as many in each, files of the same bytes together."""
    import numpy as np

    rng = np.random.default_rng([seed, 7])
    contents: dict[str, dict[str, None]] = {}
    for one in examples:
        contents.setdefault(one.sample.label, {})[one.digest] = None
    chosen: dict[str, int] = {}
    for label in sorted(contents):
        fresh = [digest for digest in contents[label] if digest not in chosen]
        start = int(rng.integers(folds))
        for place, number in enumerate(rng.permutation(len(fresh))):
            chosen[fresh[int(number)]] = (start + place) % folds
    return [chosen[one.digest] for one in examples]


def run(source: str, weights: str, folds: int, recipe: Recipe, cache_dir: str | None) -> list[dict[str, Any]]:
    """Trains every fold; returns the accuracy of its best and of its last epoch, and its seconds."""
    from xcli.models.loader import load_model, preprocessing_for
    from xcli.models.spec import ModelSpec
    from xcli.sources.labelled import read_labelled
    from xcli.sources.splits import TRAIN, VALIDATION
    from xcli.training.activation_cache import DEFAULT_CACHE_BYTES, ActivationCache
    from xcli.training.activations import ActivationExtractor
    from xcli.training.base_model import read_base_model
    from xcli.training.batches import extract_activations
    from xcli.training.callbacks import Callbacks
    from xcli.training.checkpoints import Checkpoints
    from xcli.training.optimizer import Replicas
    from xcli.training.recipe import trained_dtype, training_precision
    from xcli.training.session import TrainingSession
    from xcli.training.split import split_images

    spec = ModelSpec(weights=weights, include_top=False)
    model = load_model(spec)
    precision = training_precision("auto", "/CPU:0")
    found = split_images(read_labelled(source), 0.0, recipe.seed)
    examples = tuple(replace(one, split=TRAIN) for one in found.examples if one.split in (TRAIN, VALIDATION))
    base, replicas = read_base_model(model, spec), Replicas(["/CPU:0"])

    cache = ActivationCache(cache_dir, DEFAULT_CACHE_BYTES)
    whole = extract_activations(
        replace(found, examples=examples),
        recipe.view_count,
        ActivationExtractor(model, recipe, preprocessing_for(model), cache, ("/CPU:0",), precision),
        Callbacks(),
    )
    chosen, results = fold_of(examples, folds, recipe.seed), []
    for fold in range(folds):
        begin = time.monotonic()
        held = [VALIDATION if number == fold else TRAIN for number in chosen]
        parts = tuple(replace(one, split=part) for one, part in zip(examples, held, strict=True))
        data = replace(whole, images=parts)
        session = TrainingSession(recipe, base, data, trained_dtype(precision), replicas, Callbacks())
        with tempfile.TemporaryDirectory() as folder:
            _, state = session.train(Checkpoints(folder, {}))
        last = state.rows[-1].phase
        course = [row.val_accuracy for row in state.rows if row.phase == last]
        results.append(
            {
                "images": chosen.count(fold),
                "best": state.kept_epoch.val_accuracy if state.kept_epoch else None,
                "last": course[-1],
                "head": max(row.val_accuracy for row in state.rows if row.phase == state.rows[0].phase),
                "seconds": time.monotonic() - begin,
            }
        )
        click.echo(f"fold {fold + 1}: {json.dumps(results[-1])}")
    return results


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("data", type=click.Path(exists=True))
@click.option("--weights", required=True, metavar="FILE", type=click.Path(exists=True), help="HDF5 weights, no top.")
@click.option("--folds", metavar="K", type=click.IntRange(2), default=5, help="Parts, each of which is held out once.")
@click.option("--seed", metavar="N", type=int, default=0, help="Of the folds and of the training.")
@click.option("--unfreeze", type=click.Choice(UNFREEZE), default=Recipe().unfreeze, help="As for finetune.")
@click.option("--cache-dir", metavar="DIR", type=click.Path(), help="Of activations.")
@click.option("--json", "target", metavar="FILE", type=click.Path(dir_okay=False), default="build/crossvalidation.json")
def main(data: str, weights: str, folds: int, seed: int, unfreeze: str, cache_dir: str | None, target: str) -> None:
    """Cross-validates the recipe of finetune on DATA."""
    results = run(data, weights, folds, Recipe(unfreeze=unfreeze, seed=seed), cache_dir)
    summary = {}
    for name in ("best", "last", "head"):
        values = [one[name] for one in results]
        summary[name] = {"mean": statistics.mean(values), "deviation": statistics.stdev(values)}
        click.echo(f"{name:5} {summary[name]['mean']:.4f} +- {summary[name]['deviation']:.4f}")
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    Path(target).write_text(json.dumps({"unfreeze": unfreeze, "folds": results, **summary}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
