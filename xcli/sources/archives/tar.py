"""Lists tar archives by their headers. Formats: V7, ustar, GNU (long names), pax (path, size).

`tarfile` is not used, because it takes damage in the middle of an archive for its end, keeps every member in memory,
and reads extended headers of any size.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from xcli.core.errors import ImageError
from xcli.core.text import escape_path, short_text
from xcli.images.formats import MAX_FILE_BYTES
from xcli.sources.archives.limits import check_name
from xcli.sources.archives.members import DIRECTORY, FILE, LINK, SPECIAL, Entry, Kind, too_large
from xcli.sources.archives.tar_stream import CarryBudget, TarStream, open_stream
from xcli.storage.readers import open_reader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xcli.storage.readers import Reader

MAX_HEADER = 1 << 20
"""Largest size of an extended header, which holds names and times."""

_BLOCK = 512
_MAX_ZEROS = MAX_FILE_BYTES // _BLOCK
_MAX_NUMBER = 1 << 62
_MAX_PLACES = 1_000_000  # members that are kept for hard links; the last ones


def tar_entries(file: Reader, budget: CarryBudget) -> Iterator[Entry]:
    """Lists a tar archive, plain or compressed with gzip, bzip2, xz or Zstandard; its content tells which.

    A hard link is the member that it links to, by another name; one to no earlier member has an error.

    Archives that were concatenated are read as one, as with GNU tar's `--ignore-zeros`.

    Raises:
        ImageError: it is damaged, ends too early, or is not a tar; raised after the members before the damage.
    """
    yield from _Parser(open_stream(file, budget), file.path).entries()


_EXTENSIONS = b"xXgLK"
_HARD_LINK = b"1"
_NOT_FILES: dict[bytes, Kind] = {
    _HARD_LINK: LINK,
    b"2": LINK,
    b"3": SPECIAL,
    b"4": SPECIAL,
    b"5": DIRECTORY,
    b"6": SPECIAL,
}
_FILES = b"\x000" + b"7"


@dataclass(slots=True)
class _Extended:
    """What extended headers say about the member that follows them."""

    name: bytes | None = None
    link: bytes | None = None
    size: int | None = None
    sparse: bool = False
    begun: bool = False


class _Place(NamedTuple):
    """Where the bytes of an earlier member are, and what it is."""

    start: int
    size: int
    kind: Kind
    error: ImageError | None


class _Parser:
    """Reads the headers of a tar, one after the other.

    Only a hard link needs to know where earlier members are. So they are looked up with the first one, by reading the
    headers before it again, and kept from there on.
    """

    def __init__(self, stream: TarStream, path: str, *, keeps_places: bool = False) -> None:
        self._stream, self._path = stream, path
        self._places: dict[bytes, _Place] | None = {} if keeps_places else None
        self._members = 0
        self._zeros = 0  # number of blocks of zeros since the last member

    def entries(self) -> Iterator[Entry]:
        extended = _Extended()
        while (block := self._header()) is not None:
            kind = block[156:157]
            size = self._number(block[124:136], "size")
            if kind in _EXTENSIONS:
                extended.begun = True
                self._extend(extended, kind, size)
                continue
            if extended.size is not None:
                size = extended.size
            self._members += 1
            name = extended.name if extended.name is not None else _name(block)
            sparse = extended.sparse or kind == b"S"
            if kind == b"S":
                self._skip_map(block[482])
            start = self._stream.offset
            if kind == _HARD_LINK:
                entry = self._hard_link(name, extended.link if extended.link is not None else _text(block[157:257]))
            else:
                entry = self._entry(name, kind, size, sparse)
                self._keep(name, _Place(start, size, entry.kind, entry.error))
            yield entry
            self._stream.seek(start if kind in _NOT_FILES else start + size + -size % _BLOCK)
            extended = _Extended()
        if extended.begun:
            raise self._damage("corrupt", "an extended header that belongs to no member")

    def _entry(self, name: bytes, kind: bytes, size: int, sparse: bool) -> Entry:
        if kind in _NOT_FILES:
            return Entry(name, _NOT_FILES[kind])
        if kind not in _FILES and not sparse:
            return Entry(name, SPECIAL)
        if kind == b"\0" and name.endswith(b"/"):
            return Entry(name, DIRECTORY)  # V7 had no other way to say so
        if sparse:
            problem = ImageError("unsupported", "it is stored as a sparse file; unpack the archive first")
            return Entry(name, FILE, error=problem)
        if size > (limit := self._stream.max_member()):
            return Entry(name, FILE, error=too_large(size, limit))
        return Entry(name, FILE, partial(self._stream.member, size))

    def _keep(self, name: bytes, place: _Place) -> None:
        if self._places is None:
            return
        self._places.pop(_plain(name), None)
        self._places[_plain(name)] = place  # at the end, as the one that was met last
        if len(self._places) > _MAX_PLACES:
            del self._places[next(iter(self._places))]

    def _hard_link(self, name: bytes, target: bytes) -> Entry:
        """Resolves a hard link; as in unpacking, the last earlier member of that name counts."""
        if self._places is None:
            self._places = self._earlier_places()
        place = self._places.get(_plain(target))
        if place is None:
            shown = short_text(escape_path(os.fsdecode(target)))
            error = ImageError("missing", f"it is a hard link to '{shown}', which is not in the archive before it")
            return Entry(name, FILE, error=error)
        self._keep(name, place)
        if place.kind != FILE or place.error is not None:
            return Entry(name, place.kind, error=place.error)
        return Entry(name, FILE, lambda carry: self._stream.member_at(place.start, place.size, carry))

    def _earlier_places(self) -> dict[bytes, _Place]:
        with open_reader(self._path) as file:
            parser = _Parser(open_stream(file, CarryBudget()), self._path, keeps_places=True)
            for _ in islice(parser.entries(), self._members - 1):
                pass
            return parser._places or {}

    def _header(self) -> bytes | None:
        """Reads the next header; None at the end. Blocks of zeros are the end unless a header follows them."""
        while True:
            start = self._stream.offset
            block = self._stream.read(_BLOCK)
            if block.count(0) == len(block):  # also true of an empty block
                if len(block) < _BLOCK:
                    if self._zeros:
                        return None
                    raise self._damage("truncated", "it is cut off: the end-of-archive marker is missing")
                self._zeros += 1
                if self._zeros > _MAX_ZEROS:
                    raise self._damage("corrupt", "nothing but zeros follows")
                continue
            if len(block) == _BLOCK and _checksum_holds(block):
                self._zeros = 0
                return block
            if start == 0:
                raise ImageError("not-an-image", "it has the name of a tar archive, but its content is none")
            if len(block) < _BLOCK:
                raise self._damage("truncated", "it is cut off within a header")
            raise self._damage("corrupt", f"there is no header at byte {start:,}")

    def _damage(self, reason: str, what: str) -> ImageError:
        count = f"{self._members:,} member{'' if self._members == 1 else 's'}"
        return ImageError(reason, f"the archive is damaged after {count}: {what}")

    def _number(self, text: bytes, what: str) -> int:
        if text[0] & 0x80:  # base 256; a set bit below is the sign
            value = -1 if text[0] & 0x40 else int.from_bytes(text, "big") ^ (0x80 << 8 * (len(text) - 1))
        else:
            digits = text.split(b"\0", 1)[0].strip()
            value = int(digits or b"0", 8) if not digits.strip(b"01234567") else -1
        if not 0 <= value < _MAX_NUMBER:
            raise self._damage("corrupt", f"a header with an impossible {what}")
        return value

    def _extend(self, extended: _Extended, kind: bytes, size: int) -> None:
        if size > MAX_HEADER:
            raise self._damage("corrupt", f"an extended header of {size:,} bytes")
        self._stream.limits.spend("bytes of extended headers", size)
        data = self._need(size)
        self._stream.seek(self._stream.offset + -size % _BLOCK)
        if kind == b"L":
            extended.name = check_name(_text(data))
        elif kind in b"xX":
            self._read_pax(extended, data)
        elif kind == b"K":
            extended.link = check_name(_text(data))
        # g holds defaults, which no program gives to names or sizes.

    def _read_pax(self, extended: _Extended, data: bytes) -> None:
        """Reads records of the form `LENGTH KEY=VALUE`, each with a newline at its end."""
        position = 0
        while position < len(data) and data[position]:
            digits, space, _ = data[position : position + 20].partition(b" ")
            length = int(digits) if digits.isdigit() and space else 0
            record = data[position + len(digits) + 1 : position + length]
            key, equals, value = record.partition(b"=")
            if position + length > len(data) or not equals or not value.endswith(b"\n"):
                raise self._damage("corrupt", "an extended header that cannot be read")
            position += length
            value = value[:-1]
            if key == b"path" and not extended.sparse:
                extended.name = check_name(value) or None
            elif key == b"linkpath":
                extended.link = check_name(value)
            elif key == b"GNU.sparse.name":
                extended.name, extended.sparse = check_name(value), True
            elif key.startswith(b"GNU.sparse."):
                extended.sparse = True
            elif key == b"size":
                if not value.isdigit() or len(value) > 18:
                    raise self._damage("corrupt", "an extended header with an impossible size")
                extended.size = int(value)

    def _skip_map(self, more: int) -> None:
        """Skips the blocks in which the map of holes of an old GNU sparse member continues."""
        while more:
            self._stream.limits.spend("bytes of extended headers", _BLOCK)
            more = self._need(_BLOCK)[504]

    def _need(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) < count:
            raise self._damage("truncated", "it is cut off within a header")
        return data


def _checksum_holds(block: bytes) -> bool:
    digits = block[148:156].split(b"\0", 1)[0].strip()
    if not digits or digits.strip(b"01234567"):
        return False
    announced = int(digits, 8)
    counted = block[:148] + b" " * 8 + block[156:]
    if sum(counted) == announced:
        return True
    # Some old programs added the bytes as signed numbers.
    return sum(counted) - 256 * sum(byte > 127 for byte in counted) == announced


def _text(data: bytes) -> bytes:
    return data.split(b"\0", 1)[0]


def _plain(name: bytes) -> bytes:
    """Returns the name of a member without empty components and `.`, which its links may lack."""
    return b"/".join(part for part in name.split(b"/") if part not in (b"", b"."))


def _name(block: bytes) -> bytes:
    name, prefix = _text(block[:100]), _text(block[345:500])
    is_ustar = block[257:263] == b"ustar\0"  # GNU's format has times where ustar has the directory
    return prefix + b"/" + name if is_ustar and prefix else name
