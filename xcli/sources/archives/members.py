"""Images within archives: what every kind of archive has in common.

A `Member` is what an `ImageRef` carries instead of a path; it reads its own bytes, in whatever thread wants them.
Nothing here or in `tars` and `zips` writes a file, follows a link of an archive, or uses a member's name as a path.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from xcli.core.errors import ImageError
from xcli.core.records import FileState
from xcli.images.formats import MAX_FILE_BYTES
from xcli.storage.local import FileIdentity, state_of_file
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Callable

TAR_EXTENSIONS = (b".tar", b".tar.gz", b".tgz", b".tar.zst", b".tzst")
ARCHIVE_EXTENSIONS = (*TAR_EXTENSIONS, b".zip")
"""Extensions, in lower case, by which a file counts as an archive."""

Kind = Literal["file", "directory", "link", "special file"]
FILE: Final = "file"
DIRECTORY: Final = "directory"
LINK: Final = "link"
SPECIAL: Final = "special file"
"""Kinds of members; the last two are also the reasons under which a listing counts them."""


def is_archive_name(path: bytes) -> bool:
    """Says whether a path has the extension of an archive that can be read here."""
    return path.lower().endswith(ARCHIVE_EXTENSIONS)


class Member(ABC):
    """An image within an archive.

    Attributes:
        archive: path of the archive's file, or its URL.
        offset: where in the archive the member is; with `archive` it tells members of one name apart.
        size: its bytes.
    """

    __slots__ = ()

    archive: str
    offset: int
    size: int

    @abstractmethod
    def read(self, max_bytes: int) -> bytes:
        """Reads the member whole.

        Args:
            max_bytes: larger members are refused; no more than that is ever unpacked.

        Raises:
            ImageError: `missing`, `unreadable`, `truncated`, `corrupt` or `too-large`.
        """

    @property
    def file(self) -> str:
        """See `Location`."""
        return self.archive

    @property
    def remote(self) -> bool:
        """See `Location`."""
        return is_url(self.archive)

    def fetch(self, max_bytes: int) -> tuple[bytes, FileState | None]:
        """See `Location`."""
        return self.read(max_bytes), self.state()

    def state(self) -> FileState | None:
        """The state of the archive, by which a change is noticed; None where it cannot be had."""
        if not is_url(self.archive):
            return state_of_file(self.archive)
        identity: FileIdentity | None = getattr(self, "identity", None)
        if identity is not None:
            return FileState(identity.size, identity.modified)
        from xcli.sources.locations import state_of

        return state_of(self.archive)


@dataclass(frozen=True, slots=True)
class WholeArchive(Member):
    """The location of a reference that stands for all the images in an archive, to be listed where they are read.

    Attributes:
        archive: path of the archive's file.
        key: its path relative to the source; empty if it is the source itself.
        offset: 0.
    """

    archive: str
    key: bytes
    offset: int = 0

    def read(self, max_bytes: int) -> bytes:
        """Never called: what is read is its members."""
        raise NotImplementedError("an archive is read by its members")


@dataclass(slots=True)
class Entry:
    """What a listing finds in an archive.

    Attributes:
        name: the member's name, as the archive has it.
        kind: `FILE`, `DIRECTORY`, `LINK` or `SPECIAL`.
        take: gives the member; only of a `FILE` without an error, and only until the next entry is asked for. Its
            argument says whether bytes that cannot be had again cheaply are to be read at once.
        error: why the member cannot be read, if that is known already.
    """

    name: bytes
    kind: Kind
    take: Callable[[bool], Member] | None = None
    error: ImageError | None = None


def too_large(size: int, limit: int = MAX_FILE_BYTES) -> ImageError:
    """The error of a member of `size` bytes."""
    return ImageError("too-large", f"a member of {size:,} bytes; the limit is {limit:,}")
