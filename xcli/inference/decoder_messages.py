"""Messages between this process and those that decode: JSON and bytes, of known length, over a socket.

What comes from a decoder is data of a fixed form. So a decoder that a malicious image has taken over can lie about its
images, but not run code in this process.
"""

from __future__ import annotations

import json
import struct
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.core.errors import ImageError
from xcli.sources.archives.members import Member
from xcli.sources.archives.tar_stream import CompressedTarMember, TarMember
from xcli.sources.archives.zip import ZipMember
from xcli.storage.local import LocalFile
from xcli.storage.readers import FileIdentity
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from xcli.core.records import Location, Readable

_HEAD = struct.Struct("<II")
_MAX_BYTES = 1 << 30

_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (LocalFile, TarMember, CompressedTarMember, ZipMember)}
_FIELDS = {name: [one.name for one in fields(kind) if one.name != "carried"] for name, kind in _KINDS.items()}


class Message(NamedTuple):
    """What was received: an object of JSON, and bytes."""

    value: dict[str, Any]
    data: bytes = b""


def send(channel: socket.socket, value: dict[str, Any], data: Sequence[bytes] = ()) -> None:
    """Sends a message; raises OSError if nobody receives it."""
    # Surrogates, which stand for bytes of paths that are not UTF-8, pass as \\u escapes.
    text = json.dumps(value, separators=(",", ":")).encode("ascii")
    channel.sendall(b"".join((_HEAD.pack(len(text), sum(map(len, data))), text, *data)))


def receive(channel: socket.socket) -> Message | None:
    """Receives a message; returns None if the sender is gone, or has sent something else."""
    try:
        head = _receive(channel, _HEAD.size)
        if head is None:
            return None
        lengths = _HEAD.unpack(head)
        if max(lengths) > _MAX_BYTES:
            return None
        parts = [_receive(channel, length) for length in lengths]
        if parts[0] is None or parts[1] is None:
            return None
        value = json.loads(parts[0])
        return Message(value, parts[1]) if isinstance(value, dict) else None
    except (OSError, ValueError, RecursionError):
        return None


def _receive(channel: socket.socket, length: int) -> bytes | None:
    data = bytearray()
    while len(data) < length:
        part = channel.recv(min(length - len(data), 1 << 20))
        if not part:
            return None
        data += part
    return bytes(data)


class SentBytes(NamedTuple):
    """The bytes of an image that were sent, as what a decoder reads."""

    data: bytes

    def read(self, max_bytes: int) -> bytes:
        if len(self.data) > max_bytes:
            raise ImageError("too-large", f"an image of {len(self.data):,} bytes; the limit is {max_bytes:,}")
        return self.data


def pack_location(location: Readable) -> list[Any] | None:
    """Returns a location in a form that JSON knows; None if only this process has its bytes, or is to request them."""
    kind = type(location).__name__
    if _KINDS.get(kind) is not type(location):
        return None
    if isinstance(location, Member):
        carried = getattr(location, "carried", None)
        if is_url(location.archive) or (carried is not None and not carried.empty):
            return None
    return [kind, *(getattr(location, name) for name in _FIELDS[kind])]


def unpack_location(values: Sequence[Any]) -> Location:
    """Makes the location that `pack_location` was given."""
    kind, *arguments = values
    named = dict(zip(_FIELDS[kind], arguments, strict=True))
    if named.get("identity") is not None:
        named["identity"] = FileIdentity(*named["identity"])
    location: Location = _KINDS[kind](**named)
    return location
