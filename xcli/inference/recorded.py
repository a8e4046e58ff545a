"""The computation of a table's features, from its provenance: for images that are to be compared with its rows."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from xcli.core.errors import CheckError, ModelError, UsageError
from xcli.core.tensorflow import choose_devices, choose_precision
from xcli.core.text import one_line, short_text
from xcli.images.preprocessing import Preprocessing
from xcli.images.resampling import PILLOW
from xcli.inference.engines.openvino import requested_device
from xcli.inference.run import Run
from xcli.inference.tasks import FeaturesTask
from xcli.models.bundle import BUNDLE_MODEL
from xcli.models.download import sha256_of
from xcli.models.hdf5_weights import TOP
from xcli.models.imagenet_weights import IMAGENET_NO_TOP, IMAGENET_TOP
from xcli.models.loader import LARGE_SIZE, load_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from xcli.core.errors import ImageError
    from xcli.core.records import ImageRef
    from xcli.inference.options import RunOptions
    from xcli.models.network import LoadedModel
    from xcli.models.spec import ModelSpec
    from xcli.sources.listing import Listing
    from xcli.tables.base import TableReader

_RANDOM = re.compile(r"random-([0-9]{1,18})")
_PLAIN_NAME = re.compile(r"Xception \((.+)\)", re.DOTALL)

log = logging.getLogger("xcli")


@dataclass(frozen=True, slots=True)
class RecordedFeatures:
    """How the features of a table were computed.

    Attributes:
        table: its name, for messages.
        model, digest, input_range: name of the model, SHA-256 of its file, and how its pixels are scaled.
        has_top: whether the features are those of the classifier.
        preprocessing, task, precision: as the run had them.
    """

    table: str
    model: str
    digest: str
    input_range: str
    has_top: bool
    preprocessing: Preprocessing
    task: FeaturesTask
    precision: str

    def load(self, spec: ModelSpec, *, chosen: bool) -> LoadedModel:
        """Loads the model that the table was made with.

        Args:
            spec: where weights are looked for, and if the user has `chosen` one, the `model` or the `weights`.
            chosen: whether the model is that of the spec, instead of being looked for.

        Raises:
            ModelError: the model is another one, or is not found.
        """
        spec = spec if chosen else self._found(spec)
        of_file = spec.model is not None
        spec = replace(
            spec,
            include_top=self.has_top,
            image_size=self.preprocessing.size,
            input_range=self.input_range if of_file else None,
        )
        model = load_model(spec)
        if model.digest != self.digest and not {model.digest, self.digest} <= _official():
            raise ModelError(
                f"the features of {self.table} were computed with {one_line(self.model)}, SHA-256 {self.digest}, and "
                f"{one_line(model.name)} is {model.digest}: their features cannot be compared"
            )
        return model

    def _found(self, spec: ModelSpec) -> ModelSpec:
        """Returns the spec of the recorded model: official or random weights, or the file if it is where it was."""
        if self.digest in _official():
            return spec
        if random := _RANDOM.fullmatch(self.digest):
            return replace(spec, weights="none", seed=int(random[1]))
        plain = _PLAIN_NAME.fullmatch(self.model)
        name = plain[1] if plain else self.model
        file = os.path.join(name, BUNDLE_MODEL) if os.path.isdir(name) else name
        # The name is only a hint: nothing is read as a model but a file with the recorded digest.
        if os.path.isfile(file) and sha256_of(file) == self.digest:
            return replace(spec, weights=name) if plain else replace(spec, model=name)
        raise ModelError(
            f"the features of {self.table} were computed with {one_line(name)}, SHA-256 {self.digest}, which is not "
            f"there now: say where it is with {'--weights' if plain else '--model'}"
        )

    def embed(
        self, listing: Listing, model: LoadedModel, options: RunOptions
    ) -> Iterator[tuple[ImageRef, NDArray[np.floating[Any]] | None, ImageError | None]]:
        """Computes features as those of the table were; yields for each image these, [n], or the error.

        Args:
            listing: of the images.
            model: what `load` returned.
            options: how to use the machine; the precision is that of the table, or float32 if the device has no such.

        Raises:
            UsageError: this machine has no such device.
        """
        from xcli.tables.rows import flat_features
        from xcli.tables.schema import FIRST_RESULT

        run = Run(listing, model, self.task, self.preprocessing, replace(options, precision=self._precision(options)))
        run.start()
        for batch, rows in run.batches():
            values = flat_features(rows.column(FIRST_RESULT)).to_numpy(zero_copy_only=False)
            for ref, error, row in zip(batch.refs, batch.errors, values.reshape(len(batch.refs), -1), strict=True):
                yield ref, None if error is not None else row, error

    def _precision(self, options: RunOptions) -> str:
        device = choose_devices(requested_device(options))[0]
        try:
            return choose_precision(self.precision, device)
        except UsageError:
            log.info("the features of the table are of %s; this device computes in float32", self.precision)
            return "float32"


def _official() -> frozenset[str]:
    """Returns the digests of the two official files, which differ only in that one has the classifier."""
    return frozenset({IMAGENET_TOP.sha256, IMAGENET_NO_TOP.sha256})


def recorded_features(reader: TableReader) -> RecordedFeatures:
    """Returns how the features of a table were computed.

    Raises:
        CheckError: the table does not say it, or says what this version does not know.
    """
    made = reader.provenance or reader.meta or {}
    table = one_line(reader.name)
    model, tool, settings = (made.get(name) or {} for name in ("model", "tool", "options"))
    if not made.get("preprocessing") or not isinstance(model.get("sha256"), str):
        raise CheckError(
            f"{table} does not say how its features were computed (its .meta.json is missing), so an image cannot be "
            "compared with them; rows of the table and vectors can"
        )
    is_second = tool.get("command") != "features"  # of `classify --features-out`
    try:
        pixels = _settings(Preprocessing, made["preprocessing"] | _resampler(made["preprocessing"]))
        task = FeaturesTask() if is_second else _settings(FeaturesTask, settings)
        if pixels.size > LARGE_SIZE:
            raise ValueError(f"images of {pixels.size} pixels a side")
    except (ValueError, TypeError) as error:
        raise CheckError(f"the provenance of {table} is not known to this version: {short_text(error)}") from None
    return RecordedFeatures(
        table=table,
        model=str(model.get("name")),
        digest=model["sha256"],
        input_range=str(model.get("input_range")),
        has_top=task.layer == TOP,
        preprocessing=pixels,
        task=task,
        precision=str(made.get("precision")),
    )


def _resampler(recorded: dict[str, Any]) -> dict[str, Any]:
    """Returns the resampler where a run has not recorded it, which means Pillow."""
    return {} if "resampler" in recorded else {"resampler": PILLOW}


def _settings(kind: Any, recorded: dict[str, Any]) -> Any:
    """Returns a dataclass of recorded settings; raises ValueError or TypeError where they are of another version."""
    known = {one.name: one.default for one in fields(kind)}
    for name, value in recorded.items():
        if name not in known:
            raise ValueError(f"it has the setting {name[:50]!r}")
        usual = known[name]
        kinds = (str, type(None)) if usual is None or name == "pooling" else type(usual)
        if isinstance(value, bool) != isinstance(usual, bool) or not isinstance(value, kinds):
            raise ValueError(f"{name} is {str(value)[:50]!r}")
    return kind(**recorded)
