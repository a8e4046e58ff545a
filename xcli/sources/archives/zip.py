"""Lists zip archives by their central directory, read as a stream, and unpacks single members.

`zipfile` is not used, because it keeps every member in memory and refuses a whole archive for one invalid name. Members
may be stored, deflated or compressed with bzip2, in Zip64 too; encrypted members and archives in several parts are not
read.
"""

from __future__ import annotations

import bz2
import io
import stat
import struct
import zlib
from array import array
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from xcli.core.errors import ImageError
from xcli.images.formats import MAX_FILE_BYTES
from xcli.sources.archives.limits import check_name, member_limit
from xcli.sources.archives.members import DIRECTORY, FILE, LINK, SPECIAL, Entry, Kind, Member, too_large
from xcli.storage.readers import Reader, open_reader

if TYPE_CHECKING:
    from collections.abc import Iterator

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_COMMENT = (1 << 16) - 1
_MAX_LOCAL_EXTRA = 1024  # bytes that are requested for the name and the extensions of a local header
_MAX_OVERHEAD = 1 << 20
_PIECE = 16 << 20

_STORED, _DEFLATED, _BZIP2 = 0, 8, 12
_METHODS = {1: "shrink", 6: "implode", 9: "deflate64", 14: "LZMA", 93: "Zstandard", 95: "xz", 98: "PPMd", 99: "AES"}


@dataclass(frozen=True, slots=True)
class ZipMember(Member):
    """A member of a zip: its local header is at `offset`, `packed` bytes follow that unpack to `size`."""

    packed: int
    method: int
    crc: int

    def _read(self) -> bytes:
        with open_reader(self.archive, self.identity) as file:
            file.expect(self.offset, _LOCAL.size + _MAX_LOCAL_EXTRA + self.packed)
            head = file.read_at(self.offset, _LOCAL.size)
            if len(head) < _LOCAL.size or not head.startswith(b"PK\3\4"):
                raise ImageError("corrupt", f"the archive has no member at byte {self.offset:,}")
            *_, name, extra = _LOCAL.unpack(head)
            data = self._unpack(file, self.offset + _LOCAL.size + name + extra)
        if len(data) < self.size:
            raise ImageError("truncated", f"the member ends after {len(data):,} of {self.size:,} bytes")
        if len(data) > self.size:
            raise ImageError("corrupt", f"the member unpacks to more than the {self.size:,} bytes it declares")
        if zlib.crc32(data) != self.crc:
            raise ImageError("corrupt", "the member's checksum (CRC-32) is wrong")
        return data

    def _unpack(self, file: Reader, start: int) -> bytes:
        """Returns the unpacked data, of which at most one byte is more than declared."""
        if self.method == _STORED:
            return file.read_at(start, self.size)
        # Compression does not make data much longer; the limit keeps a false header from filling the memory.
        packed = file.read_at(start, min(self.packed, 2 * self.size + _MAX_OVERHEAD))
        try:
            deflated = self.method == _DEFLATED
            decoder = zlib.decompressobj(-zlib.MAX_WBITS) if deflated else bz2.BZ2Decompressor()
            # In pieces: at the end of a single call everything would be there twice.
            data = io.BytesIO()
            while not decoder.eof and (room := self.size + 1 - data.tell()) > 0:
                piece = decoder.decompress(packed, min(room, _PIECE))
                if not piece:
                    break
                data.write(piece)
                packed = getattr(decoder, "unconsumed_tail", b"")
            return data.getvalue()
        except (zlib.error, OSError) as error:
            raise ImageError("corrupt", f"the member cannot be unpacked: {error}") from error
        except MemoryError as error:
            raise ImageError("too-large", f"not enough memory to unpack its {self.size:,} bytes") from error


class _Directory(NamedTuple):
    """Where the central directory lies in the file."""

    start: int
    end: int
    members: int  # as many as the archive announces
    shift: int  # bytes before the zip in the file, to be added to every offset
    wide: bool  # whether the numbers come from Zip64


def zip_entries(file: Reader) -> Iterator[Entry]:
    """Lists a zip archive in the order of its central directory.

    Raises:
        ImageError: it is damaged, cut off, or not a zip; raised after the members before the damage.
    """
    directory = _find_directory(file)
    overlapping = _overlapping(file, directory)
    count = 0
    for count, (fields, tail) in enumerate(_records(file, directory), start=1):
        yield _entry(file, directory, fields, tail, overlaps=count in overlapping)
    # Some archives without Zip64 have more members than 16 bits can count.
    if directory.members != (count if directory.wide else count & 0xFFFF):
        counts = f"lists {count:,} members, the archive announces {directory.members:,}"
        raise _damage("corrupt", f"the central directory {counts}")


def _records(file: Reader, directory: _Directory) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """Reads the central directory: of each member the fields, and the name with what follows it."""
    count = 0
    try:
        with file.stream() as stream:
            stream.seek(directory.start)
            position = directory.start
            while position < directory.end:
                head = stream.read(_CENTRAL.size)
                if len(head) < _CENTRAL.size or not head.startswith(b"PK\1\2"):
                    raise _damage("corrupt", f"the central directory is damaged after {count:,} members")
                fields = _CENTRAL.unpack(head)
                length = sum(fields[10:13])
                tail = stream.read(length)
                position += len(head) + length
                if len(tail) < length or position > directory.end:
                    raise _damage("corrupt", f"the central directory is cut off after {count:,} members")
                count += 1
                yield fields, tail
    except OSError as error:
        raise ImageError("unreadable", error.strerror or str(error)) from error


def _overlapping(file: Reader, directory: _Directory) -> set[int]:
    """Returns the numbers, from 1, of the files whose data overlap those of one that begins before, or with, them.

    Without this a few bytes could be the data of any number of members.
    """
    numbers, starts, ends = array("L"), array("Q"), array("Q")
    in_order = True
    with suppress(ImageError):  # which the listing meets again
        for number, (fields, tail) in enumerate(_records(file, directory), start=1):
            sizes = _sizes(directory, fields, tail)
            if sizes is None or _kind_of(fields, tail) != FILE:
                continue
            _, packed, offset = sizes
            end = offset + _LOCAL.size + fields[10] + packed
            if end <= file.identity.size:
                in_order = in_order and (not ends or offset >= ends[-1])
                numbers.append(number)
                starts.append(offset)
                ends.append(end)
    if in_order:
        return set()
    found, reached = set(), 0
    for index in sorted(range(len(starts)), key=starts.__getitem__):
        if starts[index] < reached:
            found.add(numbers[index])
        else:
            reached = ends[index]
    return found


def _damage(reason: str, what: str) -> ImageError:
    return ImageError(reason, f"the archive is damaged: {what}")


def _find_directory(file: Reader) -> _Directory:
    length = file.identity.size
    if length == 0:
        raise ImageError("empty", "the archive has zero bytes")
    begin = max(0, length - _END.size - _MAX_COMMENT)
    tail = file.read_at(begin, length - begin)
    place = tail.rfind(b"PK\5\6")
    # The four bytes may also occur in the comment, which must then reach to the end or beyond.
    while place >= 0 and (len(tail) < place + _END.size or _comment_end(tail, place) > len(tail)):
        place = tail.rfind(b"PK\5\6", 0, place)
    if place < 0:
        if file.read_at(0, 4) == b"PK\3\4":
            raise ImageError("truncated", "the archive is cut off: its central directory is missing")
        raise ImageError("not-an-image", "it has the name of a zip archive, but its content is none")
    _, disk, first_disk, _, count, size, offset, _ = _END.unpack_from(tail, place)
    end = begin + place
    wide = False
    locator = file.read_at(max(0, end - _LOCATOR64.size), _LOCATOR64.size) if end >= _LOCATOR64.size else b""
    if locator.startswith(b"PK\6\7"):
        _, disk, where, _ = _LOCATOR64.unpack(locator)
        # Bytes before the zip move this record too; without extensions it lies right before its locator.
        for candidate in (where, end - _LOCATOR64.size - _END64.size):
            record = file.read_at(candidate, _END64.size) if 0 <= candidate < length else b""
            if len(record) == _END64.size and record.startswith(b"PK\6\6"):
                _, _, _, _, disk, first_disk, _, count, size, offset = _END64.unpack(record)
                end, wide = candidate, True
                break
        else:
            raise _damage("corrupt", "the record of the end of the central directory is not where it should be")
    if disk or first_disk:
        raise ImageError("unsupported", "the archive is one of several parts; join them first")
    shift = end - size - offset
    if shift < 0 or end - size < 0:
        raise _damage("corrupt", "its central directory is not where it should be")
    return _Directory(end - size, end, count, shift, wide)


def _comment_end(tail: bytes, place: int) -> int:
    return place + _END.size + int.from_bytes(tail[place + _END.size - 2 : place + _END.size], "little")


def _entry(file: Reader, directory: _Directory, fields: tuple[int, ...], tail: bytes, *, overlaps: bool) -> Entry:
    flags, method, crc = fields[3], fields[4], fields[7]
    # The encoding of a name without the UTF-8 flag is unknown, so names are bytes, as in a directory.
    name = check_name(tail[: fields[10]])
    kind = _kind_of(fields, tail)
    if kind != FILE:
        return Entry(name, kind)
    sizes = _sizes(directory, fields, tail)
    if sizes is None:
        return Entry(name, FILE, error=ImageError("corrupt", "the archive does not say how large it is"))
    size, packed, offset = sizes
    error = None
    if flags & 1:
        error = ImageError("unreadable", "it is encrypted")
    elif method not in (_STORED, _DEFLATED, _BZIP2):
        error = ImageError("unsupported", f"it is packed with {_METHODS.get(method, f'method {method}')}")
    elif overlaps:
        error = ImageError("corrupt", "its data overlap those of another member")
    elif size > (limit := min(MAX_FILE_BYTES, member_limit(packed))):
        error = too_large(size, limit)
    elif method == _STORED and packed != size:
        error = ImageError("corrupt", f"it is stored as it is, in {packed:,} bytes for {size:,}")
    elif offset + _LOCAL.size + packed > file.identity.size:
        error = ImageError("truncated", "its data lies beyond the end of the archive")
    if error is not None:
        return Entry(name, FILE, error=error)
    member = ZipMember(file.path, offset, size, file.identity, packed, method, crc)
    return Entry(name, FILE, lambda carry: member)


def _kind_of(fields: tuple[int, ...], tail: bytes) -> Kind:
    name, mode = tail[: fields[10]], fields[15] >> 16 if fields[1] >> 8 == 3 else 0
    if name.endswith(b"/") or stat.S_ISDIR(mode):
        return DIRECTORY
    if stat.S_ISLNK(mode):
        return LINK
    return FILE if stat.S_ISREG(mode) or not stat.S_IFMT(mode) else SPECIAL


def _sizes(directory: _Directory, fields: tuple[int, ...], tail: bytes) -> tuple[int, int, int] | None:
    """Returns size, packed size and offset; Zip64 stores those behind the name that exceed 32 bits. None is damage."""
    values = [fields[9], fields[8], fields[16]]
    position, end = fields[10], fields[10] + fields[11]
    while max(values) >= 0xFFFFFFFF:
        if position + 4 > end:
            return None
        kind, length = struct.unpack_from("<2H", tail, position)
        position += 4
        if kind == 1:
            body = tail[position : min(position + length, end)]
            for index, value in enumerate(values):
                if value == 0xFFFFFFFF:
                    if len(body) < 8:
                        return None
                    values[index], body = int.from_bytes(body[:8], "little"), body[8:]
            break
        position += length
    return values[0], values[1], values[2] + directory.shift
