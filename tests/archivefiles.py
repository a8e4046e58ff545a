"""Archives for tests, and what is listed of them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pyarrow as pa

from xcli.core.errors import ImageError
from xcli.images.formats import MAX_FILE_BYTES
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions

KINDS = ["tar", "tar.gz", "tgz", "tar.bz2", "txz", "tar.zst", "tzst", "zip"]


def tar_bytes(entries, form=tarfile.GNU_FORMAT):
    """A tar of (name, content) pairs, or of TarInfo objects where there is no content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogateescape") as tar:
        for entry in entries:
            info, content = entry if isinstance(entry, tuple) else (entry, b"")
            if isinstance(info, str):
                info = tarfile.TarInfo(info)
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return buffer.getvalue()


def zip_bytes(entries, method=zipfile.ZIP_DEFLATED, comment=b""):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
        archive.comment = comment
    return buffer.getvalue()


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def write(name, data):
    with open(name, "wb") as file:
        file.write(data)
    return name


def make(kind, entries, stem="x", form=tarfile.GNU_FORMAT):
    """Writes `x.KIND` with the entries and returns its name."""
    if kind == "zip":
        data = zip_bytes(entries)
    else:
        data = tar_bytes(entries, form)
        if kind in ("tar.gz", "tgz"):
            data = gzip.compress(data)
        elif kind in ("tar.zst", "tzst"):
            data = zstd(data)
        elif kind in ("tar.bz2", "tbz2"):
            data = bz2.compress(data)
        elif kind in ("tar.xz", "txz"):
            data = lzma.compress(data)
    return write(f"{stem}.{kind}", data)


def listing(*sources, stdin=None, **options):
    return list_images(SourceOptions(sources, missing_ok=bool(sources), **options), stdin=stdin and io.BytesIO(stdin))


def paths(*sources, **options):
    return [ref.path for ref in listing(*sources, **options)]


def contents(refs):
    """(path, bytes) of refs, or (path, reason) of those that cannot be read."""
    found = []
    for ref in refs:
        try:
            found.append((ref.path, ref.error.reason if ref.error else ref.location.read(MAX_FILE_BYTES)))
        except ImageError as error:
            found.append((ref.path, error.reason))
    return found


THREE = [("b.jpg", b"bees" * 300), ("a/c.PNG", b"sea"), ("a.tif", b"tea" * 2000)]


def header(name, size, kind=b"0"):
    block = bytearray(512)
    block[: len(name)] = name
    block[124:136] = b"%011o\0" % size
    block[156:157] = kind
    block[257:263] = b"ustar\0"
    return resum(block)


def resum(block):
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def record(text):
    length = len(text) + 3
    while len(b"%d %s\n" % (length, text)) != length:
        length += 1
    return b"%d %s\n" % (length, text)
