"""Images in object stores: the location that an `ImageRef` carries instead of a path."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xcli.core.errors import ImageError, UsageError, XcliError
from xcli.storage.urls import CloudError
from xcli.tables.schema import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xcli.outputs.resume import Stamp
    from xcli.storage.object_store import Content


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """An object of a store; small, and the same on every machine.

    Attributes:
        url: as the user gave it.
        stamp: its state when it was listed; None where it was named without being listed.
    """

    url: str
    stamp: Stamp | None = None

    @property
    def size(self) -> int | None:
        """Its bytes, where they are known."""
        return None if self.stamp is None else self.stamp.size

    @property
    def distant(self) -> bool:
        """Reading it takes a request to a server."""
        return True

    def fetch(self, max_bytes: int) -> Content:
        """Reads the object whole, with the state in which it was.

        Args:
            max_bytes: a larger one is refused.

        Raises:
            ImageError: `missing`, `unreadable`, `empty` or `too-large`.
        """
        from xcli.storage.object_store import get, too_large

        if self.size is not None and self.size > max_bytes:
            raise too_large(self.size, max_bytes)
        with image_errors():
            content = get(self.url, max_bytes)
        if not content.data:
            raise ImageError("empty", "the object has zero bytes")
        return content

    def read(self, max_bytes: int) -> bytes:
        """Reads the object whole; see `fetch`."""
        return self.fetch(max_bytes).data

    def state(self) -> Stamp | None:
        """Its state: that of the listing, or what the store says now; None where it cannot be had."""
        return self.stamp or state_of(self.url)


def state_of(url: str) -> Stamp | None:
    """The state of an object now; None where it cannot be had."""
    from xcli.storage.object_store import look

    try:
        return look(url)
    except (CloudError, UsageError):
        return None


@contextmanager
def image_errors() -> Iterator[None]:
    """A context in which a `CloudError` is an `ImageError`, and so is whatever else a package may raise for one object.

    What is wrong with the whole run, such as a package that is missing, stays as it is.
    """
    try:
        yield
    except (ImageError, XcliError):
        raise
    except CloudError as error:
        raise as_image_error(error) from error
    except MemoryError as error:
        raise ImageError("too-large", "not enough memory to read it") from error
    except Exception as error:
        raise ImageError("unreadable", f"{type(error).__name__}: {' '.join(one_line(str(error)).split())}") from error


def as_image_error(error: CloudError) -> ImageError:
    """What a `CloudError` means for an image."""
    return ImageError("missing" if error.reason == "missing" else "unreadable", error.message)
