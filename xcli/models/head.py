"""The head of a bundle as arrays, read without TensorFlow: what turns stored features into scores.

`finetune` writes a single dense layer with a softmax over the average of each channel of the last map. Of other models
no head is read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ModelError
from xcli.core.text import one_line
from xcli.models.backbone import backbone_digest
from xcli.models.bundle import BUNDLE_MODEL, BUNDLE_RECIPE, read_bundle, read_record
from xcli.models.download import sha256_of
from xcli.models.hdf5_weights import BIAS, KERNEL, read_weights
from xcli.models.keras_file import WEIGHTS, open_archive
from xcli.models.keras_graph import final_activation
from xcli.models.labels import fit_labels, read_labels
from xcli.models.network import LAST_MAP
from xcli.storage.temporary import TemporaryDirectory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xcli.models.hdf5_weights import Weights
    from xcli.models.keras_graph import Graph
    from xcli.models.labels import Labels

_BLOCK = 1024
"""Rows that are multiplied at a time: with one shape, a row's scores do not depend on the rows beside it."""


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """The classifier of a bundle.

    Attributes:
        name: the bundle, as the user gave it.
        digest: SHA-256 of its `model.keras`.
        backbone: tells which network computes the features that it takes; see `backbone_digest`.
        kernel, bias: float32[d, C] and float32[C]; a temperature, if one was fitted, is in them.
        labels: of its C classes.
        preprocessing: how its images become pixels, as `run.json` has it.
        settings: with which it was trained; empty where `run.json` has none.
    """

    name: str
    digest: str
    backbone: str | None
    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    labels: Labels
    preprocessing: dict[str, Any]
    settings: dict[str, Any]

    def weights(self) -> Weights:
        """Returns kernel and bias by their names in a network."""
        return {KERNEL: self.kernel, BIAS: self.bias}

    def with_weights(self, weights: Weights) -> Head:
        """Returns the head with another kernel and bias."""
        return replace(self, kernel=weights[KERNEL], bias=weights[BIAS])

    def scores(self, features: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Returns the probabilities, float32[b, C], of features [b, d]; of what is not finite they are NaN.

        Sums are in float64, so that only the rounding of the network is between these scores and its own.
        """
        import numpy as np

        kernel, found = self.kernel.astype(np.float64), np.empty((len(features), len(self.bias)), np.float32)
        block = np.zeros((_BLOCK, features.shape[1]))
        with np.errstate(all="ignore"):
            for start in range(0, len(features), _BLOCK):
                rows = min(_BLOCK, len(features) - start)
                block[:rows] = features[start : start + rows]
                logits = block @ kernel + self.bias
                logits -= logits.max(1, keepdims=True)
                scores = np.exp(logits[:rows].astype(np.float32))
                np.divide(scores, scores.sum(1, keepdims=True), out=found[start : start + rows])
        return found


def read_head(path: str, labels: str | None = None) -> Head:
    """Reads the head of a directory that `finetune` made; `labels` is a file that replaces its class names.

    Raises:
        ModelError: it is no such directory, is damaged, or its head is more than one layer over the averaged features.
    """
    shown = one_line(path)
    if not os.path.isdir(path):
        there = "does not say how its images are prepared" if os.path.exists(path) else "does not exist"
        raise ModelError(f"{shown} {there}; --from-features takes a directory that finetune made")
    preprocessing, label_file = read_bundle(path, labels)
    if not preprocessing:
        raise ModelError(f"{shown} has no {BUNDLE_RECIPE}, which says how its images were prepared")
    file = str(Path(path, BUNDLE_MODEL))
    archive = open_archive(file)
    if problem := _problem(archive.graph):
        raise ModelError(
            f"{shown} {problem}, so that it cannot be computed from stored features: classify the images themselves"
        )
    scratch = TemporaryDirectory(file)
    try:
        archive.unpack(scratch.path)
        weights = read_weights(os.path.join(scratch.path, WEIGHTS), include_top=True)
    finally:
        scratch.close()
    names = read_labels(label_file) if label_file else None
    return Head(
        name=path,
        digest=sha256_of(file),
        backbone=backbone_digest(weights, preprocessing["input_range"], archive.graph),
        kernel=weights[KERNEL],
        bias=weights[BIAS],
        labels=fit_labels(names, len(weights[BIAS])),
        preprocessing=preprocessing,
        settings=read_record(path).get("settings", {}),
    )


def _problem(graph: Graph) -> str | None:
    """Returns how a model differs from those that finetune writes, as the end of a sentence; None if it does not."""
    if not graph.backbone or any(node.graph is not None for node in graph.nodes):
        return "has its Xception inside of another layer, as finetune never writes it"
    kinds, name = list[str](), graph.outputs[0][0]
    while name in graph.by_name and name != graph.backbone[LAST_MAP]:
        node = graph.node(name)
        inputs = [call.inputs for call in node.calls]
        if len(inputs) != 1 or len(inputs[0]) != 1 or len(kinds) > 2:
            return "has a head of several layers"
        kinds.append(node.kind)
        name = inputs[0][0][0]
    if [kind for kind in kinds if kind != "Dropout"] != ["Dense", "GlobalAveragePooling2D"]:
        return f"has a head of {' over '.join(kinds) or 'no layers'} instead of Dense over GlobalAveragePooling2D"
    if final_activation(graph) != "softmax":
        return "does not end in a softmax"
    return None
