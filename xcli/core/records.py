"""The values that pass from stage to stage, and the names of the output columns, each said once."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from xcli.core.errors import ImageError

PATH, STATUS, ERROR = "path", "status", "error"

STATUS_COLUMNS = (PATH, STATUS, ERROR)
"""The columns, all of them text, that every table starts with."""

FEATURES = "features"
"""The column of embeddings in Parquet; CSV has one column an element: f0, f1, ..."""

OK_STATUS, ERROR_STATUS = "ok", "error"


class FileState(NamedTuple):
    """The state of an input file, by which a change is noticed.

    Attributes:
        size: its bytes.
        mtime: time of modification, in nanoseconds since 1970.
    """

    size: int
    mtime: int


class Readable(Protocol):
    """What gives the bytes of an image."""

    def read(self, max_bytes: int) -> bytes:
        """Reads the image whole.

        Args:
            max_bytes: a larger one is refused.

        Raises:
            ImageError: it cannot be read.
        """


class Location(Readable, Protocol):
    """Where the bytes of an image are: a file, an object of a store, or a member of an archive."""

    @property
    def file(self) -> str:
        """Path or URL of the file that holds the image: its own, or that of its archive."""

    @property
    def offset(self) -> int | None:
        """Where in an archive the image is; None for an image that is a file of its own."""

    @property
    def size(self) -> int | None:
        """Its bytes, where they are known without looking."""

    @property
    def remote(self) -> bool:
        """Whether reading it takes a request to a server, so that it pays to begin early."""

    def fetch(self, max_bytes: int) -> tuple[bytes, FileState | None]:
        """Reads the image whole, with the state of its file at that time; see `read`."""

    def state(self) -> FileState | None:
        """The state of the file that holds the image; None where it cannot be had."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One input image, known by name only.

    Attributes:
        path: the `path` column: as the user gave it, joined with `/`, escaped so that it is always valid text.
        location: what to read.
        key: the bytes of the path relative to its source; what `--shard` hashes.
        error: what is wrong already at listing time (`ImageError`), else None. Such a ref is never opened.
        extra: values of the manifest's other columns, in the order of `Listing.extra_columns`.
    """

    path: str
    location: Location
    key: bytes
    error: ImageError | None = None
    extra: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """A batch on its way to the engine.

    Attributes:
        refs: b references, in the order of the sources.
        pixels: uint8[b, size, size, 3], RGB; zeros where there is an error.
        errors: for each ref its error, or None.
        states: for each ref the state of its file just before it was read, or None where that cannot be had.
    """

    refs: tuple[ImageRef, ...]
    pixels: NDArray[np.uint8]
    errors: tuple[ImageError | None, ...]
    states: tuple[FileState | None, ...] = ()


@dataclass(slots=True)
class Report:
    """What became of every input; decides the exit code, once.

    Attributes:
        listed: inputs that the sources gave.
        ok: rows with status `ok`.
        errors: number of error rows by `ImageError.reason`.
        skipped: directory entries that are not inputs, by reason (`hidden`, `not an image`, `excluded`, ...).
        resumed: rows that an earlier run had finished; they are among `ok` and `errors`.
    """

    listed: int = 0
    ok: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    resumed: int = 0

    def check(self, rows: int) -> None:
        """Makes sure that every image has its row, in what was counted and in what was written.

        Raises:
            XcliError: it has not. That must never happen, and nothing less than the end of the run will do.
        """
        from xcli.core.errors import XcliError

        if not self.listed == self.rows == rows:
            raise XcliError(
                f"the accounts do not balance: {self.listed} images were listed, {self.rows} counted and {rows} rows "
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
        """For JSON."""
        return {
            "listed": self.listed,
            "ok": self.ok,
            "errors": dict(self.errors),
            "skipped": dict(self.skipped),
            "resumed": self.resumed,
        }

    def count(self, errors: tuple[ImageError | None, ...]) -> None:
        """Adds the rows of one batch."""
        for error in errors:
            if error is None:
                self.ok += 1
            else:
                self.errors[error.reason] = self.errors.get(error.reason, 0) + 1

    def resume(self, ok: int, errors: Mapping[str, int]) -> None:
        """Adds the rows of an earlier run."""
        self.ok += ok
        for reason, count in errors.items():
            self.errors[reason] = self.errors.get(reason, 0) + count
        self.resumed += ok + sum(errors.values())


def default(kind: type, name: str) -> Any:
    """The default that a dataclass gives a field."""
    return next(one.default for one in fields(kind) if one.name == name)
