"""Lays one small grey picture over another, and says how well they agree.

A copy may be smaller, cropped, framed, mirrored, brighter or grey, and a part of it may be painted over. So pictures
are compared by what stands out from its surroundings, relative to the contrast there; uniform frames count as not
there. A correlation by Fourier transforms, of 48 x 48 points, finds the places, at several scales and mirrored, where
the one may lie in the other. Least squares move and scale each until nothing improves (Gauss-Newton, robust against
parts that differ), and the best once more at full size. What is compared in the end is made no larger than it is.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIDE = 96
"""Of a picture, in pixels."""

PAD = 128
"""Grey level of what a picture is padded with to a square."""

_COARSE = 48  # pixels of a side where places are looked for
_TRANSFORM = 64  # of a side of the Fourier transforms, so that a shift by a third of the side does not come in again
_SCALES = 9
_STEP = 0.93  # from a scale to the next: the smallest is 0.56, of a crop of 44 % of the width
_PLACES, _GOOD_PLACES = 5, 2  # that are looked at, and that are looked at longer
_HOPELESS = 0.6  # correlation at half the size, below which there is no closer look; of copies it is above 0.8
_BLUR = {_COARSE: 2.0, SIDE: 2.5}  # standard deviation, in pixels, of what are the surroundings of a point
_NOISE = 2.0  # grey levels: points that stand out less are as good as equal
_FRAME_NOISE, _FRAME_CHANGE = 14, 8  # grey levels within a row of a frame, and from row to row
_MIN_CONTENT = 16  # pixels of a side that are left when frames are taken away
_MIN_OVERLAP = 0.12  # share of the square
_BLOCK = 8  # pixels
_DISREGARDED = 0.2  # share of the blocks that may differ
_MAX_STRETCH = 1.15  # of the one direction over the other


class Layer(NamedTuple):
    """Pictures at one size.

    Attributes:
        grey: float32[..., s, s], 0 where there is nothing.
        mask: float32[..., s, s], 1 where there is content, else 0.
    """

    grey: NDArray[np.float32]
    mask: NDArray[np.float32]


class Picture:
    """A picture with what is needed to lay it over others.

    Args:
        grey: uint8[SIDE, SIDE], an image scaled to the square, the rest of it `PAD`.
    """

    def __init__(self, grey: NDArray[np.uint8]) -> None:
        import numpy as np

        top, bottom, left, right = _content(grey)
        mask = np.zeros((SIDE, SIDE), np.float32)
        mask[top:bottom, left:right] = 1
        self.fine = Layer(grey * mask, mask)
        smaller = _pyramid()
        layers = _resampled(self.fine, smaller, smaller)
        self.coarse = Layer(layers.grey[0], layers.mask[0])
        relief = _relief(layers)
        self.is_plain = _contrast(self.fine) < _NOISE
        """Whether there is too little on it to recognize it."""
        self.energies, self.areas = (relief * relief).sum((1, 2)), layers.mask.sum((1, 2))
        shape = (_TRANSFORM, _TRANSFORM)
        self.spectra = np.fft.rfft2(relief, shape)
        self.mirrored = np.fft.rfft2(relief[0, :, ::-1], shape)


class _Place(NamedTuple):
    """How a picture, the part, may lie in another one, the whole.

    Attributes:
        correlation: by the coarse search.
        swapped: whether the part is the first picture of the pair.
        is_mirrored: whether the whole is mirrored.
        power: of `_STEP`, the scale of the part.
        down, across: its shift in coarse pixels.
    """

    correlation: float
    swapped: bool
    is_mirrored: bool
    power: int
    down: int
    across: int


def agreement(first: Picture, second: Picture) -> float:
    """Returns how far two pictures agree where they overlap best: 1 is complete, NaN if one of them is plain.

    It is the correlation over the blocks that agree best, and hold four fifths of what there is to see; of pictures
    that are far from that it is the correlation over all of the overlap, at half the size.
    """
    if first.is_plain or second.is_plain:
        return float("nan")
    places = _likely_places(first, second)
    pictures = [(second, first) if place.swapped else (first, second) for place in places]
    wholes = _stacked(
        [_turned(whole.coarse, place.is_mirrored) for (whole, _), place in zip(pictures, places, strict=True)]
    )
    parts = _stacked([part.coarse for _, part in pictures])
    maps, correlations = _refined(wholes, parts, _starts(places), rounds=2)
    better = correlations.argsort()[::-1][:_GOOD_PLACES]
    maps, correlations = _refined(_taken(wholes, better), _taken(parts, better), maps[better], rounds=3)
    at = int(correlations.argmax())
    if correlations[at] < _HOPELESS:
        return max(float(correlations[at]), 0.0)
    best = int(better[at])
    whole, part = pictures[best]
    fine, part_fine = _stacked([_turned(whole.fine, places[best].is_mirrored)]), _stacked([part.fine])
    ratio = SIDE / _COARSE
    maps, _ = _refined(fine, part_fine, maps[at : at + 1] * [1, ratio, 1, ratio], rounds=3)
    return _agreement_at(fine, part_fine, maps)


def _content(grey: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Returns top, bottom, left and right of what is not padding, nor a uniform frame."""
    box = [0, SIDE, 0, SIDE]
    signed = grey.astype("int16")
    for noise, change, blended, padding in ((0, 0, 0, PAD), *[(_FRAME_NOISE, _FRAME_CHANGE, 1, None)] * 2):
        for edge in range(4):
            inner = signed[box[0] : box[1], box[2] : box[3]]
            lines = inner if edge < 2 else inner.T
            lines = lines[::-1] if edge % 2 else lines
            level = lines[0].mean() if padding is None else padding
            plain = (lines.max(1) - lines.min(1) <= noise) & (abs(lines.mean(1) - level) <= change)
            count = len(plain) if plain.all() else int(plain.argmin())
            if count:  # the line after a frame is blended with it
                count = min(count + blended, len(lines) - _MIN_CONTENT)
                box[edge] += -max(count, 0) if edge % 2 else max(count, 0)
    return box[0], box[1], box[2], box[3]


@cache
def _blurring(side: int) -> NDArray[np.float32]:
    """Returns the matrix that blurs from both sides, float32[side, side]."""
    import numpy as np

    distance = np.subtract.outer(np.arange(side), np.arange(side)) / _BLUR[side]
    found: NDArray[np.float32] = np.exp(-(distance**2) / 2).astype(np.float32)
    return found / np.float32(np.sqrt(2 * np.pi) * _BLUR[side])


def _relief(layer: Layer) -> NDArray[np.float32]:
    """Returns how each point stands out from its surroundings, relative to the contrast there; 0 beside the mask."""
    import numpy as np

    blurring = _blurring(layer.grey.shape[-1])
    weight = np.maximum(blurring @ layer.mask @ blurring, np.float32(1e-3))
    high = layer.mask * (layer.grey - blurring @ (layer.grey * layer.mask) @ blurring / weight)
    squares = high * high
    # Where there is little contrast, it is compared with that of the whole.
    whole = squares.sum((-2, -1), keepdims=True) / np.maximum(layer.mask.sum((-2, -1), keepdims=True), 1)
    variance = blurring @ squares @ blurring / weight + np.float32(0.3) * whole + np.float32(_NOISE**2)
    found: NDArray[np.float32] = high / np.sqrt(variance)
    return found


def _contrast(layer: Layer) -> float:
    """Returns by how many grey levels points stand out from their surroundings: the root of the mean square."""
    import numpy as np

    blurring = _blurring(layer.grey.shape[-1])
    weight = np.maximum(blurring @ layer.mask @ blurring, np.float32(1e-3))
    high = layer.mask * (layer.grey - blurring @ layer.grey @ blurring / weight)
    return float(np.sqrt((high * high).sum() / layer.mask.sum()))


def _samplings(length: int, source: int, maps: NDArray[np.float64]) -> NDArray[np.float32]:
    """Returns matrices [n, length, source] that sample at scale * x + shift, with antialiasing where they shrink.

    Args:
        length, source: number of samples, and of pixels.
        maps: scales and shifts, [n, 2]; rows that fall outside are zero.
    """
    import numpy as np

    at = (np.arange(length) + 0.5) * maps[:, :1] + maps[:, 1:]
    distance = np.abs(at[:, :, None] - (np.arange(source) + 0.5)) / np.maximum(maps[:, :1, None], 1)
    weights = np.maximum(1 - distance, 0) * ((at >= 0) & (at <= source))[:, :, None]
    found: NDArray[np.float32] = (weights / np.maximum(weights.sum(2, keepdims=True), 1e-6)).astype(np.float32)
    return found


@cache
def _pyramid() -> NDArray[np.float32]:
    """Returns the matrices that shrink a picture about its centre by powers of `_STEP`, to coarse pixels."""
    import numpy as np

    scale = SIDE / _COARSE / _STEP ** np.arange(_SCALES)
    return _samplings(_COARSE, SIDE, np.stack([scale, (SIDE - scale * _COARSE) / 2], 1))


def _resampled(layer: Layer, rows: NDArray[np.float32], columns: NDArray[np.float32]) -> Layer:
    """Returns pictures sampled by matrices [n, t, s]; points that are not wholly within the mask are none."""
    import numpy as np

    across = columns.swapaxes(-2, -1)
    weight = rows @ layer.mask @ across
    grey: NDArray[Any] = rows @ (layer.grey * layer.mask) @ across / np.maximum(weight, np.float32(1e-3))
    mask = np.asarray(weight > 0.99, np.float32)
    return Layer(grey * mask, mask)


def _likely_places(first: Picture, second: Picture) -> list[_Place]:
    """Returns the `_PLACES` best ones, of which no two are beside each other."""
    import numpy as np

    found = []
    for swapped, whole, part in ((False, first, second), (True, second, first)):
        begin = int(swapped)  # at the full scale it is the same either way
        energy = part.energies[begin:] * whole.energies[0]
        norm = np.sqrt(energy * np.minimum(1, part.areas[begin:] / max(whole.areas[0], 1)))
        for is_mirrored, spectrum in ((False, whole.spectra[0]), (True, whole.mirrored)):
            product = spectrum * np.conj(part.spectra[begin:])
            correlation = np.fft.irfft2(product, (_TRANSFORM, _TRANSFORM)).reshape(len(norm), -1)
            best = correlation.argmax(1)
            values = correlation[np.arange(len(norm)), best] / np.maximum(norm, 1e-6)
            down, across = ((shift + _COARSE // 2) % _TRANSFORM - _COARSE // 2 for shift in divmod(best, _TRANSFORM))
            rows = zip(values.tolist(), down.tolist(), across.tolist(), strict=True)
            found += [_Place(v, swapped, is_mirrored, k, y, x) for k, (v, y, x) in enumerate(rows, begin)]
    chosen: list[_Place] = []
    for place in sorted(found, reverse=True):
        if not any(_is_beside(place, other) for other in chosen):
            chosen.append(place)
    return chosen[:_PLACES]


def _is_beside(one: _Place, other: _Place) -> bool:
    return (
        one[1:3] == other[1:3]
        and abs(one.power - other.power) <= 1
        and max(abs(one.down - other.down), abs(one.across - other.across)) <= 3
    )


def _turned(layer: Layer, is_mirrored: bool) -> Layer:
    return Layer(layer.grey[:, ::-1], layer.mask[:, ::-1]) if is_mirrored else layer


def _stacked(layers: list[Layer]) -> Layer:
    import numpy as np

    return Layer(np.stack([one.grey for one in layers]), np.stack([one.mask for one in layers]))


def _taken(layer: Layer, rows: NDArray[np.int64]) -> Layer:
    return Layer(layer.grey[rows], layer.mask[rows])


def _starts(places: list[_Place]) -> NDArray[np.float64]:
    """Returns from where in the parts to sample, [n, 4] in coarse pixels: scale and shift of rows, then of columns."""
    import numpy as np

    scale = _STEP ** -np.array([place.power for place in places], np.float64)
    half = _COARSE / 2
    down, across = (np.array([place[i] for place in places]) for i in (4, 5))
    return np.stack([scale, half - scale * (half + down), scale, half - scale * (half + across)], 1)


def _refined(
    wholes: Layer, parts: Layer, maps: NDArray[np.float64], rounds: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Moves and scales parts so that they agree with the wholes; returns the best maps, and their correlations.

    Args:
        wholes, parts: n pictures each.
        maps: [n, 4], see `_starts`.
        rounds: steps of Gauss and Newton.
    """
    import numpy as np

    side = wholes.grey.shape[-1]
    best, correlations = maps.copy(), np.full(len(maps), -1.0)
    ramp = ((np.arange(side) + 0.5) * (2 / side) - 1).astype(np.float32)
    for left in range(rounds, -1, -1):
        relief, other, mask = _overlap(wholes, parts, maps)
        norms = (relief * relief).sum((1, 2)), (other * other).sum((1, 2))
        product = (relief * other).sum((1, 2))
        value = product / np.sqrt(norms[0] * norms[1] + 1e-6)
        value[mask.mean((1, 2)) < _MIN_OVERLAP] = -1
        better = value > correlations
        best[better], correlations[better] = maps[better], value[better]
        if not left:
            break
        gain = np.clip(product / (norms[1] + 1e-6), 0.3, None)[:, None, None].astype(np.float32)
        slope = mask * gain
        down, across = _slope(other, 1) * slope, _slope(other, 2) * slope
        jacobian = np.stack([down, down * ramp[:, None], across, across * ramp], 1).reshape(len(maps), 4, -1)
        error = ((relief - gain * other) * mask).reshape(len(maps), -1)
        spread = np.sqrt((error * error).mean(1, keepdims=True)) + np.float32(1e-6)
        weighted = jacobian / (1 + (error / (1.5 * spread)) ** 2)[:, None]
        normal = (weighted @ jacobian.swapaxes(1, 2)).astype(np.float64)
        normal += np.eye(4) * (1e-3 * np.trace(normal, axis1=1, axis2=2) / 4 + 1e-6)[:, None, None]
        step = np.linalg.solve(normal, (weighted @ error[:, :, None]).astype(np.float64))[:, :, 0]
        maps = _moved(maps, np.clip(step, -3, 3), side)
    return best, correlations


def _overlap(
    wholes: Layer, parts: Layer, maps: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Returns the reliefs of wholes and parts where both have content, and where this is: float32[n, s, s] each."""
    side = wholes.grey.shape[-1]
    there = _resampled(parts, _samplings(side, side, maps[:, :2]), _samplings(side, side, maps[:, 2:]))
    mask = wholes.mask * there.mask
    return _relief(Layer(wholes.grey * mask, mask)), _relief(Layer(there.grey * mask, mask)), mask


def _slope(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    import numpy as np

    found = np.zeros_like(values)
    inner, after, before = ([slice(None)] * 3 for _ in range(3))
    inner[axis], after[axis], before[axis] = slice(1, -1), slice(2, None), slice(None, -2)
    found[tuple(inner)] = (values[tuple(after)] - values[tuple(before)]) / 2
    return found


def _moved(maps: NDArray[np.float64], step: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Returns the maps after steps: shift and stretch of rows, then of columns, in pixels at the edge."""
    import numpy as np

    found = maps.copy()
    found[:, 1::2] += maps[:, ::2] * (step[:, ::2] - step[:, 1::2])
    found[:, ::2] *= 1 + step[:, 1::2] * (2 / side)
    # Pictures are never enlarged much, nor stretched in one direction only.
    low, high = np.minimum(found[:, 0], found[:, 2]), np.maximum(found[:, 0], found[:, 2])
    bad = (low < 0.9) | (high > 1 / _STEP**_SCALES) | (high > _MAX_STRETCH * low)
    found[bad] = maps[bad]
    return found


def _agreement_at(whole: Layer, part: Layer, maps: NDArray[np.float64]) -> float:
    """Returns the agreement of two pictures that lie so; arrays are as those of `_refined`, of one pair."""
    import numpy as np

    relief, other, mask = (one[0] for one in _overlap(whole, part, maps))
    product, square, other_square, area = map(_by_block, (relief * other, relief * relief, other * other, mask))
    usable = area > _BLOCK**2 / 2
    if area.sum() < _MIN_OVERLAP * SIDE**2 or not usable.any():
        return 0.0
    product, square, other_square = product[usable], square[usable], other_square[usable]
    correlation = product / np.sqrt(square * other_square + 1e-6 * _BLOCK**4)
    weight = np.sqrt(np.maximum(square, other_square))
    weight = np.minimum(weight, 1.5 * np.median(weight) + 1e-6)
    order = np.argsort(correlation)
    kept = order[np.cumsum(weight[order]) >= _DISREGARDED * weight.sum()]
    return float(product[kept].sum() / np.sqrt(square[kept].sum() * other_square[kept].sum() + 1e-9))


def _by_block(values: NDArray[np.float32]) -> NDArray[np.float32]:
    number = SIDE // _BLOCK
    found: NDArray[np.float32] = values.reshape(number, _BLOCK, number, _BLOCK).sum((1, 3))
    return found
