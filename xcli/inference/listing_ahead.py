"""Listing that runs ahead of the computing, so that the number of images is known early.

References wait in packed form, 4 to 30 bytes each, so that 64 MiB hold millions. Members of archives may hold their
bytes, and are listed only as they are needed.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.core.records import FileState, ImageRef
from xcli.sources.carried import carried_size
from xcli.sources.locations import RemoteObject
from xcli.storage.local import LocalFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xcli.core.records import Location

_MOST_BYTES = 64 << 20
_CHUNK, _CARRIED, _MEMBERS = 1024, 1 << 20, 8
"""References that are packed together: so many, or fewer that carry so many bytes; and members that wait at most."""

_PATIENCE = 1.0  # seconds in which a listing that was stopped ends, unless its disk hangs


_OBJECT_BYTES = 1024  # what a reference that stays an object is counted as
_SCALARS = frozenset((str, int, float, bool, type(None)))


class Packed(NamedTuple):
    """Some references.

    Attributes:
        data: those that JSON keeps, compressed, with null in the place of each other one.
        length: of the JSON.
        objects: the others, in their order.
    """

    data: bytes
    length: int
    objects: list[ImageRef]

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return len(self.data) + _OBJECT_BYTES * len(self.objects)


class ListingAhead:
    """References in their order, taken in a thread of this object; to be iterated once.

    Args:
        refs: the references. What their iteration raises is raised after the references before.
        whole: the first reference is given when all are listed, or no more have room; what the iteration raises until
            then is raised at once.
    """

    def __init__(self, refs: Iterator[ImageRef], *, whole: bool = False) -> None:
        self._refs, self._holds = refs, whole
        self._waiting: list[ImageRef] = []  # behind those that are packed
        self._carried = 0  # bytes from a manifest that these carry
        self._packed: deque[Packed] = deque()
        self._bytes = 0
        self._ended = self._stopped = self._starving = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._list, name="xception-listing-ahead", daemon=True)

    def __iter__(self) -> Iterator[ImageRef]:
        self._thread.start()
        while refs := self._next():
            yield from refs

    def _next(self) -> list[ImageRef]:
        """Returns the next references; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._stopped or not self._holds)
            if self._holds and self._error is not None:
                raise self._error
            self._holds = False
            self._starving = True
            self._changed.wait_for(lambda: self._packed or self._waiting or self._ended or self._stopped)
            self._starving = False
            if self._stopped:
                return []
            packed = self._packed.popleft() if self._packed else None
            refs = []
            if packed is not None:
                self._bytes -= packed.size
            else:
                refs = self._take_waiting()
            if packed is None and not refs and self._error is not None:
                raise self._error
            self._changed.notify_all()
        return refs if packed is None else unpack(packed)

    def _list(self) -> None:
        try:
            for ref in self._refs:
                self._add(ref)
                if self._stopped:
                    break
        except BaseException as error:  # noqa: BLE001 - raised again, as it is, where the references are consumed
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _add(self, ref: ImageRef) -> None:
        with self._changed:
            self._waiting.append(ref)
            self._carried += carried_size(ref.extra) if ref.extra else 0
            if self._starving:
                self._changed.notify_all()
            if ref.location.offset is not None:
                self._wait(lambda: len(self._waiting) < _MEMBERS and not self._packed)
            if len(self._waiting) < _CHUNK and self._carried < _CARRIED:
                return
            refs = self._take_waiting()
        packed = pack(refs)
        with self._changed:
            self._packed.append(packed)
            self._bytes += packed.size
            self._changed.notify_all()
            self._wait(lambda: self._bytes <= _MOST_BYTES)

    def _take_waiting(self) -> list[ImageRef]:
        refs, self._waiting, self._carried = self._waiting, [], 0
        return refs

    def _wait(self, has_room: Callable[[], bool]) -> None:
        """Waits until the consumer has taken enough."""
        if not has_room():
            self._holds = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._stopped or has_room())

    def stop(self) -> None:
        """Ends the iteration and the listing early, from any thread but the listing's own."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE)


def pack(refs: list[ImageRef]) -> Packed:
    """Packs references; those with an error, and those that carry other values than texts and numbers, stay objects."""
    import pyarrow as pa

    items = [_plain(ref) for ref in refs]
    text = json.dumps(items, separators=(",", ":")).encode()
    objects = [ref for ref, item in zip(refs, items, strict=True) if item is None]
    return Packed(pa.compress(text, "zstd", asbytes=True), len(text), objects)


def unpack(packed: Packed) -> list[ImageRef]:
    """Returns what `pack` was given."""
    import pyarrow as pa

    items = json.loads(pa.decompress(packed.data, packed.length, "zstd", asbytes=True))
    objects = iter(packed.objects)
    return [next(objects) if item is None else _restored(*item) for item in items]


def _plain(ref: ImageRef) -> list[Any] | None:
    """Returns a reference to a file or an object of a store as values that JSON keeps; None for another one."""
    place = ref.location
    if ref.error is not None or not _SCALARS.issuperset(map(type, ref.extra)):
        return None
    if type(place) is LocalFile:
        return [ref.path, ref.key.decode("latin-1"), ref.extra, place.path, place.trusted]
    if type(place) is RemoteObject:
        return [ref.path, ref.key.decode("latin-1"), ref.extra, place.file, None, place.listed_state or ()]
    return None


def _restored(
    path: str, key: str, extra: list[Any], file: str, trusted: int | None, state: list[int] | None = None
) -> ImageRef:
    place: Location = LocalFile(file, trusted=trusted)
    if state is not None:
        place = RemoteObject(file, FileState(*state) if state else None)
    return ImageRef(path, place, key.encode("latin-1"), None, tuple(extra))
