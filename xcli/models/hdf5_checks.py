"""Checks HDF5 files of strangers before their arrays are read, here or by Keras.

References to other files are refused, and so is whatever would take far more memory or time than the file has bytes:
links that share groups, shapes and chunks beyond the data, chunks that inflate to more than they declare.
"""

from __future__ import annotations

import errno
import math
import os
import stat
import zlib
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ModelError
from xcli.core.shortage import has_memory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_FILE_BYTES = 8 << 30
MAX_NAMES = 50_000
MAX_DEPTH = 20
_MAX_PATH = 2_048  # characters of the names of nested groups together
DAMAGE = (OSError, KeyError, RuntimeError, TypeError, ValueError, MemoryError, zlib.error)
"""Raised by h5py and zlib for damaged or malicious files."""

_SMALL_BYTES, _FREE_BYTES = 16 << 20, 128 << 20
_CHUNK_BYTES = 1 << 10  # chunks may be as small on average; each takes microseconds


def is_inflated(declared: int, stored: int) -> bool:
    """Returns whether data would take far more bytes than are stored; real weights can hardly be compressed."""
    return declared > max(_SMALL_BYTES, min(100 * stored, _FREE_BYTES + 4 * stored))


def require_file(path: str | Path) -> None:
    """Raises OSError unless `path` is a regular file of at most 8 GiB; HDF5 would wait for a pipe for ever."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        kind, size = os.fstat(number).st_mode, os.fstat(number).st_size
    finally:
        os.close(number)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(kind):
        raise OSError(errno.EINVAL, "it is not a regular file")
    if size > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {MAX_FILE_BYTES >> 30} GiB")


def damage_reason(error: Exception) -> str:
    """Returns one line for an error of h5py, whose text can have several, with addresses of memory."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, MemoryError) and not has_memory():
        return "there is not enough memory"
    text = " ".join(str(error).split())[:200]
    return f"not an HDF5 file, or a damaged one ({text or type(error).__name__})"


def walk(file: Any) -> Iterator[tuple[str, Any]]:
    """Yields the groups and datasets of an HDF5 file with their paths, and None in place of a soft or external link.

    Raises:
        ModelError: there are more of them, or longer paths, than any model has.
    """
    import h5py

    stack, steps = [("", file)], 0
    while stack:
        prefix, group = stack.pop()
        steps += len(group)
        if steps > MAX_NAMES:
            raise ModelError(f"it has more than {MAX_NAMES:,} groups and arrays")
        for name in group:
            path = prefix + name
            if len(path) > _MAX_PATH:
                raise ModelError(f"its groups have names of more than {_MAX_PATH:,} characters")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                yield path, None
                continue
            item = group[name]
            yield path, item
            # Hard links can form circles, hence the limit to their length.
            if isinstance(item, h5py.Group) and prefix.count("/") < MAX_DEPTH:
                stack.append((f"{path}/", item))


def address(item: Any) -> Any:
    """Returns what tells whether two paths are hard links to one group or dataset of a file."""
    import h5py

    return h5py.h5o.get_info(item.id).addr


def check_tree(path: str | Path, stored: int | None = None) -> int:
    """Checks everything in an HDF5 file before another library reads it.

    Args:
        path: of the file.
        stored: bytes of the archive that it was in; None stands for its own.

    Returns:
        How many numbers its arrays hold.

    Raises:
        ModelError: it refers to another file, declares far more data than it holds, or holds other data than numbers.
    """
    import h5py

    count, total, seen = 0, 0, set[Any]()
    try:
        with h5py.File(path, "r") as file:
            for name, item in walk(file):
                if item is None:
                    raise ModelError(f"{_last(name)!r} is a link, which a weights file never needs")
                if not isinstance(item, h5py.Dataset) or address(item) in seen:
                    continue
                seen.add(address(item))
                # bfloat16 is of kind V, but so is a compound of references.
                numbers = item.dtype.kind in "fiubV" and not item.dtype.hasobject
                if problem := (dataset_problem(item) if numbers else "does not hold numbers"):
                    raise ModelError(f"{_last(name)!r} {problem}")
                _check_dtype(item)
                count += math.prod(item.shape or ())
                total += max(item.nbytes, 4 * math.prod(item.shape or ()))  # in float32
    except DAMAGE as error:
        raise ModelError(damage_reason(error)) from error
    if is_inflated(total, os.path.getsize(path) if stored is None else stored):
        raise ModelError(f"its arrays would take {total:,} bytes, far more than the file has")
    return count


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _check_dtype(data: Any) -> None:
    """Raises ModelError where the attribute that Keras reads of an array, the name of a type, is not a short text."""
    if "dtype" in data.attrs and (data.attrs.get_id("dtype").shape != () or len(str(data.attrs["dtype"])) > 64):
        raise ModelError(f"{data.name!r} has an attribute 'dtype' that is not the name of a type")


def dataset_problem(data: Any) -> str | None:
    """Returns why a dataset must not be read, as the end of a sentence; None where it may be."""
    if data.external or data.is_virtual:
        return "keeps its data in another file, which is refused"
    declared, stored = math.prod(data.shape or ()) * data.dtype.itemsize, data.id.get_storage_size()
    chunk = math.prod(data.chunks or (0,)) * data.dtype.itemsize
    if is_inflated(max(declared, chunk), stored):
        return f"declares {max(declared, chunk):,} bytes, of which the file holds only {stored:,}"
    if data.chunks is None:
        return None
    chunks = math.prod(-(-size // side) for size, side in zip(data.shape, data.chunks, strict=True))
    if chunks > 1_000 + declared // _CHUNK_BYTES:
        return f"is in {chunks:,} chunks, far more than its size needs"
    return _filter_problem(data, chunk)


def _filter_problem(data: Any, chunk: int) -> str | None:
    """Inflates each chunk of a compressed dataset, which HDF5 would do without a limit to its memory."""
    import h5py

    plist = data.id.get_create_plist()
    filters = [plist.get_filter(index)[0] for index in range(plist.get_nfilters())]
    deflate, allowed = h5py.h5z.FILTER_DEFLATE, {h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
    if set(filters) - {deflate, *allowed} or filters.count(deflate) > 1:
        return "is compressed in a way that is not read; gzip is"
    limit = chunk + 4 * len(filters)  # checksums
    found: list[Any] = []
    if deflate in filters:
        data.id.chunk_iter(found.append)
    for one in found:
        if one.size > 2 * limit + (64 << 10):
            return "has chunks of more bytes than their shape"
        if not one.filter_mask & 1 << filters.index(deflate):
            _, raw = data.id.read_direct_chunk(one.chunk_offset)
            if len(zlib.decompressobj().decompress(raw, limit + 1)) > limit:
                return "has chunks that inflate to more than their shape"
    return None
