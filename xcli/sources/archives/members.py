"""Images within archives: what every kind of archive has in common.

A `Member` is what an `ImageRef` carries instead of a path; it reads its own bytes, in whatever thread wants them.
Nothing here or in `tars` and `zips` writes a file, follows a link of an archive, or uses a member's name as a path.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, Protocol, Self

from xcli.core.errors import ImageError
from xcli.core.records import FileState
from xcli.images.formats import MAX_FILE_BYTES
from xcli.storage.local import ELSEWHERE, FileIdentity, open_file, state_of_file
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

TAR_EXTENSIONS = (b".tar", b".tar.gz", b".tgz", b".tar.zst", b".tzst")
ARCHIVE_EXTENSIONS = (*TAR_EXTENSIONS, b".zip")
"""Extensions, in lower case, by which a file counts as an archive."""

_BUFFER = 1 << 20

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
        stamp: FileIdentity | None = getattr(self, "stamp", None)
        if stamp is not None:
            return FileState(stamp.size, stamp.modified)
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


class Archive(Protocol):
    """An archive, open for reading at any position: on this machine, or in an object store.

    Attributes:
        path, stamp: its path or URL, and its state.
    """

    path: str
    stamp: FileIdentity

    def read_at(self, offset: int, count: int) -> bytes:
        """Reads `count` bytes, or fewer where the archive ends; raises ImageError."""

    def expect(self, offset: int, count: int) -> None:
        """Says that so much will be read, in smaller parts."""

    def stream(self) -> BinaryIO:
        """A file over the archive, from its beginning; to close it leaves the archive open."""

    def close(self) -> None:
        """Closes the archive."""

    def __enter__(self) -> Self:
        """Returns the archive, for `with`."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the archive."""


def open_archive(path: str, stamp: FileIdentity | None = None) -> Archive:
    """Opens an archive by its path or URL.

    Args:
        path: the archive.
        stamp: what it must be still, if it was listed before.

    Raises:
        ImageError: it cannot be opened, is no regular file, or has changed.
    """
    if is_url(path):
        from xcli.storage.readers import RemoteArchive

        return RemoteArchive(path, stamp)
    return OpenArchive(path, stamp)


class OpenArchive:
    """An archive's file, open for reading at any position.

    Args:
        path: the file.
        stamp: what it must be still, if it was listed before.

    Attributes:
        descriptor, path, stamp: of the open file.

    Raises:
        ImageError: it cannot be opened, is no regular file, or has changed.
    """

    def __init__(self, path: str, stamp: FileIdentity | None = None) -> None:
        self.path = path
        self.descriptor, status = open_file(path)
        self.stamp = FileIdentity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        same = stamp is None or stamp[-2:] == self.stamp[-2:]
        if not same or (stamp is not None and stamp.device != ELSEWHERE and stamp != self.stamp):
            # Positions out of the old archive would give other bytes under the member's name.
            self.close()
            raise ImageError("unreadable", "the archive has changed since it was listed")

    def read_at(self, offset: int, count: int) -> bytes:
        """Reads `count` bytes, or fewer where the file ends.

        Raises:
            ImageError: `unreadable`.
        """
        parts: list[bytes] = []
        try:
            while count > 0 and (data := os.pread(self.descriptor, count, offset)):
                parts.append(data)
                offset, count = offset + len(data), count - len(data)
        except OSError as error:
            raise ImageError("unreadable", error.strerror or str(error)) from error
        except MemoryError as error:
            raise ImageError("too-large", f"not enough memory to read its {count:,} bytes") from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def expect(self, offset: int, count: int) -> None:
        """Says that so much will be read, in smaller parts; a disk does not need to know."""

    def stream(self) -> BinaryIO:
        """A file over the archive, from its beginning; to close it leaves the archive open."""
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        return open(self.descriptor, "rb", closefd=False, buffering=_BUFFER)

    def close(self) -> None:
        """Closes the file."""
        os.close(self.descriptor)

    def __enter__(self) -> OpenArchive:
        """Returns the archive, for `with`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file."""
        self.close()
