"""What a look at the pixels says of altered copies, and of images that only look alike:

    python -m benchmarks pixels DIR [--least C] [--sheet FILE]

DIR is what `python -m benchmarks duplicates --work DIR` keeps: tables of features of photographs, which are where it
says, and of altered copies of some of them. Each copy is compared with its photograph: by features alone, with the
threshold of `duplicates`, fitted to the photographs; and with a look at the pixels, from a lower threshold on. Then all
pairs of different photographs are compared whose whitened cosine is at least C; those that pass are to be looked at, in
the picture FILE: in most collections they are copies.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from benchmarks.copies import ALTERATIONS
from benchmarks.machine import machine

if TYPE_CHECKING:
    from numpy.typing import NDArray

BANDS = (0.2, 0.25, 0.3, 0.4, 0.5)
SHOWN, SIDE, COLUMNS = 60, 160, 3


def main() -> None:
    """Looks at copies and at look-alikes, and prints tables in Markdown."""
    from xcli.analysis.pixel_check import MIN_AGREEMENT

    parser = argparse.ArgumentParser(prog="benchmarks pixels", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", metavar="DIR")
    parser.add_argument("--least", type=float, default=0.2)
    parser.add_argument("--sheet", metavar="FILE")
    options = parser.parse_args()
    print(f"{machine()['processor']}; copies agree from {MIN_AGREEMENT:g} on\n")
    matrix, fit = read(os.path.join(options.work, "originals.parquet"))
    paths = matrix.paths.to_pylist()
    copies(options.work, matrix.values, paths, fit)
    look_alikes(matrix.values, paths, options)


def read(table: str, fit: Any = None) -> tuple[Any, Any]:
    """Returns the whitened rows of a table, and the fit."""
    from xcli.analysis.duplicates import fit_for_copies
    from xcli.analysis.vectors import open_features, read_matrix

    tables = open_features([table])
    fit = fit or fit_for_copies(tables)
    return read_matrix(tables, fit.transform, width=fit.components), fit


def copies(work: str, values: NDArray[Any], paths: list[str], fit: Any) -> None:
    """Prints how many copies are found."""
    from xcli.analysis.checked_copies import LOWER
    from xcli.analysis.duplicates import threshold_for
    from xcli.analysis.pixel_check import check_pixels

    with open(os.path.join(work, "copies.json"), encoding="utf-8") as file:
        made = json.load(file)
    matrix, _ = read(os.path.join(work, "copies.parquet"), fit)
    row = {os.path.basename(path): number for number, path in enumerate(matrix.paths.to_pylist())}
    first = np.array([paths.index(original) for _, original, _ in made])
    own = matrix.values[[row[os.path.basename(path)] for path, _, _ in made]]
    similarity = np.einsum("ij,ij->i", values[first], own)
    files = [os.path.join(work, "copies", os.path.basename(path)) for path, _, _ in made]
    check = check_pixels(paths + files, first, len(paths) + np.arange(len(made)))
    threshold = threshold_for(fit)
    lower = f"{threshold - LOWER:.2f}"
    print(f"| alteration | copies | agree | least | similarity from {threshold:g} | from {lower} on, and pixels |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in ALTERATIONS:
        chosen = np.array([other == name for _, _, other in made])
        agree, alike = check.are_copies[chosen], similarity[chosen]
        shares = (alike >= threshold).mean(), ((alike >= threshold - LOWER) & agree).mean()
        counts = f"{chosen.sum()} | {agree.sum()} | {check.agreement[chosen].min():.3f}"
        print(f"| {name} | {counts} | {shares[0]:.3f} | {shares[1]:.3f} |")
    print()


def look_alikes(values: NDArray[Any], paths: list[str], options: argparse.Namespace) -> None:
    """Prints how many pairs of different photographs agree, and draws those that agree most."""
    from xcli.analysis.nearest import joined, pairs_above
    from xcli.analysis.pixel_check import check_pixels

    first, second, similarity = joined(pairs_above(values, options.least))
    begin = time.process_time()
    check = check_pixels(paths, first, second)
    seconds = time.process_time() - begin
    print("| similarity from | pairs | for 10,000 images | agree | unknown | highest of the others |")
    print("| --- | --- | --- | --- | --- | --- |")
    for least in (one for one in BANDS if one >= options.least):
        here = similarity >= least
        others = check.agreement[here & ~check.are_copies & ~check.are_unknown].max(initial=0)
        counts = here.sum(), here.sum() * (10_000 / len(paths)) ** 2, check.are_copies[here].sum()
        shown = " | ".join(f"{count:,.0f}" for count in counts)
        print(f"| {least} | {shown} | {check.are_unknown[here].sum()} | {others:.3f} |")
    each = seconds / max(len(first), 1) * 1000
    print(f"\n{len(first):,} pairs of {len(paths):,} images: {each:.1f} ms of a processor each, without decoding")
    if options.sheet:
        order = np.argsort(-np.nan_to_num(check.agreement))[:SHOWN]
        draw([(paths[first[at]], paths[second[at]], check.agreement[at]) for at in order], options.sheet)


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
