"""What the user asked for, in a form that travels to child processes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Settings:
    """One invocation.

    Attributes:
        photographs: directory of `images` files, flat.
        distinct: how many of them, the first ones, are different from each other.
        images: number of files.
        weights: HDF5 file without top, the same for every contestant; empty where no part needs it.
        classifier: HDF5 file with top, for the agreement of classes; or None.
        scratch: directory for temporary files, empty at the start.
        repeats: rounds.
        batch_sizes: of the part `model`.
        format: of the tables that `end-to-end` writes: `parquet` or `csv`.
        listing_files: files in the directory of the part `listing`.
        steady_images: images of the part `steady`.
        cores: processors that this process may use.
        precisions: that the processor has.
    """

    photographs: str
    distinct: int
    images: int
    weights: str
    classifier: str | None
    scratch: str
    repeats: int
    batch_sizes: tuple[int, ...]
    format: str
    listing_files: int
    steady_images: int
    cores: int
    precisions: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Settings:
        """The inverse of `as_dict`, of what came through JSON."""
        lists = {name: tuple(values[name]) for name in ("batch_sizes", "precisions")}
        return cls(**{**values, **lists})
