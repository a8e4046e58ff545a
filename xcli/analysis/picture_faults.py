"""What is wrong with pictures as pictures: blank, blurred, dark, bright, tiny, or of an odd shape.

All but the last two are judged on the picture squeezed to `SIDE` x `SIDE` pixels, which is about what a network sees: a
large photograph that is only slightly out of focus is sharp there. The limits leave alone ordinary photographs of
persons and things, and ones of goods on white ground: of 3,409 photographs of clothes by many people they find none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xcli.core.finding_kinds import BLANK, BLURRED, BRIGHT, DARK, ODD_SHAPE, TINY

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIDE = 256
"""Of the squeezed picture, in pixels."""

MIN_RANGE = 16
"""Grey levels between the darkest and the brightest half percent of a channel, below which a picture is blank."""

MIN_SHARPNESS = 0.12
"""Least strength of the sharpest percent of the picture's points, as a share of its contrast."""

MIN_BRIGHTEST = 80
"""Grey level that the brightest percent of the points reaches in a picture that is not dark."""

MAX_DARKEST = 190
"""Grey level that the darkest twentieth of the points is below in a picture that is not bright."""

MIN_SIDE = 64
"""Pixels of the shorter side; of smaller ones a network with a side of 299 sees mostly interpolation."""

MAX_RATIO = 3.0
"""Of the longer side to the shorter one; of longer strips the default crop shows less than a third."""


class Fault(NamedTuple):
    """One fault of a picture.

    Attributes:
        issue: what it is.
        severity: from 0, at the limit, to 1.
        detail: what was measured, as a clause.
    """

    issue: str
    severity: float
    detail: str


def faults_of(pixels: NDArray[np.uint8], width: int, height: int) -> list[Fault]:
    """Returns the faults of a picture; of a blank one only that, and what its size says.

    Args:
        pixels: uint8[s, s, 3], the whole picture squeezed to a square.
        width, height: of the picture before, in pixels.
    """
    found = []
    shorter, longer = sorted((width, height))
    if shorter < MIN_SIDE:
        found.append(Fault(TINY, 1 - shorter / MIN_SIDE, f"{width}x{height} pixels"))
    if longer > MAX_RATIO * shorter:
        found.append(Fault(ODD_SHAPE, 1 - MAX_RATIO * shorter / longer, f"{width}x{height} pixels"))
    return _seen(pixels) + found


def _seen(pixels: NDArray[np.uint8]) -> list[Fault]:
    import numpy as np
    from PIL import Image

    image = Image.fromarray(pixels)
    counts = np.array(image.histogram()).reshape(3, 256)
    spread = max(_level(one, 0.995) - _level(one, 0.005) for one in counts)
    if spread < MIN_RANGE:
        return [Fault(BLANK, 1 - spread / MIN_RANGE, f"{spread} grey levels between its darkest and brightest part")]
    found = []
    grey = np.asarray(image.convert("L"))
    levels = np.bincount(grey.ravel(), minlength=256)
    darkest, dark, brightest = (_level(levels, share) for share in (0.01, 0.05, 0.99))
    if brightest < MIN_BRIGHTEST:
        found.append(
            Fault(DARK, 1 - brightest / MIN_BRIGHTEST, f"99 % of it is below grey level {brightest + 1} of 255")
        )
    if dark > MAX_DARKEST:
        severity = (dark - MAX_DARKEST) / (255 - MAX_DARKEST)
        found.append(Fault(BRIGHT, severity, f"95 % of it is above grey level {dark - 1} of 255"))
    signed = grey.astype(np.int16)
    edges = 4 * signed[1:-1, 1:-1] - signed[:-2, 1:-1] - signed[2:, 1:-1] - signed[1:-1, :-2] - signed[1:-1, 2:]
    # Of pictures with little contrast the rounding to whole grey levels would pass for sharpness.
    sharpness = _level(np.bincount(np.abs(edges).ravel()), 0.99) / max(brightest - darkest, MIN_RANGE)
    if sharpness < MIN_SHARPNESS:
        found.append(Fault(BLURRED, 1 - sharpness / MIN_SHARPNESS, f"sharpness {sharpness:.3f}, usually above 0.3"))
    return found


def _level(counts: NDArray[np.int64], share: float) -> int:
    """Returns the least level that this share of the counted points does not exceed."""
    sums = counts.cumsum()
    return int((sums >= share * sums[-1]).argmax())
