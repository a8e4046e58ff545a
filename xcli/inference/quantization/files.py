"""The file of `--calibration-model`: a digest, and the content of a `Quantization`."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

from xcli.core.errors import ModelError, OutputError
from xcli.core.text import one_line
from xcli.inference.quantization.quantization import Quantization, parse_quantization
from xcli.storage import disk

if TYPE_CHECKING:
    from collections.abc import Callable

_MAGIC = b"xception int8 "
_MAX_BYTES = 1 << 30


def read_or_make(name: str, make: Callable[[], Quantization]) -> Quantization:
    """Reads the file; where there is none, makes it. Of several processes that make it, the first one's is taken.

    Raises:
        ModelError: it is no such file, is damaged, or cannot be read.
        OutputError: it cannot be written.
    """
    found = read_quantization(name)
    if found is not None:
        return found
    made = make()
    content = _MAGIC + made.digest.encode() + b"\n" + made.content
    try:
        _write_new(name, content)
    except FileExistsError:
        return read_quantization(name) or made
    except OSError as error:
        raise OutputError(f"--calibration-model: cannot write {one_line(name)}: {error.strerror}") from None
    return made


def _write_new(name: str, content: bytes) -> None:
    """Writes a file as a whole; FileExistsError if it is there by then."""
    temporary = f"{name}.{secrets.token_hex(4)}.tmp"
    try:
        with disk.create(temporary) as file:
            file.write(content)
        disk.sync_file(temporary)
        disk.rename_new(temporary, name)
    finally:
        disk.unlink(temporary)


def read_quantization(name: str) -> Quantization | None:
    """Reads the file; returns None where there is none; see `read_or_make`."""
    try:
        data = memoryview(disk.read_file(name, _MAX_BYTES))
        end = len(_MAGIC) + hashlib.sha256().digest_size * 2 + 1
        if bytes(data[: len(_MAGIC)]) != _MAGIC:
            raise ValueError("it is no file of --calibration-model")
        if _MAGIC + hashlib.sha256(data[end:]).hexdigest().encode() + b"\n" != bytes(data[:end]):
            raise ValueError("it is damaged")
        return parse_quantization(data[end:])
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"--calibration-model: cannot use {one_line(name)}: {reason}; remove it, and it is made again"
        ) from None
