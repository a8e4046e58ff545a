"""What a look at the pixels says of altered copies, and of images that only look alike:

    python -m benchmarks pixels FEATURES [--originals N] [--least C] [--sheet FILE]

FEATURES is a table that `xception features` wrote, of photographs that are where it says. Of some of them altered
copies are made, and compared with the photographs. Then all pairs of different photographs are compared whose whitened
cosine is at least C; those that pass are to be looked at, in the picture FILE: in most collections they are copies.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from benchmarks.copies import ALTERATIONS, write_copies
from benchmarks.machine import machine

if TYPE_CHECKING:
    from numpy.typing import NDArray

BANDS = (0.2, 0.25, 0.3, 0.4, 0.5)
SHOWN, SIDE, COLUMNS = 60, 160, 3


def main() -> None:
    """Makes copies, looks at them and at look-alikes, and prints tables in Markdown."""
    from xcli.analysis.pixel_check import MIN_AGREEMENT

    parser = argparse.ArgumentParser(prog="benchmarks pixels", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("features")
    parser.add_argument("--originals", type=int, default=250)
    parser.add_argument("--least", type=float, default=0.2)
    parser.add_argument("--sheet")
    options = parser.parse_args()
    paths, first, second, similarity = look_alikes(options.features, options.least)
    print(f"{machine()['processor']}; copies agree from {MIN_AGREEMENT:g} on\n")
    copies(paths[:: max(1, len(paths) // options.originals)][: options.originals])
    check, seconds = looked_at(paths, first, second)
    print("| whitened cosine from | pairs | for 10,000 images | agree | unknown | highest of the others |")
    print("| --- | --- | --- | --- | --- | --- |")
    for least in (one for one in BANDS if one >= options.least):
        here = similarity >= least
        others = check.agreement[here & ~check.are_copies & ~check.are_unknown].max(initial=0)
        counts = here.sum(), here.sum() * (10_000 / len(paths)) ** 2, check.are_copies[here].sum()
        shown = " | ".join(f"{count:,.0f}" for count in counts)
        print(f"| {least} | {shown} | {check.are_unknown[here].sum()} | {others:.3f} |")
    print(
        f"\n{len(first):,} pairs of {len(paths):,} images in {seconds:.0f} s: {seconds / len(first) * 1000:.1f} ms each"
    )
    if options.sheet:
        order = np.argsort(-np.nan_to_num(check.agreement))[:SHOWN]
        draw([(paths[first[at]], paths[second[at]], check.agreement[at]) for at in order], options.sheet)


def look_alikes(table: str, least: float) -> tuple[list[str], Any, Any, Any]:
    """Returns paths, and the pairs of them whose whitened cosine is at least so high, with it."""
    from xcli.analysis.duplicates import fit_for_copies
    from xcli.analysis.nearest import joined, pairs_above
    from xcli.analysis.vectors import open_features, read_matrix

    tables = open_features([table])
    fit = fit_for_copies(tables)
    matrix = read_matrix(tables, fit.transform, width=fit.components)
    return matrix.paths.to_pylist(), *joined(pairs_above(matrix.values, least))


def looked_at(paths: list[str], first: NDArray[np.int64], second: NDArray[np.int64]) -> tuple[Any, float]:
    """Returns the check of pairs, and the seconds that it took, decoding included."""
    from xcli.analysis.pixel_check import check_pixels

    begin = time.monotonic()
    return check_pixels(paths, first, second), time.monotonic() - begin


def copies(paths: list[str]) -> None:
    """Prints how many altered copies of photographs agree with them."""
    with tempfile.TemporaryDirectory(prefix="xception-pixels-") as folder:
        made = write_copies(paths, folder)
        first = np.array([number for _, number, _ in made])
        check, _ = looked_at(paths + [path for path, _, _ in made], first, len(paths) + np.arange(len(made)))
    print("| alteration | copies | agree | least agreement | in the median |")
    print("| --- | --- | --- | --- | --- |")
    for name in ALTERATIONS:
        own = [number for number, (_, _, other) in enumerate(made) if other == name]
        found = check.agreement[own].tolist()
        shares = f"{check.are_copies[own].sum()} | {min(found):.3f} | {statistics.median(found):.3f}"
        print(f"| {name} | {len(own)} | {shares} |")
    print()


def draw(pairs: list[tuple[str, str, float]], target: str) -> None:
    """Draws pairs of images side by side."""
    rows = -(-len(pairs) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (2 * SIDE + 20), rows * (SIDE + 16)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (one, other, agreement) in enumerate(pairs):
        x, y = number % COLUMNS * (2 * SIDE + 20), number // COLUMNS * (SIDE + 16)
        for place, path in enumerate((one, other)):
            with Image.open(path) as opened:
                small = ImageOps.contain(ImageOps.exif_transpose(opened).convert("RGB"), (SIDE, SIDE))
            sheet.paste(small, (x + place * SIDE, y))
        pen.text((x, y + SIDE), f"{agreement:.3f}", fill="black")
    sheet.save(target, quality=90)


if __name__ == "__main__":
    main()
