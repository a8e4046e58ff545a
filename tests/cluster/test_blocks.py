"""Work in pieces: the same listing in the same blocks, and what travels."""

from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import chain

import pytest

from xcli.cluster.blocks import BLOCK_BYTES, PROBE, Block, BlockResult, blocks_of
from xcli.core.errors import ImageError, ModelError
from xcli.core.records import ImageRef
from xcli.sources.archives.members import WholeArchive
from xcli.storage.local import LocalFile


def ref(name: str) -> ImageRef:
    return ImageRef(name, LocalFile(name), name.encode())


def archive(name: str) -> ImageRef:
    return ImageRef(name, WholeArchive(name), name.encode())


def test_blocks_have_so_many_images_and_archives_are_blocks_of_their_own() -> None:
    listing = [*map(ref, "abcde"), archive("x.tar"), archive("y.tar"), ref("f")]
    blocks = list(blocks_of(iter(listing), 2))
    assert [[one.path for one in block.refs] for block in blocks] == [
        ["a", "b"],
        ["c", "d"],
        ["e"],
        ["x.tar"],
        ["y.tar"],
        ["f"],
    ]
    assert [block.number for block in blocks] == list(range(6))
    assert list(chain.from_iterable(block.refs for block in blocks)) == listing
    assert [block.archive is not None for block in blocks] == [False, False, False, True, True, False]


def test_a_block_carries_no_more_than_so_many_bytes() -> None:
    long = 1 << 20
    values = [("x" * long,), (["x" * long], 1.5), ({"key": b"x" * long},), ("x" * 2 * BLOCK_BYTES,), ("short",)]
    listing = [replace(ref(str(number)), extra=values[number % 3]) for number in range(200)]
    listing += [replace(ref(str(number)), extra=values[number % 5]) for number in range(3, 6)]
    blocks = list(blocks_of(iter(listing), 1000))
    assert list(chain.from_iterable(block.refs for block in blocks)) == listing
    assert [len(block.refs) for block in blocks] == [63, 63, 63, 11, 1, 2]


def test_no_images_are_one_empty_block() -> None:
    assert list(blocks_of(iter(()), 10)) == [Block(0, ())]
    assert Block(PROBE, ()).archive is None


def test_a_digest_stands_for_the_images() -> None:
    one, other = Block(0, (ref("a"), ref("b"))), Block(0, (ref("a"), ref("c")))
    assert one.digest == Block(5, (ref("a"), ref("b"))).digest
    assert len({one.digest, other.digest, Block(0, (ref("b"), ref("a"))).digest, Block(0, ()).digest}) == 4
    failed = ImageRef("a", LocalFile("a"), b"a", ImageError("missing", "no such file or directory"))
    assert Block(0, (failed,)).digest != Block(0, (ref("a"),)).digest


def test_blocks_and_results_can_be_pickled() -> None:
    carried = ImageRef("\\xff.jpg", LocalFile("\udcff.jpg"), b"\xff.jpg", ImageError("missing", "gone"), ("x", 1))
    block = Block(7, (carried, archive("x.tar")))
    found = pickle.loads(pickle.dumps(block))
    assert (found.number, found.digest) == (7, block.digest)
    assert found.refs[0].extra == ("x", 1)
    assert str(found.refs[0].error) == "missing: gone"
    assert found.refs[1] == block.refs[1]
    result = BlockResult(7, ok=3, errors={"empty": 2}, skipped={"hidden": 1}, failure=ModelError("no"))
    found = pickle.loads(pickle.dumps(result))
    assert (found.rows, found.errors, found.skipped) == (5, {"empty": 2}, {"hidden": 1})
    assert (type(found.failure), str(found.failure), found.failure.exit_code) == (ModelError, "no", 3)


def test_an_archive_is_read_by_its_members() -> None:
    with pytest.raises(NotImplementedError):
        WholeArchive("x.tar").read(1)
