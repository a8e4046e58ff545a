"""From references to batches: order, bounds, errors, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.imagefiles import encode, gradient, make_hostile_directory
from tests.inference.conftest import threads, until
from tests.inference.decoders import TEXTS, decoder, square
from tests.thorough import slow
from xcli.cli.display import summary
from xcli.core.errors import ImageError
from xcli.core.process import processor_count
from xcli.core.records import FileState, ImageBatch, ImageRef, RunCounts
from xcli.core.tensorflow import load_tensorflow
from xcli.images import decoders
from xcli.images.preprocessing import Preprocessing, load_image
from xcli.images.warnings import DAMAGED_DATA
from xcli.inference.decoder_server import DecoderSpec
from xcli.inference.pipeline import CHUNK, MIN_AHEAD, PixelPipeline
from xcli.sources.archives.members import Member
from xcli.storage.local import LocalFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

P = Preprocessing(size=4)
ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("own_decoders", "nothing_is_left")


def ref(number: int, error: ImageError | None = None) -> ImageRef:
    return ImageRef(f"{number}.jpg", LocalFile(str(number)), b"", error)


def pipeline(
    refs: Iterable[ImageRef], spec: DecoderSpec | None = None, *, batch_size: int = 4, **options: Any
) -> PixelPipeline:
    return PixelPipeline(iter(refs), P, batch_size=batch_size, decoder=spec or decoder(), **options)


def drain(batches: Iterable[ImageBatch]) -> tuple[list[ImageBatch], BaseException | None]:
    """All batches, and what was raised after them."""
    found = []
    try:
        for batch in batches:
            found.append(batch)  # noqa: PERF402 - those before the exception are wanted
    except BaseException as error:  # noqa: BLE001
        return found, error
    return found, None


def numbers(batches: Iterable[ImageBatch]) -> list[int]:
    return [int(ref.location.path) for batch in batches for ref in batch.refs]


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What requests that never end wait for; opened at the end."""
    event = threading.Event()
    yield event
    event.set()


# ---- order and completeness ----


@pytest.mark.parametrize(
    ("count", "batch_size", "workers"), [(9, 1, 3), (145, 7, 3), (45, 32, 1), (14, 7, 8), (3, 32, 8)]
)
def test_order_is_that_of_the_references(workers: int, count: int, batch_size: int) -> None:
    refs = [ref(number) for number in range(count)]
    batches = list(pipeline(refs, batch_size=batch_size, workers=workers))
    sizes = [len(batch.refs) for batch in batches]
    full, rest = divmod(count, batch_size)
    assert sizes == [batch_size] * full + [rest] * bool(rest)
    assert [one for batch in batches for one in batch.refs] == refs
    for batch in batches:
        assert batch.pixels.dtype == np.uint8
        assert batch.pixels.shape == (len(batch.refs), 4, 4, 3)
        assert batch.errors == (None,) * len(batch.refs)
        for one, pixels in zip(batch.refs, batch.pixels, strict=True):
            assert (pixels == square(int(one.location.path))).all()


def test_no_references() -> None:
    assert list(pipeline([])) == []


def test_decodes_run_in_parallel(tmp_path: Path) -> None:
    spec = decoder("meeting", folder=str(tmp_path), count=4)
    assert numbers(pipeline(map(ref, range(16)), spec, workers=4)) == list(range(16))


def test_batches_that_are_kept_keep_their_pixels() -> None:
    """Slots are used again, but never while anything refers to them."""
    kept = list(pipeline(map(ref, range(200)), workers=2))
    assert [int(pixels[0, 0, 0]) for batch in kept for pixels in batch.pixels] == list(range(200))


def test_the_middle_is_a_tf_data_dataset() -> None:
    tf = load_tensorflow()
    one = pipeline(map(ref, range(5)), workers=2)
    dataset = one.dataset()
    assert isinstance(dataset, tf.data.Dataset)
    one._start()
    assert [(number, len(pixels)) for number, pixels in dataset.as_numpy_iterator()] == [(0, 4), (1, 1)]
    one.stop()


def test_default_workers() -> None:
    assert 1 <= processor_count() <= (os.cpu_count() or 1)
    assert PixelPipeline(iter(()), P, batch_size=1)._workers == processor_count()


def test_real_files(tmp_path: Path) -> None:
    decoders.load_decoders.cache_clear()  # pytest has undone what it does against warnings
    expected = make_hostile_directory(tmp_path)
    refs = [ImageRef(name, LocalFile(os.path.join(tmp_path, name)), b"") for name in sorted(expected)]
    p = Preprocessing(size=16)
    batches = list(PixelPipeline(iter(refs), p, batch_size=10, workers=3))
    assert [one for batch in batches for one in batch.refs] == refs
    for batch in batches:
        for one, pixels, error in zip(batch.refs, batch.pixels, batch.errors, strict=True):
            assert (error.reason if error else "ok") == expected[one.path]
            assert (pixels == (0 if error else load_image(one.location, p))).all()


# ---- errors of images ----


def test_errors_arrive_as_they_were() -> None:
    (batch,) = pipeline(map(ref, range(2 * len(TEXTS))), decoder("failing"), batch_size=32)
    for number, (pixels, error) in enumerate(zip(batch.pixels, batch.errors, strict=True)):
        if number % 2:
            assert error is None
            assert (pixels == square(number)).all()
        else:
            assert error is not None
            assert (error.reason, error.message) == ("corrupt", TEXTS[number // 2])
            assert not pixels.any()


def test_references_with_an_error_are_not_opened(tmp_path: Path) -> None:
    errors = [ImageError("missing", text) for text in TEXTS]
    refs = [ref(2 * number, error) for number, error in enumerate(errors)] + [ref(2 * len(TEXTS) + 1)]
    (batch,) = pipeline(refs, decoder("noting", folder=str(tmp_path)), batch_size=32)
    assert [name.partition("-")[0] for name in os.listdir(tmp_path)] == [str(2 * len(TEXTS) + 1)]
    assert batch.errors[:-1] == tuple(errors)
    assert batch.errors[-1] is None
    assert not batch.pixels[:-1].any()


# ---- bounds ----


@pytest.mark.parametrize(("workers", "batch_size"), [(1, 4), (6, 1)])
def test_a_slow_consumer_holds_the_source_back(workers: int, batch_size: int) -> None:
    taken = given = 0

    def refs() -> Iterator[ImageRef]:
        nonlocal taken
        for number in range(1_000_000):
            taken += 1
            yield ref(number)

    for batch in pipeline(refs(), batch_size=batch_size, workers=workers):
        given += len(batch.refs)
        assert until(lambda given=given: taken - given >= 2 * batch_size), "it works ahead"
        time.sleep(0.1)
        assert taken - given <= (MIN_AHEAD + 1) * batch_size + 2 * CHUNK * workers
        if given >= 4 * batch_size:
            break


# ---- what is not the fault of an image ----


class Unlucky(Exception):
    pass


@pytest.mark.parametrize("count", [0, 3, 8, 10])
def test_an_exception_of_the_source_comes_after_what_it_gave(count: int) -> None:
    error = Unlucky("the listing fails")

    def refs() -> Iterator[ImageRef]:
        yield from map(ref, range(count))
        raise error

    batches, raised = drain(pipeline(refs(), workers=3))
    assert numbers(batches) == list(range(count))
    assert raised is error


def test_a_bug_in_decoding_surfaces_with_its_traceback() -> None:
    batches, raised = drain(pipeline(map(ref, range(1000)), decoder("buggy", at=[13]), workers=3))
    assert type(raised) is RuntimeError
    assert "ValueError: a bug" in str(raised)
    assert numbers(batches) == list(range(12)), "the batches before its own, whole"


@pytest.mark.parametrize("kind", ["shape", "dtype", "none"])
def test_pixels_of_another_kind_are_a_bug(kind: str) -> None:
    _, raised = drain(pipeline(map(ref, range(3)), decoder("wrong", kind=kind)))
    assert type(raised) is RuntimeError


# ---- the end ----


def test_all_ends_when_the_consumer_leaves_early() -> None:
    last = -1

    def refs() -> Iterator[ImageRef]:
        nonlocal last
        for last in range(100_000):
            yield ref(last)

    for batch in pipeline(refs(), decoder("hang", at=[4, 5, 6, 7]), workers=4):
        assert numbers([batch]) == [0, 1, 2, 3]
        break
    assert until(lambda: not threads(), 5)
    assert last < 100


def test_threads_end_when_the_consumer_never_began() -> None:
    batches = iter(pipeline(map(ref, range(100))))
    del batches
    assert not threads()


def test_the_feeding_thread_does_not_outlive_a_source_that_fails() -> None:
    def refs() -> Iterator[ImageRef]:
        yield ref(0)
        raise Unlucky

    with pytest.raises(Unlucky):
        list(pipeline(refs()))
    assert until(lambda: not threads(), 5)


_SCRIPT = """
import os, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
from xcli.images.preprocessing import Preprocessing
from xcli.inference.pipeline import PixelPipeline
from xcli.core.records import ImageRef
from xcli.storage.local import LocalFile

def pipeline(blocked):
    def refs():
        for _ in range(4):
            yield ImageRef(sys.argv[1], LocalFile(sys.argv[1]), b"")
        reader, _ = os.pipe()
        blocked.set()
        os.read(reader, 1)

    return PixelPipeline(refs(), Preprocessing(size=8), batch_size=2, workers=2)

first, second = threading.Event(), threading.Event()
for batch in pipeline(first):
    first.wait()
    break
for number, batch in enumerate(pipeline(second)):
    if number == 1:
        second.wait()
        print(batch.errors, flush=True)
"""


@slow
def test_leaving_and_interrupting_while_the_source_blocks(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(encode(gradient(), "PNG"))
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(tmp_path / "photo.png")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert process.stdout is not None
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        assert process.stdout.readline().strip() == "(None, None)"
        time.sleep(0.2)  # until it waits for the third batch
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        _, errors = process.communicate(timeout=20)
        assert time.monotonic() - begin < 10
        assert process.returncode in (-signal.SIGINT, 130)
        assert errors.rstrip().endswith("KeyboardInterrupt")
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Far(Member):
    """An image that takes a while to come, whatever the number of processors; negative ones never do."""

    size: int = 1
    identity: None = None
    gate: threading.Event = field(default_factory=threading.Event)

    @property
    def remote(self) -> bool:
        return True

    def _read(self) -> bytes:
        if self.offset < 0:
            self.gate.wait(20)
        time.sleep(0.05)
        if self.offset % 10 == 7:
            raise ImageError("missing", "no such object")
        return b"%d" % self.offset

    def state(self) -> FileState | None:
        return None if self.offset % 10 == 7 else FileState(1, self.offset)


def far(number: int, gate: threading.Event) -> ImageRef:
    return ImageRef(f"{number}.jpg", Far("a", number, gate=gate), b"")


def test_what_lies_far_away_is_fetched_ahead_of_one_worker(gate: threading.Event) -> None:
    refs = [ref(number) if number % 10 == 3 else far(number, gate) for number in range(100)]
    drain(pipeline([ref(0)]))  # TensorFlow takes its time when it is first used
    begin = time.monotonic()
    batches, error = drain(pipeline(refs, workers=1))
    assert time.monotonic() - begin < 100 * 0.05 / 3
    assert error is None
    assert [ref.path for batch in batches for ref in batch.refs] == [ref.path for ref in refs]
    pixels = np.concatenate([batch.pixels for batch in batches])[:, 0, 0, 0]
    errors = [error for batch in batches for error in batch.errors]
    stamps = [stamp for batch in batches for stamp in batch.states]
    for number in range(100):
        if number % 10 == 7:
            assert (str(errors[number]), stamps[number]) == ("missing: no such object", None)
        else:
            assert (int(pixels[number]), errors[number]) == (number, None)
            assert stamps[number] == (None if number % 10 == 3 else FileState(1, number))


def test_what_never_comes_is_a_row_after_the_timeout(gate: threading.Event) -> None:
    refs = [far(number, gate) for number in (0, 1, -2, 3, 4)]
    batches, error = drain(pipeline(refs, batch_size=5, timeout=0.5))
    assert error is None
    assert [error and error.reason for error in batches[0].errors] == [None, None, "timeout", None, None]
    gate.set()


def test_leaving_early_lets_go_of_what_is_on_its_way(gate: threading.Event) -> None:
    batches = iter(pipeline(far(number, gate) for number in range(1000)))
    assert next(batches).refs[0].path == "0.jpg"
    batches.close()  # type: ignore[attr-defined]


def test_warnings_are_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sound = encode(gradient(320, 240), "JPEG")
    names = [tmp_path / f"{number}.jpg" for number in range(6)]
    for number, name in enumerate(names):
        name.write_bytes(sound[:-2] + bytes(40) + sound[-2:] if number % 3 == 1 else sound)
    refs = [ImageRef(str(name), LocalFile(str(name)), b"") for name in names]
    report = RunCounts(listed=6)
    with caplog.at_level("DETAIL", "xcli"):
        for batch in pipeline(refs, DecoderSpec()):
            report.count(batch.errors, batch.warnings)
    assert report.ok == 6
    assert report.as_dict()["warnings"] == {DAMAGED_DATA: 2}
    assert sorted(caplog.messages) == [f"{names[number]}: warning: damaged-data" for number in (1, 4)]
    assert "2 warnings (2 damaged-data)" in summary(report, 1.0)
    assert "warnings" not in RunCounts(ok=6).as_dict()
