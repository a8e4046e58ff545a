"""Pictures of an evaluation and of a training, drawn by matplotlib: each function returns the bytes of a PNG file.

The pictures do not depend on the user's own settings of matplotlib. Names of classes and files are shown literally:
`$` does not begin a formula, and characters that would break a line are escaped.
"""

from __future__ import annotations

import io
import logging
import math
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ImageError
from xcli.core.text import one_line
from xcli.images.preprocessing import Preprocessing, load_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from xcli.evaluation.evaluate import Prediction

MAX_MISTAKES = 24
"""Thumbnails in a picture of mistakes."""

_ANNOTATED = 25  # classes up to which each cell of the matrix holds its number
_NAMED = 120  # classes up to which each has its name; beyond, classes that do not occur are left out
_DPI = 110
_THUMBNAIL = 176  # pixels
_COLUMNS = 6
_LABEL = 26  # characters of a class name
_FONTS = ["DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei"]
_FONTS += ["Noto Sans", "Noto Sans Arabic", "Noto Sans Devanagari"]
"""Tried in turn, so that names in scripts that the first font lacks are drawn if another font is installed."""


def confusion_matrix_png(matrix: NDArray[np.int64], labels: Sequence[str]) -> bytes:
    """Draws a confusion matrix.

    The colour is the share of the true class's images, so that rare classes are as visible as common ones. Up to 25
    classes, the cells hold the number of images; beyond 120, only the classes that occur are drawn. The matrix is
    int64[C, C]; its rows are true classes, its columns predicted ones.
    """
    import numpy as np

    names = [_short(label, _LABEL) for label in labels]
    if len(names) > _NAMED:
        occurring = np.flatnonzero(matrix.sum(0) + matrix.sum(1))
        matrix, names = matrix[np.ix_(occurring, occurring)], [names[index] for index in occurring]
    count = len(names)
    with _settings():
        from matplotlib.figure import Figure

        if not count:
            return _text_png("No images.")
        cell = 0.62 if count <= 12 else 0.46 if count <= _ANNOTATED else 0.17
        side = min(max(cell * count, 3.2), 20.0)
        figure = Figure(figsize=(side + 3.6, side + 2.4), dpi=_DPI, layout="constrained")
        axes = figure.add_subplot()
        totals = matrix.sum(1, keepdims=True)
        shares = matrix / np.maximum(totals, 1)
        # The square root keeps a few confusions among a hundred images visible.
        picture = axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        if count <= _ANNOTATED:
            _annotate(axes, matrix, shares)
        _name_classes(axes, names)
        axes.set(xlabel="predicted class", ylabel="true class")
        right, n = int(matrix.trace()), int(matrix.sum())
        axes.set_title(f"{right:,} of {n:,} images right" + (f" ({right / n:.1%})" if n else ""))
        bar = figure.colorbar(picture, ax=axes, fraction=0.03, pad=0.01, label="share of the true class")
        ticks = [0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1]
        bar.set_ticks([tick**0.5 for tick in ticks], labels=[f"{tick:.0%}" for tick in ticks])
        return _png(figure)


def _annotate(axes: Axes, matrix: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    for row, column in zip(*matrix.nonzero(), strict=True):
        number = int(matrix[row, column])
        colour = "white" if shares[row, column] > 0.3 else "#202020"
        size = 10 if number < 1000 or len(matrix) <= 6 else 7.5
        axes.text(column, row, f"{number:,}", ha="center", va="center", color=colour, fontsize=size)


def _name_classes(axes: Axes, names: Sequence[str]) -> None:
    count, size = len(names), 10 if len(names) <= _ANNOTATED else 7.5
    ticks = range(0, count, -(-count // _NAMED))  # beyond 120 classes, only every second, third, ... has a name
    shown = [names[tick] for tick in ticks]
    if _ANNOTATED < count <= _NAMED:
        for edge in range(5, count, 5):
            axes.axhline(edge - 0.5, color="#c8c8c8", linewidth=0.4)
            axes.axvline(edge - 0.5, color="#c8c8c8", linewidth=0.4)
    axes.set_xticks(ticks, labels=shown, rotation=90 if count > 6 else 30, fontsize=size)
    if count <= 6:
        for tick in axes.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, labels=shown, fontsize=size)


def history_png(rows: Sequence[Mapping[str, Any]], kept: int) -> bytes:
    """Draws loss and accuracy by epoch, counted from 1 over all phases, and marks the epoch `kept`, if it is validated.

    The rows, one for each epoch, have `phase` (text, the same for the epochs of a phase), `loss`, `accuracy`,
    `val_loss` and `val_accuracy`; a number that is None or missing leaves a gap.
    """
    with _settings():
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        figure = Figure(figsize=(11, 4.4), dpi=_DPI, layout="constrained")
        epochs = list(range(1, len(rows) + 1))
        for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            for key, label, colour in ((name, "training", "#7f7f7f"), (f"val_{name}", "validation", "#1f77b4")):
                values = [float("nan") if row.get(key) is None else float(row[key]) for row in rows]
                if not all(map(math.isnan, values)):
                    axes.plot(epochs, values, color=colour, marker="o", markersize=3.5, label=label)
                if key == "val_accuracy" and kept and not math.isnan(best := values[kept - 1]):
                    axes.plot([kept], [best], "*", markersize=13, color="#d62728", label=f"kept: {best:.4f}")
            _mark_phases(axes, [str(row.get("phase", "")) for row in rows])
            axes.set(xlabel="epoch", xlim=(0.5, max(len(rows), 1) + 0.5))
            axes.set_title(name, pad=18)  # above the names of the phases
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.grid(alpha=0.25)
            if axes.get_lines():
                axes.legend(loc="upper right" if name == "loss" else "lower right")
        return _png(figure)


def _mark_phases(axes: Axes, phases: Sequence[str]) -> None:
    """Draws a band with the name of each phase, if there is more than one."""
    starts = [index for index, phase in enumerate(phases) if index == 0 or phases[index - 1] != phase]
    if len(starts) < 2:
        return
    above: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "xytext": (2, 3), "textcoords": "offset points"}
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(phases)], strict=True)):
        if number % 2:
            axes.axvspan(start + 0.5, end + 0.5, color="#000000", alpha=0.05, linewidth=0)
        if number:
            axes.axvline(start + 0.5, color="#606060", linewidth=0.8, linestyle="--")
        axes.annotate(_short(phases[start], 18), (start + 0.5, 1), fontsize=8.5, color="#404040", **above)


def mistakes_png(mistakes: Sequence[Prediction]) -> bytes:
    """Draws thumbnails of the first 24 wrongly classified images; without any, the picture says so."""
    shown = mistakes[:MAX_MISTAKES]
    with _settings():
        from matplotlib.figure import Figure

        if not shown:
            return _text_png("No mistakes.")
        columns = min(_COLUMNS, len(shown))
        lines = -(-len(shown) // columns)
        # The axes are placed explicitly, in inches, because matplotlib's layouts take seconds for this many.
        width, height = max(columns * 1.85, 3.7) + 0.15, lines * 2.35 + 0.4
        figure = Figure(figsize=(width, height), dpi=_DPI)
        count = f"{len(mistakes):,} mistake{'s' if len(mistakes) != 1 else ''}"
        title = count if len(mistakes) == len(shown) else f"The worst {len(shown)} of {count}"
        figure.text(0.5, 1 - 0.08 / height, title, ha="center", va="top", fontsize=13)
        for number, mistake in enumerate(shown):
            line, column = divmod(number, columns)
            left, bottom = 0.15 + column * 1.85, height - 0.4 - line * 2.35 - 2.1
            axes = figure.add_axes((left / width, bottom / height, 1.7 / width, 1.7 / height))
            axes.axis("off")
            _draw_mistake(axes, mistake)
        return _png(figure)


def _draw_mistake(axes: Axes, mistake: Prediction) -> None:
    import numpy as np

    try:
        axes.imshow(load_image(mistake.ref.location, Preprocessing(size=_THUMBNAIL, resize="pad")))
    except ImageError as error:  # the file was removed or changed after it was classified
        axes.imshow(np.full((_THUMBNAIL, _THUMBNAIL, 3), 224, np.uint8))
        axes.text(0.5, 0.5, error.reason, ha="center", va="center", transform=axes.transAxes)
    title = f"{mistake.score:.1%} {_short(mistake.predicted or '', 20)}\ntrue: {_short(mistake.label, 22)}"
    axes.set_title(title, fontsize=8.5, loc="left")
    path = one_line(mistake.ref.path)
    path = path if len(path) <= 32 else "…" + path[-31:]
    axes.text(0, -0.02, path, fontsize=6, color="#606060", ha="left", va="top", transform=axes.transAxes)


def _text_png(text: str) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(dpi=_DPI)
    figure.text(0.5, 0.5, text)
    return _png(figure)


def _short(text: str, length: int) -> str:
    shown = one_line(text)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


@contextmanager
def _settings() -> Iterator[None]:
    """Replaces matplotlib's settings: the user's may turn on LaTeX, to which file names must never be passed."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # no warnings of missing fonts or a font cache being built
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # characters that no font has are drawn as boxes
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"text.parse_math": False, "font.family": _FONTS, "savefig.facecolor": "white"})
        yield


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    # Without matplotlib's version in the metadata, the same picture always has the same bytes.
    figure.savefig(file, format="png", metadata={"Software": None}, bbox_inches="tight", pad_inches=0.12)
    return file.getvalue()
