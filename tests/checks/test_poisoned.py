"""Records of what made a table that somebody has changed on purpose: each ends a command by name, never as a bug."""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.budget import check_cost
from tests.memory import frugality
from tests.writtentables import make_files, write_shards
from xcli.checks.findings import Findings
from xcli.checks.merge import Shards, merge
from xcli.checks.verify import verify
from xcli.cli.check_output import described
from xcli.core.checked_json import MAX_BYTES
from xcli.core.errors import CheckError, OutputError
from xcli.outputs.checked_file import _MAGIC, CheckedReader, _digest
from xcli.outputs.journal import decode, encode
from xcli.outputs.part_files import sidecar_name
from xcli.outputs.target import File
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.tables.formats import open_table
from xcli.tables.provenance import METADATA_KEY, PARTS, meta_text, parse_meta, read_meta
from xcli.training.activation_cache import ENTRY, ActivationCache
from xcli.training.activations import PROGRESS, _open_array
from xcli.training.callbacks import EpochMetrics
from xcli.training.checkpoints import STATE, Checkpoints, TrainingState

NESTED: Any = 1
for _ in range(200):
    NESTED = {"a": NESTED}

POISONS: list[Any] = [
    None,
    True,
    3,
    -1,
    10**30,
    1.5,
    float("nan"),
    "x",
    "\ud800",
    "1/99999999999",
    "0/0",
    "3/2",
    [],
    [3],
]
POISONS += [["x", None], {}, {"a": 1}, {"a": {"b": None}}, [{}], [{"file": 3}], NESTED]


def places(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield place
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*place, key))


def poisoned(meta: dict[str, Any], place: tuple[str, ...], poison: Any) -> Any:
    if not place:
        return poison
    return {**meta, place[0]: poisoned(meta[place[0]], place[1:], poison)}


@pytest.fixture
def shards(tmp_path: Path) -> tuple[str, list[str]]:
    source = str(make_files(tmp_path / "p", [f"{n}.jpg".encode() for n in range(12)]))
    _, shards = write_shards(tmp_path, "parquet", "classify", SourceOptions((source,)), 2)
    for number, shard in enumerate(shards, 1):
        path = Path(f"{shard}.meta.json")
        meta = json.loads(path.read_bytes())
        del meta["sha256"]
        more = {"shard": f"{number}/2", "fingerprint": "0" * 64, "seconds": 1.0, "merged": [], "csv_safe": False}
        path.write_bytes(meta_text(meta | more | {PARTS: {}}))
    return source, shards


def refused(act: Callable[[], object]) -> bool:
    """Whether something was refused by name; any other exception would be reported as a bug."""
    try:
        act()
    except (CheckError, OutputError) as error:
        return bool(str(error).encode())
    return False


def checked(path: str, source: str) -> None:
    with list_images(SourceOptions((source,))) as listing:
        verdict = verify(open_table(path), listing, Findings())
    json.dumps(verdict.as_dict())
    "".join(described(verdict.findings)).encode()


def merged(shards: list[str], target: str, source: str) -> None:
    findings = Findings()
    with list_images(SourceOptions((source,))) as listing:
        merge(Shards(shards, mixed_machines=True), listing, "parquet", target, overwrite=True, findings=findings)
    merge(Shards(shards, mixed_machines=True), None, "parquet", target, overwrite=True, findings=findings)


def test_every_member_of_a_meta_json(tmp_path: Path, shards: tuple[str, list[str]]) -> None:
    source, both = shards
    path = Path(f"{both[0]}.meta.json")
    meta = json.loads(path.read_bytes())
    del meta["sha256"]
    for place in places(meta):
        accepted = None
        for poison in POISONS:
            content = json.dumps(poisoned(meta, place, poison)).encode()
            if not refused(lambda content=content: parse_meta(content, "x")):
                accepted = content
        if accepted is not None and place and place[0] in ("images", "shard", "options", "merged"):
            path.write_bytes(accepted)
            refused(lambda: checked(both[0], source))
            refused(lambda: merged(both, str(tmp_path / "merged.parquet"), source))
            File(both[0]).recorded_run()


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": {"resumed": None}},
        {"images": {"skipped": True}},
        {"images": {"skipped": {"hidden": {}}}},
        {"shard": "0/0"},
        {"shard": "1/99999999999"},
        {"merged": [3]},
        {"options": []},
        {"seconds": 10**30},
        {"other": NESTED},
        {"other": {"a" * 300: 1}},
        {"other": [{str(n): n for n in range(100_001)}]},
    ],
)
def test_what_no_run_writes_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(CheckError, match=r"the provenance of x\.csv is damaged: "):
        parse_meta(json.dumps(wrong).encode(), "x.csv")


def test_missing_shards_are_counted_not_listed(shards: tuple[str, list[str]]) -> None:
    _, (one, _) = shards
    path = Path(f"{one}.meta.json")
    path.write_bytes(path.read_bytes().replace(b'"1/2"', b'"1/999999999"'))
    opened = Shards([one])
    with frugality(), pytest.raises(CheckError, match=r"shards are missing: 2/999999999, .* and 999999988 more"):
        merge(opened, None, "parquet", "-", overwrite=True, findings=Findings())


def test_the_metadata_of_a_parquet_file(tmp_path: Path) -> None:
    table = pa.table({"path": ["a"], "status": ["ok"], "error": pa.array([None], pa.string())})
    for text in (b"[]", b'{"options": 3}', b'{"model": []}', b"{" * 3, json.dumps(NESTED).encode()):
        pq.write_table(table.replace_schema_metadata({METADATA_KEY: text}), tmp_path / "x.parquet")
        with pytest.raises(CheckError, match=r"the provenance of .* is damaged"):
            open_table(str(tmp_path / "x.parquet"))


@pytest.mark.parametrize("size", [0, -1, True, 10**12, [3], "x", None])
def test_the_batch_size_of_a_record_is_one_that_a_run_may_have(tmp_path: Path, size: Any) -> None:
    (tmp_path / "x.csv.meta.json").write_bytes(meta_text({"fingerprint": "ab", "batch_size": size}))
    run = File(str(tmp_path / "x.csv")).recorded_run()
    assert run is None or run.choices.batch_size is None
    with pytest.raises(CheckError, match="it is damaged"):
        decode(encode({"provenance": {"batch_size": size}}))


@pytest.mark.parametrize("wrong", [{"provenance": 3}, {"schema": {}}, {"a": 10**30}])
def test_a_journal_with_the_right_digest(wrong: dict[str, Any]) -> None:
    with pytest.raises(CheckError, match="it is damaged"):
        decode(encode(wrong))


def test_the_state_of_a_training_with_the_right_digest(tmp_path: Path) -> None:
    state = asdict(TrainingState(rows=[EpochMetrics("head", 1, 0.1, 1.0, 0.5, None, None, 1.0)], epoch=1))
    kept = Checkpoints(tmp_path, {"seed": 1})
    kept.commit(state, set())
    assert kept.training_state() == TrainingState.from_dict(state)
    wrong = [{name: poison} for name in state for poison in (None, "x", {}, [{}], -1, 10**30)]
    wrong += [{"kept": 2}, {"epoch": 2}, {"best_epoch": 2}, {"temperature": 0}, {"other": 1}, {"rows": [{"phase": 1}]}]
    for change in wrong:
        kept.commit(state | change, set())
        with pytest.raises(OutputError, match=r"state\.json cannot be read .*--restart"):
            kept.training_state()


@pytest.mark.parametrize(
    "wrong",
    [b"[]", b"{}", b'{"number": 0}', b'{"number": 0, "frames": [[1, "x", 2]]}', b'{"number": 0, "frames": [3]}'],
)
def test_the_trailer_of_a_part_with_the_right_digest(wrong: bytes) -> None:
    content = b"x" * 64 + wrong + len(wrong).to_bytes(8, "little") + bytes.fromhex(_digest(wrong)) + _MAGIC
    with pytest.raises(CheckError, match="its trailer is damaged"):
        CheckedReader(io.BytesIO(content), 0)


def test_a_record_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.csv.meta.json")
    with pytest.raises(CheckError, match="is damaged"):
        read_meta(str(tmp_path / "x.csv.meta.json"))


def frame_of(batch: pa.RecordBatch, compression: str | None = None) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as stream:
        stream.write_batch(batch)
    return sink.getvalue()


def part_of(frame: bytes, rows: int) -> io.BytesIO:
    """A part with all the right digests."""
    trailer = json.dumps({"number": 0, "frames": [[len(frame), rows, _digest(frame)]]}).encode()
    end = len(trailer).to_bytes(8, "little") + bytes.fromhex(_digest(trailer)) + _MAGIC
    return io.BytesIO(_MAGIC + frame + trailer + end)


LONG = pa.array(["x" * (1 << 20)] * 80)
RUNS = pa.RunEndEncodedArray.from_arrays(pa.array([1 << 30], pa.int32()), ["x"])


@pytest.mark.parametrize(
    ("column", "compression", "match"),
    [
        (LONG, "zstd", "its buffers are compressed"),
        (LONG, "lz4", "its buffers are compressed"),
        (LONG.dictionary_encode(), "zstd", "its buffers are compressed"),
        (LONG.dictionary_encode(), None, "other rows"),
        (pa.nulls(1 << 30), None, "other rows"),
        (RUNS, None, "damaged: no row has such a column"),
    ],
)
def test_a_frame_with_the_right_digest(column: pa.Array, compression: str | None, match: str) -> None:
    frame = frame_of(pa.record_batch({"path": column}), compression)
    assert len(frame) < 2 << 20
    with pytest.raises(CheckError, match=f"its batch 0 .*{match}"):
        list(CheckedReader(part_of(frame, len(column)), 0).batches())


def test_offsets_and_rows_of_a_frame_are_checked() -> None:
    batch = pa.record_batch({"path": ["ab" * 50, "cd" * 50]})
    frame = frame_of(batch)
    assert list(CheckedReader(part_of(frame, 2), 0).batches()) == [batch]
    at = frame.index(struct.pack("<3i", 0, 100, 200))
    outside = frame[:at] + struct.pack("<3i", 0, 1 << 30, 200) + frame[at + 12 :]
    for wrong, rows in ((outside, 2), (frame, 3), (frame[:-300], 2), (b"", 2), (b"\xff" * 400, 2)):
        with pytest.raises(CheckError, match="its batch 0"):
            list(CheckedReader(part_of(wrong, rows), 0).batches())
    inner = part_of(frame, 2).getvalue()
    longer = inner.replace(frame, frame + b"hidden", 1)
    with pytest.raises(CheckError, match="its frames have another length"):
        CheckedReader(io.BytesIO(longer), 0)


def test_a_record_of_too_many_bytes() -> None:
    with pytest.raises(CheckError, match="more than 67,108,864 bytes"):
        parse_meta(b"{}".ljust(MAX_BYTES + 1), "x.csv")


READ = """
import sys
from xcli.core.checked_json import parse_object

for name in sys.argv[1:]:
    with open(name, "rb") as file:
        content = file.read()
    try:
        parse_object(content, {"argv": [str]})
        print("read")
    except ValueError as error:
        print(error)
"""


def test_no_record_takes_more_than_a_gibibyte_and_ten_seconds(tmp_path: Path) -> None:
    texts = {
        "honest": b'{"argv": ["a"]}',
        "many": b'{"x": [%s{}]}' % (b"[{}]," * 1_000_000),
        "names": b'{"x": {%s"x": 1}}' % b"".join(b'"%s%06d": 1,' % (b"n" * 250, n) for n in range(100_001)),
        "text": b'{"x": "%s"}' % (b"\\ud83d\\ude00" * (MAX_BYTES // 48)),
    }
    paths = [tmp_path / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        assert len(text) <= MAX_BYTES, path
        path.write_bytes(text)
    cost = check_cost(READ, paths, paths[:1])
    assert cost.code == 0, cost
    assert cost.text.splitlines() == ["read", "read", "it has more members than any record of a run", "read"]


@pytest.mark.parametrize("content", ["an array", "a text"])
def test_a_link_in_a_cache_of_a_stranger_is_neither_written_to_nor_emptied(tmp_path: Path, content: str) -> None:
    victim, link = tmp_path / "victim.npy", tmp_path / "pooled.npy"
    np.save(victim, np.ones((2, 3), np.float32))
    if content == "a text":
        victim.write_text("mine")
    before = victim.read_bytes()
    link.symlink_to(victim)
    array = _open_array(link, (2, 3), "float32")
    array[:] = 7
    array.flush()
    assert victim.read_bytes() == before
    assert not link.is_symlink()
    assert (np.load(link) == 7).all()


READ_PRIVATE = """
import sys
from xcli.core.errors import CheckError, OutputError
from xcli.outputs.part_files import read_sidecar, sidecar_name
from xcli.storage.directories import LocalFolder
from xcli.training.activation_cache import ActivationCache
from xcli.training.activations import _read_progress
from xcli.training.checkpoints import Checkpoints
from pathlib import Path

place = Path(sys.argv[1])
print(ActivationCache(place, 1 << 30).description("ab" * 16))
print(_read_progress(place, 10))
try:
    print(read_sidecar(LocalFolder(str(place)), 0))
except CheckError as error:
    print(error)
try:
    print(Checkpoints(place, {"seed": 1}).training_state())
except OutputError as error:
    print("state.json" in str(error))
"""


def test_caches_notes_of_workers_and_states_take_no_more_than_a_gibibyte_and_ten_seconds(tmp_path: Path) -> None:
    """Each is one hole of 8 GiB, which takes no room on a disk, and in an archive neither."""
    places = tmp_path / "honest", tmp_path / "hostile"
    for place, size in zip(places, (0, 8 << 30), strict=True):
        entry = ActivationCache(place, 1 << 30).folder / ("ab" * 16)
        entry.mkdir()
        names = [entry / ENTRY, place / PROGRESS, place / sidecar_name(0), place / STATE]
        for name in names if size else ():
            name.touch()
            os.truncate(name, size)
        if size:
            with open(names[2], "r+b") as file:
                end = (size - 100).to_bytes(8, "little") + bytes(16) + _MAGIC
                file.seek(size - len(end))
                file.write(end)
                file.seek(0)
                file.write(_MAGIC)
    cost = check_cost(READ_PRIVATE, [places[1]], [places[0]])
    assert cost.code == 0, cost
    assert cost.text.splitlines() == ["None", "(0, {})", "it is no whole part", "True"]
