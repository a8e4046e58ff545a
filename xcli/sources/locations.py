"""The `Location` of an image in an object store."""

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
        listed_state: its state when it was listed; None if it was named without being listed.
    """

    url: str
    listed_state: FileState | None = None

    @property
    def size(self) -> int | None:
        """See `Location`."""
        return None if self.listed_state is None else self.listed_state.size

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
        """Reads all bytes of the object, with its state at that time.

        Args:
            max_bytes: a larger object is refused.

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
        """See `fetch`."""
        return self.fetch(max_bytes)[0]

    def state(self) -> FileState | None:
        """Returns its state in the listing, or else requests it from the store; None if it cannot be determined."""
        from xcli.storage.object_store import open_store

        if self.listed_state is not None:
            return self.listed_state
        try:
            return open_store(self.url).state()
        except (StoreError, UsageError):
            return None
