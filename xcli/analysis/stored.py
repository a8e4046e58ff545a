"""Stored features that a head may take: tables whose provenance proves that they are what its network would compute.

A table is refused where it says too little, where its vectors are not the averaged last map, or where they are of other
pixels, another network or another precision than the head was trained on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xcli.analysis.vectors import open_features
from xcli.core.errors import ModelError, UsageError
from xcli.core.records import FileState
from xcli.core.text import one_line, short_text
from xcli.inference.options import INT8
from xcli.models.architecture import FEATURE_WIDTH
from xcli.models.network import LAST_MAP
from xcli.tables.parquet import DatasetReader
from xcli.tables.provenance import digest, provenance_of
from xcli.tables.schema import FIRST_RESULT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xcli.models.head import Head
    from xcli.tables.base import TableReader

PIXELS = ("size", "resize", "interpolation", "crop_pct", "bit_depth")
"""Of the preprocessing what a bundle fixes; the rest (`--jpeg-shrink`, `--resampler`, ...) is chosen for each run."""

_DEFAULT_BITS = 16  # left out of a provenance where it has this value


@dataclass(frozen=True)
class StoredFeatures:
    """Tables of the averaged last map of one network.

    Attributes:
        readers: of the tables, in the order given.
        states: size and time of modification of each.
        provenance: of the first; the others differ in what changes no value but by rounding.
        backbone: the network; see `backbone_digest`. None if an older version, which did not record it, made the table.
        dtype: `float32`, or `float16` if a table is of float16.
    """

    readers: tuple[TableReader, ...]
    states: tuple[FileState, ...]
    provenance: dict[str, Any]
    backbone: str | None
    dtype: str

    @property
    def name(self) -> str:
        """The first table, for messages."""
        return one_line(self.readers[0].name)

    @property
    def precision(self) -> str:
        return str(self.provenance["precision"])

    def is_of(self, model: Mapping[str, Any]) -> bool:
        """Returns whether the file of this model, `sha256` and `input_range`, has computed the features."""
        made = self.provenance["model"]
        return all(name in model and made.get(name) == model[name] for name in ("sha256", "input_range"))

    @property
    def row_count(self) -> int | None:
        """The rows of all tables, where they say it before they are read."""
        counts = [reader.row_count for reader in self.readers]
        return None if None in counts else sum(count or 0 for count in counts)

    def described(self) -> dict[str, Any]:
        """Returns what the provenance of scores says of the features that they were computed from."""
        made = self.provenance
        return {"versions": made["versions"], "dtype": self.dtype, "sha256": digest(made)}


def open_stored(names: Sequence[str]) -> StoredFeatures:
    """Opens tables that `features`, or `classify --features-out`, wrote, for a head.

    Raises:
        SourceError: there is no such table.
        UsageError: a table is not of features, does not say what made it, or holds something else than the averaged
            last map as it is; or tables differ in their network, their preprocessing, their precision or their columns.
        CheckError: a table is damaged.
    """
    tables = open_features(names)
    if tables.width != FEATURE_WIDTH:
        raise UsageError(
            f"{one_line(names[0])} holds vectors of {tables.width:,} values; a head takes the {FEATURE_WIDTH:,} of the "
            "averaged last map: run features without --layer"
        )
    made = [_provenance(reader) for reader in tables.readers]
    first = made[0]
    for reader, one in zip(tables.readers[1:], made[1:], strict=True):
        for what, mine, theirs in (
            ("precision", first["precision"], one["precision"]),
            ("backbone", first["model"].get("backbone"), one["model"].get("backbone")),
            ("columns", _carried(tables.readers[0]), _carried(reader)),
        ):
            if mine != theirs:
                names_shown = f"{one_line(tables.readers[0].name)} and {one_line(reader.name)}"
                raise UsageError(f"{names_shown} differ in their {what}: {short_text(mine)}, {short_text(theirs)}")
    types = {str(reader.schema.field(FIRST_RESULT).type.value_type) for reader in tables.readers}
    return StoredFeatures(
        tables.readers,
        tuple(_state(reader) for reader in tables.readers),
        first,
        first["model"].get("backbone"),
        "float32" if types == {"float"} else "float16",
    )


def _carried(reader: TableReader) -> list[tuple[str, str]]:
    return [(field.name, str(field.type)) for field in list(reader.schema)[FIRST_RESULT + 1 :]]


def _state(reader: TableReader) -> FileState:
    """Returns the state of a table by which a change is noticed; of a directory the newest of its parts counts.

    The copy of a table in an object store has a time of its own, so that what stands beside the table counts instead.
    """
    parts = [os.path.join(reader.path, one) for one in reader.parts] if isinstance(reader, DatasetReader) else []
    found = [os.stat(one) for one in parts or [reader.path]]
    size = sum(one.st_size for one in found)
    if reader.copies is not None:
        return FileState(size, int(digest({"meta": reader.meta})[:15], 16))
    return FileState.of(size, max(one.st_mtime_ns for one in found))


def _provenance(reader: TableReader) -> dict[str, Any]:
    """Returns the provenance of a table; raises UsageError where no head can take its vectors."""
    name = one_line(reader.name)
    made = reader.provenance or ({} if reader.meta is None else provenance_of(reader.meta))
    model, options = made.get("model") or {}, made.get("options") or {}
    if "sha256" not in model or "preprocessing" not in made or "precision" not in made:
        raise UsageError(
            f"{name} does not say what made it (its .meta.json is missing), so that nothing proves which heads its "
            "features go with: put that file beside it, or compute the features again"
        )
    pooling = options.get("pooling") if "pooling" in options else options.get("features")
    for problem, advice in (
        (options.get("normalize") and "holds vectors of unit length", "without --normalize"),
        (options.get("layer") not in (None, LAST_MAP) and f"is of layer {options.get('layer')}", "without --layer"),
        (pooling != "avg" and f"is of --pooling {short_text(pooling)}", "with --pooling avg"),
    ):
        if problem:
            raise UsageError(f"{name} {problem}; a head takes the averaged last map as it is: run features {advice}")
    if model.get("backbone", "not recorded") is None:
        raise UsageError(
            f"{name} was computed by {short_text(model.get('name'))}, in which layers before its Xception change the "
            "pixels: heads go with networks without such layers"
        )
    return made


def pixels_of(preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a bundle fixes of a preprocessing; the share of a crop only where there is one."""
    found = {name: preprocessing.get(name) for name in PIXELS}
    found["bit_depth"] = found["bit_depth"] or _DEFAULT_BITS
    return {name: value for name, value in found.items() if name != "crop_pct" or found["resize"] == "crop"}


def check_fit(stored: StoredFeatures, head: Head, precision: str = "auto") -> None:
    """Refuses features that are not what the network of a bundle would compute for its head.

    Args:
        stored: the tables.
        head: of the bundle.
        precision: in which the whole network would compute; `auto` is that in which the head was trained.

    Raises:
        ModelError: the network, the preprocessing or the precision is another one.
    """
    table, bundle, made = stored.name, one_line(head.name), stored.provenance
    trained = head.settings.get("recipe", {}).get("unfreeze", "none")
    if stored.backbone is None and (trained != "none" or not stored.is_of(head.settings.get("model", {}))):
        raise ModelError(
            f"{table} was written by an older version, which did not record the digest of its backbone, so that "
            f"nothing proves that it goes with {bundle}: compute the features again with features --model {bundle}"
        )
    if stored.backbone not in (None, head.backbone):
        if trained != "none":
            what = "its whole network" if trained == "all" else f"{trained} of its network, and what is above that,"
            raise ModelError(
                f"{table} does not go with {bundle}: {what} was trained too (--unfreeze {trained}), so that the "
                f"features of the network before it are not those of its head. Compute them with features --model "
                f"{bundle}, or train the head alone (--unfreeze none, or --from-features)"
            )
        raise ModelError(
            f"{table} does not go with {bundle}: it was computed by {short_text(made['model'].get('name'))}, whose "
            f"backbone has the digest {str(stored.backbone)[:16]}, and that of the bundle has "
            f"{str(head.backbone)[:16]}. Compute the features with features --model {bundle}"
        )
    mine, theirs = pixels_of(made["preprocessing"]), pixels_of(head.preprocessing)
    for name in mine | theirs:
        if mine.get(name) != theirs.get(name):
            option = "--image-size" if name == "size" else f"--{name.replace('_', '-')}"
            raise ModelError(
                f"{table} does not go with {bundle}: its images were prepared with {option} {mine.get(name)}, those of "
                f"the bundle with {theirs.get(name)}. Compute the features with features --model {bundle}"
            )
    _check_precision(stored, head, precision)


def _check_precision(stored: StoredFeatures, head: Head, precision: str) -> None:
    wanted = head.settings.get("precision") if precision == "auto" else precision
    if wanted == stored.precision:
        return
    table, bundle = stored.name, one_line(head.name)
    if precision != "auto":
        raise ModelError(f"{table} was computed in {stored.precision}, and --precision is {precision}")
    trained = "does not say in which precision it was trained" if wanted is None else f"was trained in {wanted}"
    compute = "" if wanted is None else f"compute the features with --precision {wanted}, or "
    engine = "--engine openvino " if stored.precision == INT8 else ""
    raise ModelError(
        f"{table} was computed in {stored.precision}, and {bundle} {trained}: {compute}give --precision "
        f"{stored.precision} for the scores of classify --model {bundle} {engine}--precision {stored.precision}"
    )
