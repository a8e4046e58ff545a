"""What an archive of a stranger may take: small files that announce, or unpack to, far more than they hold."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zipfile
import zlib

import pytest

from tests.archivefiles import THREE, contents, header, listing, make, record, resum, tar_bytes, write, zip_bytes
from tests.budget import check_cost
from tests.thorough import thorough
from xcli.sources.archives import limits

READ = """
import sys
from collections import Counter
from xcli.core.errors import ImageError
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions

found, text, errors = Counter(), 0, [""]
for ref in list_images(SourceOptions(tuple(sys.argv[1:]))):
    text += len(ref.path)
    try:
        if ref.error:
            raise ref.error
        ref.location.read(1 << 30)
        found["read"] += 1
    except ImageError as error:
        found[error.reason] += 1
        errors[1:] = [*errors[1:2], str(error)]
        text += len(str(error))
assert text < 100_000_000, text
print(dict(found), ref.path[-60:], *errors)
"""

MIB = bytes(1 << 20)
END = bytes(1024)


def many(data: bytes, times: int, compress=gzip.compress) -> bytes:
    """`data` so many times, compressed; each time by itself, so that it takes no longer than once."""
    return compress(data) * times


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def extended(data: bytes, kind: bytes = b"x") -> bytes:
    return header(b"ext", len(data), kind) + padded(data)


def named(name: bytes, size: int = 0) -> bytes:
    """A member with a name of any length."""
    return extended(name + b"\0", b"L") + header(b"a", size)


def zeros_deflated(size: int) -> bytes:
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    piece = packer.compress(MIB) + packer.flush(zlib.Z_FULL_FLUSH)
    return piece * (size >> 20) + packer.flush()


def raw_zip(members, extra=b"", count=None) -> bytes:
    """A zip of (name, local data, method, size, offset or None for its own place)."""
    local, central = b"", b""
    for name, data, method, size, offset in members:
        head = struct.pack(
            "<4s5H3L2H", b"PK\3\4", 20, 0, method, 0, 0, 0, len(data), min(size, 2**32 - 1), len(name), 0
        )
        at = len(local) if offset is None else offset
        fields = 20, 20, 0, method, 0, 0, 0, len(data), size, len(name), len(extra), 0, 0, 0, 0, at
        central += struct.pack("<4s6H3L5H2L", b"PK\1\2", *fields) + name + extra
        local += head + name + data if offset is None else b""
    total = len(members) if count is None else count
    return local + central + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, total, total, len(central), len(local), 0)


def overlapping() -> bytes:
    name = b"000000.jpg"
    data = zeros_deflated(1 << 30)
    first = raw_zip([(name, data, 8, 1 << 30, None)])
    local = first[: first.index(b"PK\1\2")]
    entry = first[len(local) : first.index(b"PK\5\6")]
    central = b"".join(entry.replace(name, b"%06d.jpg" % number) for number in range(60_000))
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 60_000, 60_000, len(central), len(local), 0)
    return local + central + end


def quoted(count: int) -> bytes:
    """A zip whose members each begin within the one before, as in the zip bombs of D. Fifield."""
    data = zeros_deflated(64 << 20)
    return raw_zip([(b"a.jpg", data * 2, 8, 64 << 20, None)] + [(b"b.jpg", data, 8, 64 << 20, n) for n in range(count)])


def bzip2_zip() -> bytes:
    data = many(bytes(127 << 20), 1, bz2.compress)
    return raw_zip([(b"%d.jpg" % number, data, 12, 127 << 20, None) for number in range(1000)])


def zip64_lies() -> bytes:
    wide = struct.pack("<2H3Q", 1, 24, 1 << 62, 1 << 62, 1 << 63)
    return raw_zip([(b"a.jpg", b"", 8, 0xFFFFFFFF, 0xFFFFFFFF)] * 3, wide + wide)


def announced(count: int) -> bytes:
    """A zip that says in Zip64 how many members it has."""
    data = zip_bytes(THREE)
    place = data.index(b"PK\5\6")
    start = data.index(b"PK\1\2")
    record64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, place - start, start)
    return data[:place] + record64 + struct.pack("<4sLQL", b"PK\6\7", 0, place, 1) + data[place:]


def hard_link(target: bytes) -> bytes:
    block = bytearray(header(b"b.jpg", 0, b"1"))
    block[157 : 157 + len(target)] = target
    return resum(block)


def sparse(continued: int) -> bytes:
    """Old GNU sparse member whose map of holes goes on for many blocks."""
    block = bytearray(header(b"a.jpg", 0, b"S"))
    block[482] = 1
    more = bytes(504) + b"\1" + bytes(7)
    return gzip.compress(resum(block)) + many(more * 2048, continued)


HOSTILE = {
    "overlapping.zip": (overlapping, "overlap those of another member"),
    "quoted.zip": (lambda: quoted(2000), "overlap those of another member"),
    "bzip2.zip": (bzip2_zip, "bytes in its images"),
    "zip64.zip": (zip64_lies, "a member of 4,611,686,018,427,387,904 bytes"),
    "count.zip": (lambda: announced(4_000_000_000), "announces 4,000,000,000"),
    "extra.zip": (
        lambda: raw_zip([(b"%d.jpg" % n, b"", 8, 0xFFFFFFFF, None) for n in range(67)], bytes(0xFFFC)),
        "does not say how large",
    ),
    "names.tar.gz": (lambda: many(named(b"n" * ((1 << 20) - 5) + b".jpg"), 1580), "a name of 1,048,575 bytes"),
    "links.tar.gz": (
        lambda: many(extended(b"n" * (1 << 19), b"K") + header(b"a.jpg", 0, b"1"), 3000),
        "a name of 524,288 bytes",
    ),
    "linked.tar.gz": (
        lambda: many((extended(b"n" * 4000, b"K") + header(b"a.jpg", 0, b"1")) * 100, 2000),
        "bytes of extended headers",
    ),
    "paths.tar.gz": (lambda: many(named(b"n" * 4000 + b".jpg") * 50, 8000), "bytes of"),
    "records.tar.gz": (
        lambda: many(extended(record(b"a=b") * (1 << 17)) + header(b"a.jpg", 0), 1000),
        "bytes of extended headers",
    ),
    "long.tar.gz": (lambda: many(header(b"ext", 1 << 33, b"L") + MIB, 99), "an extended header of 8,589,934,592"),
    "skipped.tar.gz": (lambda: many(header(b"a.txt", 1 << 32), 1) + many(MIB * 64, 24), "unpacked bytes"),
    "skipped.tar.bz2": (
        lambda: many(header(b"a.txt", 1 << 32), 1, bz2.compress) + many(MIB * 64, 64, bz2.compress),
        "unpacked bytes",
    ),
    "large.tar.xz": (
        lambda: many(header(b"a.jpg", 1 << 30), 1, lzma.compress) + many(MIB * 64, 16, lzma.compress),
        "a member of 1,073,741,824 bytes; the limit is",
    ),
    "streams.tar.xz": (lambda: lzma.compress(header(b"a.jpg", 9)) + lzma.compress(b"") * 100_000, "truncated"),
    "images.tar.gz": (lambda: many(header(b"a.jpg", 0) * 1000, 2000), "images, too many"),
    "others.tar.gz": (lambda: many(header(b"a.txt", 0) * 1000, 2000), "members, too many"),
    "deep.tar.gz": (
        lambda: (
            gzip.compress(header(b"a.txt", 256 << 20))
            + many(MIB * 8, 32)
            + gzip.compress(header(b"a.jpg", 512) + b"a" * 512)
            + many(hard_link(b"a.jpg"), 5000)
        ),
        "hard links unpack again",
    ),
    "sparse.tar.gz": (lambda: sparse(2000), "bytes of extended headers"),
}

SLOW = (
    "bzip2.zip extra.zip skipped.tar.gz skipped.tar.bz2 large.tar.xz records.tar.gz images.tar.gz others.tar.gz "
    "deep.tar.gz linked.tar.gz sparse.tar.gz"
).split()


@pytest.mark.parametrize("name", [name if name not in SLOW else pytest.param(name, marks=thorough) for name in HOSTILE])
def test_small_archives_take_no_more_than_they_may(tmp_path, name):
    make_data, message = HOSTILE[name]
    hostile, honest = tmp_path / name, tmp_path.parent / "honest.zip"
    hostile.write_bytes(make_data())
    honest.write_bytes(zip_bytes(THREE))
    assert message in check_cost(READ, [hostile], [honest]).text


MEMBERS = tar_bytes([("a.jpg", b"a" * 600), ("b.txt", b"b" * 600), ("c.jpg", b"c" * 600)])
PATHS = ["x.tar.gz::a.jpg", "x.tar.gz::c.jpg", "x.tar.gz::b.jpg"]


@pytest.mark.parametrize(
    ("what", "most", "count"),
    [
        ("unpacked bytes", 4000, 1),
        ("bytes in its images", 1199, 1),
        ("bytes in its images", 1200, 2),
        ("bytes that its hard links unpack again", 1111, 2),
        ("bytes that its hard links unpack again", 1112, 3),
        ("bytes of extended headers", 9, 2),
        ("bytes of extended headers", 10, 3),
        ("bytes of names", 14, 1),
        ("bytes of names", 20, 3),
        ("members", 2, 1),
        ("members", 4, 3),
        ("images", 1, 1),
        ("images", 3, 3),
    ],
)
def test_beyond_a_limit_the_archive_is_refused_after_what_was_listed(here, monkeypatch, what, most, count):
    kept = dict.fromkeys(limits._LIMITS, (1 << 20, 0.0)) | {what: (most, 0.0)}
    monkeypatch.setattr(limits, "_LIMITS", kept)
    linked = extended(b"./a.jpg\0\0\0", b"K") + hard_link(b"")
    write("x.tar.gz", gzip.compress(MEMBERS[:4608] + linked + END))
    refs = list(listing("x.tar.gz"))
    assert [ref.path for ref in refs if ref.error is None] == PATHS[:count]
    assert [ref.path for ref in refs[count:]] == ["x.tar.gz"] * (len(refs) - count)
    if what != "bytes in its images" or most == 1199:
        assert len(refs) == count + (count < 3)
    for ref in refs[count:]:
        assert str(ref.error).startswith(
            f"too-large: the archive has more than {most:,} {what}, too many for a file of"
        )


def test_names_up_to_the_limit_of_the_system_are_taken(here):
    for kind in ("tar", "zip", "tar.gz"):
        longest = "d" * (limits.MAX_NAME - 4) + ".jpg"
        assert [ref.path for ref in listing(make(kind, [(longest, b"1"), ("f.jpg", b"2")]))] == [
            f"x.{kind}::{longest}",
            f"x.{kind}::f.jpg",
        ]
        (ref,) = listing(make(kind, [("d" + longest, b"1"), ("f.jpg", b"2")]))
        assert (ref.path, ref.error.reason) == (f"x.{kind}", "corrupt")
        assert "a name of 4,097 bytes; the limit is 4,096" in ref.error.message


def test_members_that_shrink_like_no_image_are_refused_alone(here):
    write("x.zip", raw_zip([(b"a.jpg", b"a", 8, (128 << 20) + 101, None)]))
    (ref,) = listing("x.zip")
    assert str(ref.error) == "too-large: a member of 134,217,829 bytes; the limit is 134,217,828"


def test_blank_images_are_taken(here):
    blank = bytes(16 << 20)
    for kind in ("zip", "tar.gz"):
        assert contents(listing(make(kind, [("a.bmp", blank)]))) == [(f"x.{kind}::a.bmp", blank)]


def test_of_members_that_overlap_the_first_is_read(here):
    data = zip_bytes([("a.jpg", b"a"), ("b.jpg", b"b")], zipfile.ZIP_STORED)
    start, second = data.index(b"PK\1\2"), data.rindex(b"PK\1\2")
    entries = data[start:second] * 2 + data[second : data.index(b"PK\5\6")]
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 3, 3, len(entries), start, 0)
    write("x.zip", data[:start] + entries + end)
    assert contents(listing("x.zip")) == [("x.zip::a.jpg", b"a"), ("x.zip::a.jpg", "corrupt"), ("x.zip::b.jpg", b"b")]
    assert contents(listing("x.zip::a.jpg")) == [("x.zip::a.jpg", "corrupt")]
