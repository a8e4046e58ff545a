"""Images within archives: what tar and zip archives have in common.

A `Member` is the location of an image; it reads its own bytes, in whichever thread needs them. Nothing in this package
writes a file, follows a link of an archive, or uses a member's name as a path.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from xcli.core.errors import ImageError
from xcli.core.records import FileState
from xcli.images.formats import MAX_FILE_BYTES
from xcli.sources.locations import RemoteObject
from xcli.storage.local import state_of_file
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from xcli.storage.readers import FileIdentity

TAR_EXTENSIONS = tuple(b".tar .tar.gz .tgz .tar.bz2 .tbz2 .tbz .tar.xz .txz .tar.zst .tzst".split())
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


@dataclass(frozen=True, slots=True)
class Member(ABC):
    """The `Location` of an image within an archive.

    Attributes:
        archive: path of the archive's file, or its URL.
        offset: position of the member in bytes; together with `archive` it tells members of one name apart.
        size: its size in bytes.
        identity: what the archive's file was when it was listed.
    """

    archive: str
    offset: int
    size: int
    identity: FileIdentity | None

    def read(self, max_bytes: int) -> bytes:
        """Reads all bytes of the member.

        Raises:
            ImageError: `missing`, `unreadable`, `truncated`, `corrupt`, or `too-large` for more than `max_bytes`.
        """
        if self.size > max_bytes:
            raise too_large(self.size, max_bytes)
        return self._read()

    @abstractmethod
    def _read(self) -> bytes: ...

    @property
    def file(self) -> str:
        return self.archive

    @property
    def remote(self) -> bool:
        return is_url(self.archive)

    def fetch(self, max_bytes: int) -> tuple[bytes, FileState | None]:
        return self.read(max_bytes), self.state()

    def state(self) -> FileState | None:
        if not is_url(self.archive):
            return state_of_file(self.archive)
        if self.identity is None:
            return RemoteObject(self.archive).state()
        return FileState.of(self.identity.size, self.identity.modified)


@dataclass(frozen=True, slots=True)
class WholeArchive(Member):
    """Stands for all the images in an archive, which are listed where they are read.

    `key` and `trusted` are as in `Archives.members`.
    """

    offset: int = 0
    size: int = 0
    identity: FileIdentity | None = None
    key: bytes = b""
    trusted: int | None = None

    def _read(self) -> bytes:
        raise NotImplementedError("an archive is read by its members")


@dataclass(slots=True)
class Entry:
    """What a listing finds in an archive.

    Attributes:
        name: the member's name, as the archive has it.
        kind: `FILE`, `DIRECTORY`, `LINK` or `SPECIAL`.
        take: makes the member; only for a `FILE` without an error, and only until the next entry is requested. Its
            argument says whether bytes that would be expensive to read again are to be read at once.
        error: why the member cannot be read, if that is known already.
    """

    name: bytes
    kind: Kind
    take: Callable[[bool], Member] | None = None
    error: ImageError | None = None


def too_large(size: int, limit: int = MAX_FILE_BYTES) -> ImageError:
    """Returns the error of a member of `size` bytes."""
    return ImageError("too-large", f"a member of {size:,} bytes; the limit is {limit:,}")
