"""What a run computes for each image, and what its rows look like: `classify`, `features`, and both in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from xcli.core.errors import UsageError
from xcli.core.records import FEATURES, ImageBatch, settings_as_dict
from xcli.models.architecture import check_pooling
from xcli.models.labels import LABEL_TYPES
from xcli.tables.rows import classify_batch, features_batch
from xcli.tables.schema import FIRST_RESULT, classify_schema, features_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.models.labels import Labels
    from xcli.models.network import ForwardPass, LoadedModel

    Shapes = Sequence[tuple[int, ...]]
    Results = Sequence[NDArray[np.floating[Any]]]

FEATURE_TYPES = ("float32", "float16")
ERROR_FEATURES = ("nan", "null")


class Task(Protocol):
    """What a command computes for an image, and what its rows look like."""

    def forward(self, model: LoadedModel) -> ForwardPass:
        """Returns the function that the engine runs."""

    def schema(self, shapes: Shapes, extra: Any) -> pa.Schema:
        """Returns the columns, for results of these shapes for an image and the copied columns `extra`."""

    def values(self, results: Results) -> Results:
        """Returns what the rows will hold of results float32[b, *shape], one for each shape, in the rows' dtype."""

    def rows(self, schema: pa.Schema, batch: ImageBatch, values: Results) -> pa.RecordBatch:
        """Returns one row for each image."""

    def settings(self) -> dict[str, Any]:
        """Returns the options that change rows, for provenance."""


class Labelled(Protocol):
    """A model, or its head alone."""

    @property
    def labels(self) -> Labels | None:
        """Its classes; None where it has no classifier."""


@dataclass(frozen=True, slots=True)
class ClassifyTask:
    """The best classes of each image.

    Attributes:
        model: whose scores they are; it must have a classifier.
        top: predictions in a row; at most the number of classes.
        min_score: predictions below it are null.
        label_type: `name`, `wnid` or `both`.
        raw_scores: keep the output of the head, instead of turning it into probabilities.
        with_features: add the embedding, average-pooled, as a last column.
        error_features: what that holds in error rows of Parquet: `nan` in each place, or `null` instead of the list.
    """

    model: Labelled
    top: int = 5
    min_score: float | None = None
    label_type: str = "name"
    raw_scores: bool = False
    with_features: bool = False
    error_features: str = "nan"

    def __post_init__(self) -> None:
        labels = self.model.labels
        if self.top < 1:
            raise UsageError(f"--top must be at least 1; received {self.top}")
        if self.min_score is not None and not self.raw_scores and not 0 <= self.min_score <= 1:
            raise UsageError(f"--min-score is a probability, from 0 to 1; received {self.min_score:g}")
        if self.label_type not in LABEL_TYPES:
            raise UsageError(f"--label-type is one of {', '.join(LABEL_TYPES)}; received {self.label_type!r}")
        if self.label_type != "name" and (labels is None or labels.wnids is None):
            source = labels.source if labels else "this model"
            raise UsageError(f"--label-type {self.label_type}: the labels ({source}) have no wnids")

    def forward(self, model: LoadedModel) -> ForwardPass:
        return model.scores(self.raw_scores, with_features=self.with_features)

    def schema(self, shapes: Shapes, extra: Any) -> pa.Schema:
        schema = classify_schema(min(self.top, shapes[0][0]), self.label_type, extra)  # type: ignore[arg-type]
        if self.with_features:
            schema = schema.append(features_schema(shapes[1], "float32", extra).field(FEATURES))
        return schema

    def values(self, results: Results) -> Results:
        return results

    def rows(self, schema: pa.Schema, batch: ImageBatch, values: Results) -> pa.RecordBatch:
        if not self.with_features:
            return self._predictions(schema, batch, values[0])
        last = len(schema) - 1
        predictions = self._predictions(schema.remove(last), batch, values[0])
        alone = features_schema(values[1].shape[1:], "float32", ())
        features = features_batch(alone, batch.refs, batch.errors, values[1])
        return predictions.append_column(schema.field(last), features[FIRST_RESULT])

    def _predictions(self, schema: pa.Schema, batch: ImageBatch, result: NDArray[Any]) -> pa.RecordBatch:
        import numpy as np

        labels = self.model.labels
        assert labels is not None, "scores() has refused a model without a classifier"
        missing = len(labels.names) - result.shape[1]
        if missing:
            # The raw output of a head with one unit is a score of the second of two classes; the first has none.
            result = np.pad(result, ((0, 0), (missing, 0)), constant_values=-np.inf)
        names = labels.wnids if self.label_type == "wnid" else labels.names
        assert names is not None, "__post_init__ has refused labels without WordNet ids"
        return classify_batch(schema, batch.refs, batch.errors, result, names, labels.wnids, self.min_score)

    def settings(self) -> dict[str, Any]:
        labels = self.model.labels
        return {
            "top": self.top,
            "min_score": self.min_score,
            "label_type": self.label_type,
            "raw_scores": self.raw_scores,
            "labels": {"source": labels.source, "sha256": labels.digest} if labels else None,
        } | self._feature_settings()

    def _feature_settings(self) -> dict[str, Any]:
        if not self.with_features:
            return {}
        return {"features": "avg"} | ({} if self.error_features == "nan" else {"error_features": self.error_features})


@dataclass(frozen=True, slots=True)
class FeaturesTask:
    """An embedding of each image.

    Attributes:
        pooling: `avg`, `max` or None; of maps only.
        layer: name of the layer; None is the last map.
        dtype: `float32` or `float16`.
        normalize: scale each vector to unit length.
        error_features: see `ClassifyTask`.
    """

    pooling: str | None = "avg"
    layer: str | None = None
    dtype: str = "float32"
    normalize: bool = False
    error_features: str = "nan"

    def __post_init__(self) -> None:
        check_pooling(self.pooling)
        if self.dtype not in FEATURE_TYPES:
            raise UsageError(f"--dtype is one of {', '.join(FEATURE_TYPES)}; received {self.dtype!r}")

    def for_model(self, model: LoadedModel) -> FeaturesTask:
        return self

    def forward(self, model: LoadedModel) -> ForwardPass:
        return model.features(self.pooling, self.layer)

    def schema(self, shapes: Shapes, extra: Any) -> pa.Schema:
        (shape,) = shapes
        if self.normalize and len(shape) != 1:
            raise UsageError(f"--normalize is for vectors; these features are maps of shape {shape}: use --pooling avg")
        return features_schema(shape, self.dtype, extra)  # type: ignore[arg-type]

    def values(self, results: Results) -> Results:
        import numpy as np

        (result,) = results
        with np.errstate(over="ignore", invalid="ignore"):
            if self.normalize:
                length = np.linalg.norm(result, axis=1, keepdims=True)
                usable = np.isfinite(length) & (length > 0)
                if not usable.all():  # their squares overflow float32, or underflow
                    exact = np.linalg.norm(result.astype(np.float64), axis=1, keepdims=True)
                    length = np.where(usable, length, exact)
                # A vector of zeros has no direction and stays unchanged.
                result = (result / np.where(length > 0, length, 1)).astype(np.float32)
            return [result.astype(self.dtype, copy=False)]

    def rows(self, schema: pa.Schema, batch: ImageBatch, values: Results) -> pa.RecordBatch:
        return features_batch(schema, batch.refs, batch.errors, values[0])

    def settings(self) -> dict[str, Any]:
        return settings_as_dict(self, ("error_features",))
