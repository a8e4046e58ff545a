"""The records that pass between stages of a run, and the names of the output columns."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from xcli.core.errors import ImageError, XcliError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy as np
    from _typeshed import DataclassInstance
    from numpy.typing import NDArray

PATH, STATUS, ERROR = "path", "status", "error"

STATUS_COLUMNS = (PATH, STATUS, ERROR)
"""The first columns of every table, all of them text."""

FEATURES = "features"
"""The column of embeddings in Parquet; CSV has one column for each element: f0, f1, ..."""

OK_STATUS, ERROR_STATUS = "ok", "error"


def settings_as_dict(settings: DataclassInstance, newer: Collection[str]) -> dict[str, Any]:
    """Returns settings by name, the `newer` ones only if they are not at their defaults.

    So the fingerprints and the provenance of runs from before there were such settings stay the same.
    """
    defaults = {one.name: one.default for one in fields(settings) if one.name in newer}
    found = asdict(settings)
    return {name: value for name, value in found.items() if name not in defaults or value != defaults[name]}


_MAX = (1 << 63) - 1


class FileState(NamedTuple):
    """Size in bytes and modification time in nanoseconds since 1970 of an input file, by which a change is noticed.

    Tables keep both as 64-bit integers. File systems and servers report times that these cannot hold (before 1677,
    after 2262), so a state is made with `of`.
    """

    size: int
    mtime: int

    @classmethod
    def of(cls, size: int, mtime: int) -> FileState:
        """Makes a state, with numbers beyond 64 bits replaced by the nearest that fit."""
        if 0 <= mtime <= _MAX and 0 <= size <= _MAX:  # of a million files each, and nearly always
            return cls(size, mtime)
        return cls(*(min(max(number, -_MAX - 1), _MAX) for number in (size, mtime)))


class Readable(Protocol):
    """A source of the bytes of one image."""

    def read(self, max_bytes: int) -> bytes:
        """Reads all bytes of the image; raises ImageError if it cannot be read, or is larger than `max_bytes`."""


class Location(Readable, Protocol):
    """Where the bytes of an image are: in a file, an object of a store, or a member of an archive."""

    @property
    def file(self) -> str:
        """Path or URL of the file that holds the image: its own, or that of its archive."""

    @property
    def offset(self) -> int | None:
        """Position of the image in its archive; None for an image that is a file of its own."""

    @property
    def size(self) -> int | None:
        """Size in bytes if the listing gave it, else None."""

    @property
    def remote(self) -> bool:
        """Whether reading it takes a request to a server, so that prefetching is worthwhile."""

    def fetch(self, max_bytes: int) -> tuple[bytes, FileState | None]:
        """Reads all bytes of the image (see `read`), with the state of its file at that time."""

    def state(self) -> FileState | None:
        """Returns the state of the file that holds the image; None if it cannot be determined."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """A reference to one input image.

    Attributes:
        path: the `path` column: as the user gave it, joined with `/`, escaped so that it is always valid UTF-8.
        location: where its bytes are.
        key: the bytes of the path relative to its source; what `--shard` hashes.
        error: an error found while listing, else None. An image with such an error is never read.
        extra: values of the manifest's other columns, in the order of `Listing.extra_columns`.
    """

    path: str
    location: Location
    key: bytes
    error: ImageError | None = None
    extra: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """Decoded images on their way to the engine.

    Attributes:
        refs: b references, in the order of the sources.
        pixels: uint8[b, size, size, 3], RGB; zeros where there is an error.
        errors: for each ref its error, or None.
        states: for each ref the state of its file just before it was read, or None if that is unknown.
        warnings: kinds of warnings about images that were decoded all the same, in no order.
    """

    refs: tuple[ImageRef, ...]
    pixels: NDArray[np.uint8]
    errors: tuple[ImageError | None, ...]
    states: tuple[FileState | None, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class RunCounts:
    """Counts of the inputs and rows of a run, by outcome; the exit code follows from them."""

    listed: int = 0  # images
    ok: int = 0  # rows with status `ok`
    errors: Counter[str] = field(default_factory=Counter)  # error rows by `ImageError.reason`
    skipped: Mapping[str, int] = field(default_factory=dict)  # directory entries that are not listed, by reason
    resumed: int = 0  # rows taken over from an earlier run; `ok` and `errors` include them
    warnings: Counter[str] = field(default_factory=Counter)  # about images decoded in this run, by kind

    def check(self, rows: int) -> None:
        """Checks that every listed image was counted, and that as many rows were written.

        Raises:
            XcliError: the numbers differ. This is a bug, and no reason to deliver a wrong table.
        """
        if not self.listed == self.rows == rows:
            raise XcliError(
                f"the counts do not match: {self.listed} images were listed, {self.rows} counted and {rows} rows "
                "written; please report this with the command that you used"
            )

    @property
    def failed(self) -> int:
        """Number of error rows."""
        return sum(self.errors.values())

    @property
    def rows(self) -> int:
        """Number of rows written."""
        return self.ok + self.failed

    def as_dict(self) -> dict[str, Any]:
        """Returns the counts as a JSON object."""
        return {
            "listed": self.listed,
            "ok": self.ok,
            "errors": dict(self.errors),
            "skipped": dict(self.skipped),
            "resumed": self.resumed,
        } | ({"warnings": dict(self.warnings)} if self.warnings else {})

    def count(self, errors: tuple[ImageError | None, ...], warnings: tuple[str, ...] = ()) -> None:
        """Counts the rows of one batch."""
        self.warnings.update(warnings)
        self.ok += errors.count(None)
        self.errors.update(error.reason for error in errors if error is not None)

    def resume(self, ok: int, errors: Mapping[str, int]) -> None:
        """Counts the rows taken over from an earlier run."""
        self.ok += ok
        self.errors.update(errors)
        self.resumed += ok + sum(errors.values())


def default(kind: type, name: str) -> Any:
    """Returns the default value of a dataclass field."""
    return next(one.default for one in fields(kind) if one.name == name)
