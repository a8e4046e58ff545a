"""Damaged images of every format: pixels or an `ImageError`, soon, quietly and in bounded memory."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.imagefiles import encode, gradient, png, texture
from tests.mutations import KINDS, LIMIT, Edit, corpus, mutate
from tests.thorough import slow
from xcli.core.errors import ImageError
from xcli.images import rgb as colours
from xcli.images.decoders import load_decoders, open_image
from xcli.images.jpeg import MAX_SCANS
from xcli.images.preprocessing import Preprocessing, decode_image, load_image
from xcli.inference.decoder_pool import DecoderPool
from xcli.inference.decoder_server import DecoderSpec
from xcli.inference.pixel_batch import Chunk, PixelBatch
from xcli.inference.pixel_slots import PixelSlots, SlotLayout
from xcli.inference.profiler import Profile
from xcli.sources.locations import file_ref
from xcli.storage.local import LocalFile

if TYPE_CHECKING:
    pass

ROOT = Path(__file__).resolve().parent.parent
FILES = corpus()
WAYS = (
    Preprocessing(size=24, max_pixels=4_000_000),
    Preprocessing(size=24, resize="squash", interpolation="nearest", max_pixels=4_000_000),
    Preprocessing(size=5, resize="pad", interpolation="lanczos", max_pixels=4_000_000),
)
NUMBERS = st.integers(0, LIMIT - 1)
EDITS = st.lists(st.builds(Edit, st.sampled_from(KINDS), NUMBERS, NUMBERS), min_size=1, max_size=6)


def decode_elsewhere(pool: DecoderPool, slots: PixelSlots, path: Path) -> ImageError | None:
    """Decodes a file in a process of its own; returns its error."""
    batch = PixelBatch(0, slots.take(), [(file_ref(os.fsencode(path)), None)])
    pool.submit(Chunk(batch, range(1)))
    batch.end()
    batch.done.wait()
    assert batch.failure is None
    return batch.errors.get(0)


def test_every_file_of_the_corpus_is_sound() -> None:
    for name, data in FILES.items():
        assert decode_image(data, WAYS[0]).shape == (24, 24, 3), name


def test_damage_gives_pixels_or_an_image_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file"

    @settings(max_examples=1000, deadline=None, derandomize=True, database=None)
    @given(name=st.sampled_from(sorted(FILES)), edits=EDITS, mended=st.booleans(), p=st.sampled_from(WAYS))
    def attempt(name: str, edits: list[Edit], mended: bool, p: Preprocessing) -> None:
        path.write_bytes(mutate(FILES[name], [*edits, Edit("mend", 0, 0)] if mended else edits, FILES))
        problem = None
        try:
            pixels = load_image(LocalFile(str(path)), p)
        except ImageError as error:
            problem = error
        if problem is not None:
            assert problem.reason in ImageError.REASONS
            assert len(str(problem).splitlines()) == 1
        else:
            assert pixels.dtype == np.uint8
            assert pixels.shape == (p.size, p.size, 3)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_decoders()
        attempt()
    assert capsys.readouterr() == ("", "")


def test_damage_ends_no_process_that_decodes(tmp_path: Path) -> None:
    """Nor does any file end the next: what they leave in the memory of their decoder does no harm."""
    path = tmp_path / "file"
    slots = PixelSlots(SlotLayout(1, WAYS[0].size))
    pool = DecoderPool(WAYS[0], DecoderSpec(), slots, workers=1, timeout=10, profile=Profile())

    @settings(max_examples=500, deadline=None, derandomize=True, database=None)
    @given(name=st.sampled_from(sorted(FILES)), edits=EDITS)
    def attempt(name: str, edits: list[Edit]) -> None:
        path.write_bytes(mutate(FILES[name], edits, FILES))
        error = decode_elsewhere(pool, slots, path)
        assert error is None or error.reason not in ("crashed", "timeout")

    try:
        attempt()
        for name, data in FILES.items():
            path.write_bytes(data)
            assert decode_elsewhere(pool, slots, path) is None, name
    finally:
        pool.close()
        slots.close()


def fuzz(*arguments: str, code: int = 0) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *arguments], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert run.returncode == code, run.stdout + run.stderr
    return run.stdout


@slow
def test_a_short_run_of_the_fuzzer_finds_nothing(tmp_path: Path) -> None:
    """In a process of its own, where crashes, hangs and memory are seen too."""
    said = fuzz("--cases", "3000", "--seconds", "60", "--seed", "20", "--keep", str(tmp_path))
    found = re.search(r"^3,000 files: .* ok, .*; 0 failures; at most (\d+) MiB for one, of 156 allowed$", said)
    assert found, said


def test_the_fuzzer_can_be_narrowed_and_replays(tmp_path: Path) -> None:
    said = fuzz("--cases", "20", "--formats", "gif,bmp", "--keep", str(tmp_path))
    assert said.startswith("20 files: ")
    kept = tmp_path / "kept.gif"
    kept.write_bytes(FILES["animated.gif"][:100])
    assert fuzz("--replay", str(kept), "--way", "1") == "truncated\n"


# ---- memory ----

_CHILD = """
import sys
from xcli.core.errors import ImageError
from xcli.storage.local import LocalFile
from xcli.images.decoders import load_decoders, open_image
from xcli.images.preprocessing import Preprocessing, load_image
load_decoders()
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))
load_image(LocalFile(sys.argv[1]), Preprocessing())
before = peak()
for path in sys.argv[2:]:
    try:
        load_image(LocalFile(path), Preprocessing())
    except ImageError as error:
        print(error, file=sys.stderr)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_pixels_are_made_rgb_in_little_memory(tmp_path: Path) -> None:
    """Decoded samples and the RGB picture, 8 bytes a pixel, and hardly more; turned upright no more than that."""
    side = 5000
    (tmp_path / "small.png").write_bytes(FILES["alpha.png"])
    alpha = bytes([10, 20, 30, 128]) * side
    key = bytes([1, 2]) * (3 * side)
    wide = bytes([3, 4]) * side
    names = []
    for name, data in {
        "alpha": png(side, side, 8, 6, [alpha] * side),
        "key": png(side, side, 8, 2, [alpha[: 3 * side]] * side, tRNS=struct.pack(">3H", 10, 20, 30)),
        "grey16": png(side, side, 16, 0, [wide] * side),
        "colour16": png(side, side, 16, 2, [key] * side),
    }.items():
        (tmp_path / name).write_bytes(data)
        names.append(str(tmp_path / name))
    for name in names:
        run = subprocess.run(
            [sys.executable, "-c", _CHILD, str(tmp_path / "small.png"), name],
            capture_output=True,
            text=True,
            timeout=100,
            cwd=ROOT,
        )
        assert run.returncode == 0, run.stderr
        assert run.stderr == ""
        assert int(run.stdout) < 11 * side * side, name


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_tiles_give_the_pixels_of_the_whole(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = texture(75, 53).convert("RGBA")
    picture.putalpha(texture(75, 53, seed=1).convert("L"))
    image: Any = picture
    if mode == "LA":
        image = picture.convert("LA")
    elif mode in ("P", "PA"):
        image = texture(75, 53).quantize(40)
        image.info["transparency"] = bytes(range(0, 240, 6))
        image = image if mode == "P" else image.convert("PA")
    whole = image.convert("RGBA")
    white = Image.new("RGBA", whole.size, (255, 255, 255))
    expected = np.asarray(Image.alpha_composite(white, whole).convert("RGB"))
    for side in (8, 53, 1024):
        monkeypatch.setattr(colours, "_SIDE", side)
        assert (np.asarray(colours._over_white(image)) == expected).all(), side


def test_tiles_of_keys_and_of_sixteen_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    p = Preprocessing(size=64)
    names = ("key16.png", "large-grey16.png", "grey16.tif")
    whole = [decode_image(FILES[name], p) for name in names]
    monkeypatch.setattr(colours, "_SIDE", 3)
    for name, expected in zip(names, whole, strict=True):
        assert (decode_image(FILES[name], p) == expected).all(), name


# ---- what libjpeg keeps to itself ----


def scans(data: bytes) -> list[tuple[int, int]]:
    """Begin and end of every scan of a progressive JPEG."""
    starts = [found.start() for found in re.finditer(rb"\xff\xda", data)]
    return [
        (start, found.start())
        for start in starts
        if (found := re.compile(rb"\xff[^\x00\xff\xd0-\xd7]").search(data, start + 14)) is not None
    ]


def test_a_jpeg_of_endless_scans_is_refused_at_once() -> None:
    data = encode(texture(64, 48), "JPEG", progressive=True)
    begin, end = scans(data)[-1]
    bomb = data[:begin] + data[begin:end] * MAX_SCANS + data[end:]
    started = time.process_time()
    with pytest.raises(ImageError, match="more than 500 scans") as caught:
        decode_image(bomb, Preprocessing())
    assert caught.value.reason == "corrupt"
    assert time.process_time() - started < 0.5
    few = data[:begin] + data[begin:end] * 300 + data[end:]
    assert decode_image(few, Preprocessing()).shape == (299, 299, 3)


def test_scans_of_many_pixels_are_counted_with_their_pixels() -> None:
    """The header says 13,000 times 13,000 pixels: seventeen such files would occupy all decoders for hours."""
    data = encode(texture(64, 48), "JPEG", progressive=True)
    begin, end = scans(data)[-1]
    size = data.index(b"\xff\xc2") + 5
    large = data[:size] + struct.pack(">HH", 13_000, 13_000) + data[size + 4 : begin]
    open_image(large + data[begin:end] * 20 + data[end:]).close()
    with pytest.raises(ImageError, match=r"^corrupt: it has more than 32 scans of 169,000,000 pixels$"):
        open_image(large + data[begin:end] * 499 + data[end:])


def test_what_only_looks_like_scans_does_not_count() -> None:
    data = encode(texture(64, 48), "JPEG")
    comment = b"\xff\xfe" + struct.pack(">H", 2002) + b"\xff\xda" * 1000
    for tricky in (data + b"\xff\xda" * 1000, data[:2] + comment + data[2:]):
        assert (decode_image(tricky, Preprocessing()) == decode_image(data, Preprocessing())).all()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_jpeg_whose_tail_is_zeros_is_truncated(options: dict[str, Any], share: float) -> None:
    data = encode(texture(320, 240), "JPEG", **options)
    left = int(len(data) * share)
    with pytest.raises(ImageError, match="there are only zeros") as caught:
        decode_image(data[:left] + bytes(len(data) - left), Preprocessing())
    assert caught.value.reason == "truncated"


def test_zeros_behind_the_end_of_a_jpeg_do_not_matter() -> None:
    for name in ("baseline.jpg", "progressive.jpg", "restarts.jpg", "two.mpo.jpg"):
        sound = decode_image(FILES[name], Preprocessing())
        assert (decode_image(FILES[name] + bytes(4096), Preprocessing()) == sound).all(), name


def test_a_jpeg_of_zeros_that_ends_as_it_should() -> None:
    flat = encode(Image.new("L", (2000, 2000)), "JPEG", optimize=True)
    assert bytes(64) in flat, "the picture itself is zeros, in this coding"
    assert decode_image(flat, Preprocessing()).max() == 0


# ---- holding up others ----


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_decode_does_not_stop_the_other_threads(form: str) -> None:
    """The timeout is counted by another thread, which must come to run meanwhile."""
    buffer = io.BytesIO()
    gradient(3000, 3000).save(buffer, form, **({"lossless": False} if form == "WEBP" else {}))
    load_decoders()
    thread = threading.Thread(target=decode_image, args=(buffer.getvalue(), Preprocessing(jpeg_shrink=False)))
    longest, last = 0.0, time.monotonic()
    thread.start()
    while thread.is_alive():
        time.sleep(0.001)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    assert longest < 2
