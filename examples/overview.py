"""Draws docs/images/overview.png: what xception prints and writes, for photographs of shapes that this script makes.

    python examples/overview.py docs/images/overview.png [--pages docs/images] [--weights FILE]

It trains a classifier on the shapes, classifies some of them on a terminal, evaluates the classifier, and puts the
table and the two pictures of `xception evaluate` side by side. With --pages it also draws pages of `xception report`,
which takes Chromium and Playwright. It takes two minutes on two processors.
"""

from __future__ import annotations

import argparse
import io
import os
import pty
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

mpl.use("agg")
from matplotlib import pyplot as plt

SHAPES = {"circle": 40, "hexagon": 6, "pentagon": 5, "square": 4, "star": 10, "triangle": 3}
SIDE = 200
SIZES = {"train": 40, "validation": 25}

PAGES = {
    "report": ("report.html", "light", 1100, 1250),
    "report-dark": ("report.html#class=star", "dark", 1100, 700),
    "report-narrow": ("report.html", "light", 360, 760),
    "changes": ("changes.html", "light", 1100, 1000),
    "changes-narrow": ("changes.html#change=class", "dark", 360, 760),
    "evaluation": ("run.html#confusions", "light", 1100, 900),
    "evaluation-cell": ("run.html#truth=hexagon&predicted=pentagon", "dark", 1100, 620),
    "map": ("mapped.html#map", "light", 1100, 960),
}
"""Pictures of pages: the page and its address, the colours, width and height."""


def shape(corners: int, random: np.random.Generator) -> Image.Image:
    """A blurred, noisy picture of a polygon of any size, colour and angle; ten corners are those of a star."""
    image = Image.new("RGB", (SIDE, SIDE), tuple(random.integers(60, 200, 3)))
    angles = random.uniform(0, 2 * np.pi) + np.arange(corners) * 2 * np.pi / corners
    radius = random.uniform(0.12, 0.42) * SIDE * np.where((corners == 10) & (np.arange(corners) % 2 == 1), 0.45, 1)
    centre = SIDE / 2 + random.uniform(-20, 20, 2)
    stretch = random.uniform(0.8, 1, 2)
    points = centre + stretch * (radius * [np.cos(angles), np.sin(angles)]).T
    ImageDraw.Draw(image).polygon([tuple(point) for point in points], fill=tuple(random.integers(0, 256, 3)))
    image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.5, 3)))
    noisy = np.asarray(image) + random.normal(0, 18, (SIDE, SIDE, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def make_photos(folder: Path) -> None:
    """A data set of shapes, and photographs without labels, one of them cut off."""
    random = np.random.default_rng(3)
    for split, count in SIZES.items():
        for name, corners in SHAPES.items():
            (folder / "shapes" / split / name).mkdir(parents=True)
            for number in range(count):
                shape(corners, random).save(folder / "shapes" / split / name / f"{number:03}.jpg")
    (folder / "photos").mkdir()
    for number, corners in enumerate([*SHAPES.values()] * 3):
        shape(corners, random).save(folder / "photos" / f"{number:03}.jpg")
    path = folder / "photos" / "007.jpg"
    path.write_bytes(path.read_bytes()[:2000])


def run_on_terminal(command: list[str], folder: Path) -> str:
    """What a command prints on a terminal 76 columns wide."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "76", "NO_COLOR": "1", "TERM": "dumb"}
    process = subprocess.Popen(command, cwd=folder, stdout=theirs, stderr=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    text = b""
    while True:
        try:
            text += os.read(ours, 65536)
        except OSError:  # Linux says so when the last writer has gone
            break
    process.wait()
    return text.decode().replace("\r\n", "\n").rstrip()


def draw(table: str, report: Path, target: str) -> None:
    """Puts the table and the pictures of the report side by side."""
    figure = plt.figure(figsize=(16, 4.6), dpi=100, facecolor="white")
    left = figure.add_axes((0.005, 0.04, 0.41, 0.92), facecolor="#1c2128")
    left.set(xticks=[], yticks=[])
    left.text(0.02, 0.96, table, transform=left.transAxes, family="monospace", size=9.7, color="#e6edf3", va="top")
    for x, width, name in ((0.42, 0.29, "confusion_matrix.png"), (0.72, 0.28, "mistakes.png")):
        axes = figure.add_axes((x, 0, width, 1))
        axes.imshow(Image.open(report / name), interpolation="antialiased")
        axes.axis("off")
    figure.savefig(target, pil_kwargs={"optimize": True})
    Image.open(target).convert("RGB").quantize(128).save(target, optimize=True)


def make_pages(xception: list[str], folder: Path) -> None:
    """Makes the pages: of a table, of its comparison with one of squashed images, of a run, and with a map."""
    for command in (
        "classify shapes --model RUN -o labels.csv --features-out vectors.parquet",
        "classify shapes --model RUN --resize squash -o squashed.csv",
        "report labels.csv -o report.html",
        "report labels.csv --compare squashed.csv -o changes.html",
        "report RUN -o run.html",
        "report labels.csv --features vectors.parquet -o mapped.html",
    ):
        subprocess.run([*xception, *command.split()], cwd=folder, check=True)


def draw_pages(folder: Path, target: Path) -> None:
    """Draws the pages of a folder, as Chromium shows them."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (page, scheme, width, height) in PAGES.items():
            tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            tab.emulate_media(reduced_motion="reduce")
            file, _, address = page.partition("#")
            tab.goto(f"{(folder / file).as_uri()}#{address}", wait_until="load")
            tab.wait_for_timeout(500)  # until it has gone to the part that the address names
            picture = Image.open(io.BytesIO(tab.screenshot()))
            picture.convert("RGB").quantize(192).save(target / f"{name}.png", optimize=True)
            tab.close()
        browser.close()


def main() -> None:
    """Makes the photographs, runs the three commands and draws."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", help="the PNG to write")
    parser.add_argument("--weights", default="imagenet", help="as for xception finetune")
    parser.add_argument("--pages", help="the directory of the pictures of pages of xception report")
    options = parser.parse_args()
    xception = [sys.executable, "-m", "xcli"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_photos(folder)
        training = ["finetune", "shapes", "-o", "RUN", "--unfreeze", "none", "--weights", options.weights]
        subprocess.run([*xception, *training, "--cache-dir", "cache"], cwd=folder, check=True)
        subprocess.run([*xception, "evaluate", "shapes", "--model", "RUN", "-o", "report"], cwd=folder, check=True)
        command = ["classify", "photos", "--model", "RUN", "--top", "2"]
        table = run_on_terminal([*xception, *command], folder)
        if options.pages:
            make_pages(xception, folder)
            draw_pages(folder, Path(options.pages))
        draw(f"$ xception {' '.join(command)}\n\n{table}", folder / "report", options.target)


if __name__ == "__main__":
    main()
