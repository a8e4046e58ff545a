"""Images in object stores: the location that an `ImageRef` carries instead of a path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xcli.core.errors import ImageError, UsageError
from xcli.storage.object_store.errors import StoreError, image_errors

if TYPE_CHECKING:
    from xcli.core.records import FileState


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """An object of a store; small, and the same on every machine.

    Attributes:
        url: as the user gave it.
        stamp: its state when it was listed; None where it was named without being listed.
    """

    url: str
    stamp: FileState | None = None

    @property
    def size(self) -> int | None:
        """Its bytes, where they are known."""
        return None if self.stamp is None else self.stamp.size

    @property
    def file(self) -> str:
        """See `Location`."""
        return self.url

    @property
    def offset(self) -> None:
        """See `Location`."""

    @property
    def remote(self) -> bool:
        """See `Location`."""
        return True

    def fetch(self, max_bytes: int) -> tuple[bytes, FileState | None]:
        """Reads the object whole, with the state in which it was.

        Args:
            max_bytes: a larger one is refused.

        Raises:
            ImageError: `missing`, `unreadable`, `empty` or `too-large`.
        """
        from xcli.storage.object_store import open_store
        from xcli.storage.object_store.state import too_large

        if self.size is not None and self.size > max_bytes:
            raise too_large(self.size, max_bytes)
        with image_errors():
            content = open_store(self.url).get(max_bytes)
        if not content.data:
            raise ImageError("empty", "the object has zero bytes")
        return content.data, content.state

    def read(self, max_bytes: int) -> bytes:
        """Reads the object whole; see `fetch`."""
        return self.fetch(max_bytes)[0]

    def state(self) -> FileState | None:
        """Its state: that of the listing, or what the store says now; None where it cannot be had."""
        return self.stamp or state_of(self.url)


def state_of(url: str) -> FileState | None:
    """The state of an object now; None where it cannot be had."""
    from xcli.storage.object_store import open_store

    try:
        return open_store(url).state()
    except (StoreError, UsageError):
        return None
