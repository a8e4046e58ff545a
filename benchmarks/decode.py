"""From a file to pixels, in one thread: ours beside Pillow, TensorFlow, libvips, OpenCV and simplejpeg."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.machine import installed
from benchmarks.photographs import find, mosaics
from benchmarks.timing import Data, Sampler, Save, alternate, compare_all, group

if TYPE_CHECKING:
    from benchmarks.settings import Settings

SAMPLE = 200
"""Photographs in a sample, at most."""

MOSAICS = 8

OURS, FULL, PLAIN = "ours", "ours, full decode", "ours, resampler pillow"
PILLOW, TENSORFLOW, VIPS, OPENCV = "Pillow", "TensorFlow", "libvips", "OpenCV"
SIMPLEJPEG = "simplejpeg and our resampler"

ENVIRONMENT = {"VIPS_CONCURRENCY": "1", "OMP_NUM_THREADS": "1"}
"""Of the child process in which `measure` runs: one thread for everybody."""

Decode = Callable[[str], Any]


def measure(settings: Settings, save: Save) -> Data:
    """Measures small and large JPEGs; for a child process with `ENVIRONMENT`."""
    small = [file for file in find(settings.photographs)[: settings.distinct] if file.suffix != ".png"][:SAMPLE]
    if not small:
        return {"groups": [], "note": "none of the photographs is a JPEG"}
    large = mosaics(small, Path(settings.scratch, "mosaics"), MOSAICS)
    contestants, missing = _contestants()
    data: Data = {"groups": []}
    for files, what in ((small, "the photographs"), (large, f"{MOSAICS} JPEGs of 12 megapixels")):
        names = [str(file) for file in files]
        samplers = {name: _sampler(decode, names) for name, decode in contestants.items()}

        def result(samples: dict[str, list[float]], what: str = what) -> Data:
            pairs = [(OURS, other) for other in samples if other != OURS]
            title = f"Decoding in one thread: {what}"
            return group(title, "images/s", samples, compare_all(samples, pairs), missing=missing)

        def after(samples: dict[str, list[float]], result: Callable[..., Data] = result) -> None:
            save({**data, "groups": [*data["groups"], result(samples)]})

        data["groups"].append(result(alternate(samplers, settings.repeats, after)))
    data["facts"] = [
        {
            "name": f"shrunk while decoding against full decode: mean absolute difference, {what}",
            "value": difference([str(file) for file in files]),
            "unit": "grey levels",
        }
        for files, what in ((small, "the photographs"), (large, "12 megapixels"))
    ]
    return data


def difference(names: Sequence[str]) -> float:
    """Mean absolute difference, in grey levels of 256, between our two ways to decode."""
    import numpy as np

    shrunk, full = _ours(shrink=True), _ours(shrink=False)
    each = [np.abs(shrunk(name).astype(np.int16) - full(name)).mean() for name in names]
    return float(np.mean(each))


def _sampler(decode: Decode, names: Sequence[str]) -> Sampler:
    def sample() -> float:
        decode(names[0])  # imports, tables, caches
        begin = time.perf_counter()
        for name in names:
            decode(name)
        return len(names) / (time.perf_counter() - begin)

    return sample


def _contestants() -> tuple[dict[str, Decode], dict[str, str]]:
    found = {
        OURS: _ours(shrink=True),
        PILLOW: _pillow(),
        FULL: _ours(shrink=False),
        PLAIN: _ours(shrink=True, resampler="pillow"),
        TENSORFLOW: _tensorflow(),
    }
    others = {VIPS: ("pyvips", _vips), OPENCV: ("cv2", _opencv), SIMPLEJPEG: ("simplejpeg", _simplejpeg)}
    for name, (module, make) in others.items():
        if installed(module):
            found[name] = make()
    return found, {name: "not installed" for name in others if name not in found}


def _ours(*, shrink: bool, resampler: str | None = None) -> Decode:
    from xcli.images.preprocessing import Preprocessing, load_image
    from xcli.storage.local import LocalFile

    preprocessing = Preprocessing(jpeg_shrink=shrink, resampler=resampler)
    return lambda name: load_image(LocalFile(name), preprocessing)


def _pillow() -> Decode:
    import numpy as np
    from PIL import Image

    def decode(name: str) -> Any:
        with Image.open(name) as image:
            return np.asarray(image.convert("RGB").resize((299, 299), Image.Resampling.BICUBIC))

    return decode


def _tensorflow() -> Decode:
    from xcli.core.tensorflow import load_tensorflow

    tf = load_tensorflow()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    def decode(name: Any) -> Any:
        # The settings with which it gives the same pixels as Pillow; its defaults are faster and coarser.
        image = tf.io.decode_jpeg(
            tf.io.read_file(name), channels=3, dct_method="INTEGER_ACCURATE", fancy_upscaling=True
        )
        resized = tf.image.resize(image, (299, 299), "bicubic", antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)

    return lambda name: decode(tf.constant(name)).numpy()


def _vips() -> Decode:
    import pyvips

    def decode(name: str) -> Any:
        return pyvips.Image.thumbnail(name, 299, height=299, crop="centre").colourspace("srgb").numpy()

    return decode


def _opencv() -> Decode:
    import cv2

    cv2.setNumThreads(1)

    def decode(name: str) -> Any:
        # Its bicubic filter aliases when an image becomes smaller; this one does not.
        return cv2.resize(cv2.imread(name, cv2.IMREAD_COLOR_RGB), (299, 299), interpolation=cv2.INTER_AREA)

    return decode


def _simplejpeg() -> Decode:
    import simplejpeg
    from PIL import Image

    from xcli.images.resampling import resample

    def decode(name: str) -> Any:
        with open(name, "rb") as file:
            image = Image.fromarray(simplejpeg.decode_jpeg(file.read()))
        return resample(image, (299, 299), (0.0, 0.0, *map(float, image.size)), "bicubic", "simd")

    return decode
