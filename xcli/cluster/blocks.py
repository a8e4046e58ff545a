"""Work in pieces that go to other processes: so many images each, or one archive; and what came of a piece.

A block's number is that of its part in the output, so that parts by name have the order of the sources, and the same
listing gives the same blocks whenever it is made.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from xcli.outputs.resume import key_of
from xcli.sources.archives.members import WholeArchive
from xcli.storage.local import ELSEWHERE, FileIdentity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pandas as pd

    from xcli.core.records import ImageRef

PROBE = -1
"""Number of a block without images, which asks for nothing but the fingerprint of the run."""


def portable(ref: ImageRef) -> ImageRef:
    """A reference as other machines can use it: they know a disk that they share by another number."""
    identity = getattr(ref.location, "identity", None)
    if not isinstance(identity, FileIdentity) or identity.device == ELSEWHERE:
        return ref
    anywhere = identity._replace(device=ELSEWHERE, inode=0)
    return replace(ref, location=replace(ref.location, identity=anywhere))  # type: ignore[type-var]


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of work.

    Attributes:
        number: from 0, in the order of the sources; or `PROBE`.
        refs: the images; or one whose location is a `WholeArchive`.
    """

    number: int
    refs: tuple[ImageRef, ...]

    @property
    def archive(self) -> WholeArchive | None:
        """The archive that this block is."""
        location = self.refs[0].location if self.refs else None
        return location if isinstance(location, WholeArchive) else None

    @property
    def digest(self) -> str:
        """Stands for what the block is about: its images, not their content."""
        content = blake2b(digest_size=16)
        for ref in self.refs:
            content.update(f"{key_of(ref):016x} {ref.error}\n".encode("utf-8", "surrogatepass"))
        return content.hexdigest()

    def to_frame(self) -> pd.DataFrame:
        """A table of one row, in which Ray carries it between the processes of a run."""
        import pandas as pd

        return pd.DataFrame({"number": [self.number], "refs": pd.Series([self.refs], dtype=object)})

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Block:
        """From what `to_frame` made."""
        return cls(int(frame["number"].iloc[0]), frame["refs"].iloc[0])


def blocks_of(refs: Iterable[ImageRef], rows: int) -> Iterator[Block]:
    """Cuts a listing into blocks.

    Args:
        refs: the listing, archives whole.
        rows: images in a block; the last before an archive, and the very last, may have fewer.

    Yields:
        At least one block, which may be empty.
    """
    number, pending = 0, list[Any]()
    for ref in refs:
        whole = isinstance(ref.location, WholeArchive)
        if pending and (whole or len(pending) == rows):
            yield Block(number, tuple(pending))
            number, pending = number + 1, []
        if whole:
            yield Block(number, (ref,))
            number += 1
        else:
            pending.append(ref)
    if pending or not number:
        yield Block(number, tuple(pending))


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a block.

    Attributes:
        number: of the block.
        ok: rows that are no errors.
        errors: rows that are, by reason.
        skipped: entries of an archive that are no inputs, by reason.
        resumed: whether its part was there already.
        fingerprint: of the run, as `xcli.tables.provenance.digest` gives it.
        notes: what there is to say of the model.
        failure: the kind of the error that ends the run, and its message; None where there was none.
    """

    number: int
    ok: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    resumed: bool = False
    fingerprint: str | None = None
    notes: tuple[str, ...] = ()
    failure: tuple[str, str] | None = None

    @property
    def rows(self) -> int:
        """Rows of the part."""
        return self.ok + sum(self.errors.values())

    def to_frame(self) -> pd.DataFrame:
        """A table of one row."""
        import pandas as pd

        return pd.DataFrame({"number": [self.number], "done": [json.dumps(asdict(self))]})

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Iterator[Done]:
        """From what `to_frame` made, one a row."""
        for text in frame["done"]:
            value = json.loads(text)
            failure, notes = value.pop("failure"), tuple(value.pop("notes"))
            yield cls(**value, notes=notes, failure=None if failure is None else (failure[0], failure[1]))
