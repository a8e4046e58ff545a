"""Blocks: pieces of work that go to other processes, and their results.

A block has a fixed number of images, or one archive. Its number is that of its part in the output, so that parts in
the order of their names have the rows in the order of the sources. The same listing always gives the same blocks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from xcli.inference.options import MAX_BATCH
from xcli.outputs.resume import key_of
from xcli.sources.archives.listing import Archives
from xcli.sources.archives.members import WholeArchive
from xcli.sources.carried import carried_size
from xcli.sources.patterns import PathFilter
from xcli.sources.selection import OTHER_SHARD, shard_of
from xcli.storage.readers import UNKNOWN_DEVICE, FileIdentity
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Iterator

    import pyarrow as pa

    from xcli.core.errors import XcliError
    from xcli.core.records import ImageBatch, ImageRef
    from xcli.outputs.checked_file import Part
    from xcli.sources.listing import Listing
    from xcli.sources.options import SourceOptions

BLOCK_BYTES = 64 << 20
"""Bytes that the images of a block carry from a manifest, at most; a single row may have any number."""

PROBE = -1
"""Number of a block without images, which asks only for the fingerprint of the run."""


def machine_independent(ref: ImageRef) -> ImageRef:
    """Returns a reference that other machines can use: they know a shared disk by another device number."""
    identity = getattr(ref.location, "identity", None)
    if not isinstance(identity, FileIdentity) or identity.device == UNKNOWN_DEVICE:
        return ref
    anywhere = identity._replace(device=UNKNOWN_DEVICE, inode=0)
    return replace(ref, location=replace(ref.location, identity=anywhere))  # type: ignore[type-var]


def is_relative(ref: ImageRef) -> bool:
    """Returns whether the path of a reference is relative to the current directory of the driver."""
    path = ref.location.file
    return ref.error is None and not is_url(path) and not os.path.isabs(path)


def look_ahead(listing: Listing) -> tuple[int, list[ImageRef], Iterator[ImageRef]]:
    """Begins a listing.

    Returns:
        The number of images of the run, counted only up to the largest batch; the first references; and all of them.
    """
    refs = iter(listing)
    ahead = list(islice(refs, MAX_BATCH))
    whole = any(isinstance(ref.location, WholeArchive) for ref in ahead)
    count = MAX_BATCH if whole else len(ahead) + listing.skipped.get(OTHER_SHARD, 0)
    return count, ahead, chain(ahead, refs)


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of work.

    Attributes:
        number: from 0, in the order of the sources; or `PROBE`.
        refs: the images; or one reference whose location is a `WholeArchive`.
    """

    number: int
    refs: tuple[ImageRef, ...]

    @property
    def archive(self) -> WholeArchive | None:
        """The archive that this block is, or None."""
        location = self.refs[0].location if self.refs else None
        return location if isinstance(location, WholeArchive) else None

    @property
    def digest(self) -> str:
        """A digest of the names of the images, not of their content."""
        content = blake2b(digest_size=16)
        for ref in self.refs:
            content.update(f"{key_of(ref):016x} {ref.error}\n".encode("utf-8", "surrogatepass"))
        return content.hexdigest()


def blocks_of(refs: Iterable[ImageRef], rows: int) -> Iterator[Block]:
    """Cuts a listing into blocks.

    Args:
        refs: the listing, with archives as single references.
        rows: images in a block; the last before an archive, and the very last, may have fewer, and those that carry
            much more than others too.

    Yields:
        At least one block, which may be empty.
    """
    number, pending, carried = 0, list[Any](), 0
    for ref in refs:
        whole, own = isinstance(ref.location, WholeArchive), carried_size(ref.extra)
        if pending and (whole or len(pending) == rows or carried + own > BLOCK_BYTES):
            yield Block(number, tuple(pending))
            number, pending, carried = number + 1, [], 0
        carried += own
        if whole:
            yield Block(number, (ref,))
            number += 1
        else:
            pending.append(ref)
    if pending or not number:
        yield Block(number, tuple(pending))


def archive_images(ref: ImageRef, sources: SourceOptions, skipped: Counter[str]) -> Iterator[ImageRef]:
    """Yields the images of an archive that belong to a run, and counts the others in `skipped`.

    Args:
        ref: the archive; its location is a `WholeArchive`.
        sources: of the run.
        skipped: number of entries that are not inputs, by reason.
    """
    archive = ref.location
    assert isinstance(archive, WholeArchive)
    path_filter = PathFilter(sources.include, sources.exclude, system=sources.include_system)
    archives = Archives(path_filter, skipped)
    members: Iterable[ImageRef] = archives.members(os.fsencode(archive.archive), archive.key, archive.trusted)
    if sources.excluded is not None:
        members = sources.excluded.without(members, skipped, warns=False)
    for member in members:
        if sources.shard is not None and shard_of(member.key, sources.shard[1]) != sources.shard[0]:
            skipped[OTHER_SHARD] += 1
        else:
            yield replace(member, extra=ref.extra)


def with_members(listing: Listing) -> Listing:
    """Returns a listing that was not begun with the images of archives in place of these, as workers list them."""
    # The listing itself leaves images out, and divides the others among shards.
    sources = replace(listing.options, shard=None, exclude_from=None, exclude_kinds=None, excluded=None)

    def refs() -> Iterator[ImageRef]:
        for ref in listing.refs:
            if isinstance(ref.location, WholeArchive):
                yield from archive_images(ref, sources, listing.skipped)
            else:
                yield ref

    return replace(listing, refs=refs())


@dataclass(frozen=True, slots=True)
class BlockResult:
    """The result of a block.

    Attributes:
        number: that of the block.
        ok: number of rows that are not errors.
        errors: number of error rows by reason.
        skipped: number of entries of an archive that are not inputs, by reason.
        resumed: whether its part is from an earlier run.
        fingerprint: digest of the run's fingerprint.
        notes: remarks for the user, about the model or a part that was damaged.
        part: the part; None if there is none.
        failure: the error that ends the run, or None.
        warnings: number of warnings about images by kind.
        batches: the images, without pixels, and their rows, where these are not written to a part.
        start: of a `PROBE`, provenance and columns of the run.
    """

    number: int
    ok: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    resumed: bool = False
    fingerprint: str | None = None
    notes: tuple[str, ...] = ()
    part: Part | None = None
    failure: XcliError | None = None
    warnings: dict[str, int] = field(default_factory=dict)
    batches: tuple[tuple[ImageBatch, pa.RecordBatch], ...] = ()
    start: tuple[dict[str, Any], pa.Schema] | None = None

    @property
    def rows(self) -> int:
        """Number of rows of the part."""
        return self.ok + sum(self.errors.values())
