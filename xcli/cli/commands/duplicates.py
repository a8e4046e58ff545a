"""`xception duplicates`."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from xcli.analysis.checked_copies import CheckedPairs
from xcli.analysis.compared_bands import ComparedBands
from xcli.analysis.duplicates import DEFAULT_THRESHOLD
from xcli.analysis.duplicates_run import (
    Comparison,
    Copies,
    answer_rows,
    answer_schema,
    grouped,
    grouped_pairs,
    image_sizes,
    shared,
)
from xcli.analysis.shared_copies import SharedCopies
from xcli.analysis.vectors import open_features
from xcli.cli.answer_table import FORMATS, check_answer_table
from xcli.cli.display import open_console, print_json
from xcli.cli.help import INPUT, OUTPUT, RUN, Command, choice, flag, number, path
from xcli.cli.progress import BANDS, IMAGES, PAIRS, ROWS, Progress, Readings, Stages, progress_argument
from xcli.cli.verbosity import message_arguments, messages_of, start_messages
from xcli.core.errors import ExitCode, UsageError
from xcli.core.text import one_line
from xcli.core.version import __version__
from xcli.outputs.target import File, parse_target
from xcli.storage.atomic import open_output
from xcli.storage.urls import is_url
from xcli.tables.formats import create_table
from xcli.tables.provenance import provenance_metadata

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from xcli.analysis.duplicates_run import Sizes
    from xcli.analysis.vectors import FeatureTables

log = logging.getLogger("xcli")

FIT_SUFFIX = ".whitening.npz"

_SHOWN = 50
_FEW = 1000  # rows, from which the threshold is less sure
_THRESHOLD = (
    f"Least similarity of copies, above 0 and at most 1 [default: {DEFAULT_THRESHOLD}; higher if there are less than "
    "1,900 rows]."
)
_BETWEEN = "Find the images of FEATURES that have copies in OTHER, another table, and nothing else. Repeatable."
_IMAGES = "Look for the images of the tables in DIR: they have been moved there."
_CHECK = (
    "Have a second look at the pixels of pairs that may be copies, from a lower similarity on: finds more of them, and "
    "takes fewer look-alikes for copies. Opens their images; of what cannot be read the features decide."
)
_APPROXIMATE = (
    "Do not compare every pair, but those that lists of similar rows bring together: for more than a million rows. How "
    "many of the copies are found is measured on a sample, and printed."
)
_OUTPUT = (
    "Write the groups to FILE (.csv, .parquet, .jsonl); - is standard output [default: a table on a terminal, CSV on "
    "a pipe]."
)
_RESTART = "Discard an unfinished comparison of FILE and start again."


@click.command(cls=Command)
@click.argument("tables", metavar="FEATURES...", nargs=-1, required=True, type=click.Path())
@path("--between", INPUT, "OTHER", _BETWEEN, multiple=True)
@path("--images", INPUT, "DIR", _IMAGES)
@number("--threshold", RUN, "C", click.FloatRange(0, 1, min_open=True), _THRESHOLD)
@flag("--check-pixels", RUN, _CHECK)
@flag("--approximate", RUN, _APPROXIMATE)
@path("-o --output", OUTPUT, "FILE", _OUTPUT)
@choice("--format", OUTPUT, FORMATS, "Format of the table [default: from the extension of FILE; csv on a pipe].")
@flag("--json", OUTPUT, "Print the figures as JSON.")
@flag("--overwrite", OUTPUT, "Replace FILE if it exists.")
@flag("--restart", OUTPUT, _RESTART)
@progress_argument
@message_arguments
@click.pass_context
def duplicates(ctx: click.Context, /, **values: Any) -> int:
    """Find images that are the same but for size, quality, colour, crop or a border, by their features.

    FEATURES are tables that features wrote, in any format; their rows are taken together. Vectors are centred and
    whitened by the tables' own covariance, without its leading directions, so that look-alikes are not taken for
    copies; then every pair of rows is compared. In a group, each image is a copy of the one that is kept: that with
    most pixels, of these with most bytes, of these the first. Images that cannot be read count as the smallest. With
    --between, each image of FEATURES that has copies in OTHER is kept, and its copies follow.

    A comparison that is interrupted is continued by the same command, if -o names a file on this machine.

    \b
    CSV, Parquet, JSONL: group, path, similarity, keep

    Exit status: 0 compared, 2 usage, 5 output, 6 a table is damaged.
    """
    begin = time.monotonic()
    start_messages(ctx)
    target = values["output"]
    form = check_answer_table("duplicates", values)
    _check_options(target, values)
    tables = open_features(values["tables"])
    between = open_features(values["between"], like=tables) if values["between"] else None
    kept_in = target if target is not None and _is_kept(target) else None
    with ComparedBands(kept_in, restart=values["restart"]) as kept:
        comparison = _read(ctx, tables, between, kept, values)
        copies = _compared(ctx, comparison, kept, values)
        summary = _summary(comparison, copies, values)
        if values["approximate"]:
            _tell_recall(comparison, summary)
        if target is None and (values["json"] or (values["format"] is None and sys.stdout.isatty())):
            if not values["json"]:
                _show(comparison, copies)
        else:
            _write(comparison, copies, summary, form, values)
        kept.discard()
    if values["json"]:
        print_json(summary)
    log.info("%s", _closing(comparison, copies, time.monotonic() - begin))
    return ExitCode.OK


def _check_options(target: str | None, values: dict[str, Any]) -> None:
    if values["restart"] and (target is None or not _is_kept(target)):
        raise UsageError("--restart is for -o with a file on this machine, where an unfinished comparison is kept")
    if values["approximate"] and values["between"]:
        raise UsageError("--approximate does not go with --between, which compares every pair")


def _is_kept(target: str) -> bool:
    return isinstance(parse_target(target), File) and not is_url(target)


def _read(
    ctx: click.Context,
    tables: FeatureTables,
    between: FeatureTables | None,
    kept: ComparedBands,
    values: dict[str, Any],
) -> Comparison:
    readers = [*tables.readers, *(between.readers if between is not None else ())]
    readings = Readings(readers, lambda: 2 if kept.fit is None else 1)
    quiet = messages_of(ctx).level < 0
    with Progress(values["progress"], quiet=quiet, total=readings.total, unit=ROWS) as progress:
        readings.show(progress)
        comparison = Comparison(
            tables, between, kept, values["threshold"], check=values["check_pixels"], approximate=values["approximate"]
        )
    fit = comparison.fit
    if fit.rows < _FEW:
        log.warning(
            "the fit has only %s rows (shrinkage %.2f, %d directions, copies from %g on): look through the groups "
            "before you rely on them",
            f"{fit.rows:,}",
            fit.shrinkage,
            fit.components,
            comparison.threshold,
        )
    if kept.bands:
        log.info("an earlier command has compared a part of the pairs; this one goes on")
    return comparison


def _compared(ctx: click.Context, comparison: Comparison, kept: ComparedBands, values: dict[str, Any]) -> Copies:
    sides, threshold = comparison.sides, comparison.threshold
    with Stages(values["progress"], quiet=messages_of(ctx).level < 0) as stages:
        if values["approximate"]:
            comparison.make_lists(lambda done, of: stages.tell(ROWS, done, of))
            progress = stages.begin(BANDS, comparison.bands() + kept.bands, kept.bands)
        else:
            progress = stages.begin(PAIRS, comparison.pairs(), comparison.pairs_kept)
        found = comparison.compare(progress.count)
        if isinstance(found, CheckedPairs):
            comparison.check(found, _paths(comparison), values["images"], stages.tell)
            pairs = found.copies()
            counts = f"{len(found.agreement):,}", f"{len(pairs.first):,}"
            log.info("looked at the pixels of %s pairs: %s are copies", *counts)
            if found.unreadable:
                log.warning(
                    "%s images cannot be read: of their pairs the features decide", f"{len(found.unreadable):,}"
                )
            if not sides[1:]:
                return _grouped(stages, comparison, values, lambda sizes: grouped_pairs(sides[0], pairs, sizes))
            found = found.shared()
        if isinstance(found, SharedCopies):
            return shared(found)
        return _grouped(stages, comparison, values, lambda sizes: grouped(sides[0], found, threshold, sizes))


def _grouped(
    stages: Stages, comparison: Comparison, values: dict[str, Any], group: Callable[[Sizes], Copies]
) -> Copies:
    """Groups what was found, and says of how many images it is not known how large they are."""
    failed = 0

    def count(done: int, of: int, errors: int) -> None:
        nonlocal failed
        failed = errors
        stages.tell(IMAGES, done, of)

    copies = group(image_sizes(_paths(comparison), values["images"], count))
    if failed:
        log.warning("%s images with copies cannot be read, and count as the smallest; see --images", f"{failed:,}")
    return copies


def _paths(comparison: Comparison) -> Callable[[NDArray[np.int64]], list[str]]:
    """Returns what finds the paths of rows."""
    import pyarrow as pa

    columns = pa.chunked_array([chunk for side in comparison.sides for chunk in side.paths.chunks], pa.string())

    def paths(rows: NDArray[np.int64]) -> list[str]:
        found: list[str] = columns.take(pa.array(rows)).to_pylist()
        return found

    return paths


def _summary(comparison: Comparison, copies: Copies, values: dict[str, Any]) -> dict[str, Any]:
    """Returns what the answer rests on, and its figures."""
    fit = comparison.fit
    return {
        "tool": {"name": "xception-cli", "version": __version__, "command": "duplicates"},
        "tables": list(values["tables"]),
        "between": list(values["between"]),
        "rows": [len(side) for side in comparison.sides],
        "compared": [int(side.ok.sum()) for side in comparison.sides],
        "exact": not values["approximate"],
        "check_pixels": values["check_pixels"],
        "threshold": comparison.threshold,
        "whitening": {
            "sha256": fit.digest,
            "rows": fit.rows,
            "components": fit.components,
            "shrinkage": round(fit.shrinkage, 6),
        },
        "groups": copies.groups,
        "copies": len(copies.row) - copies.groups,
    }


def _tell_recall(comparison: Comparison, summary: dict[str, Any]) -> None:
    """Measures how many pairs the approximate comparison brings together."""
    recall = comparison.recall()
    share = recall.found / recall.pairs if recall.pairs else None
    summary["recall"] = {"rows": recall.rows, "pairs": recall.pairs, "found": recall.found, "share": share}
    shown = "nothing can be said of the others" if share is None else f"{share:.4f} of them were compared"
    log.info("of %s sampled rows, %s pairs are copies: %s", f"{recall.rows:,}", f"{recall.pairs:,}", shown)


def _write(comparison: Comparison, copies: Copies, summary: dict[str, Any], form: str, values: dict[str, Any]) -> None:
    """Writes the answer, and beside a file the fit and what the answer rests on."""
    target, overwrite = values["output"], values["overwrite"]
    metadata = provenance_metadata(summary)
    kept = target is not None and _is_kept(target)
    with create_table(form, target, answer_schema(), metadata, overwrite, exclusive=kept) as table:
        for batch in answer_rows(copies, _paths(comparison)):
            table.write(batch)
        if target is not None and isinstance(parse_target(target), File):
            fit = open_output(target + FIT_SUFFIX, True, table.staging)
            table.files.insert(0, fit)
            fit.stream.write(comparison.fit.save())
            table.record(summary)


def _show(comparison: Comparison, copies: Copies) -> None:
    from rich.table import Table
    from rich.text import Text

    console = open_console()
    table = Table(box=None, pad_edge=False)
    for name, justify in (("group", "right"), ("similarity", "right"), ("keep", "left"), ("path", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    shown = copies.row[copies.group <= _SHOWN]
    for place, name in enumerate(_paths(comparison)(shown)):
        keep = copies.keep[place]
        group = str(copies.group[place]) if keep else ""
        cells = group, f"{copies.similarity[place]:.4f}", "keep" if keep else ""
        table.add_row(*cells, Text(one_line(name), overflow="fold"))
    if len(shown):
        console.print(table)
    if copies.groups > _SHOWN:
        console.print(f"and {copies.groups - _SHOWN:,} more groups: -o FILE writes all")


def _closing(comparison: Comparison, copies: Copies, seconds: float) -> str:
    rows = " and ".join(f"{len(side):,}" for side in comparison.sides)
    without = sum(int((~side.ok).sum()) for side in comparison.sides)
    parts = [f"{rows} rows, {without:,} without a vector" if without else f"{rows} rows"]
    others = len(copies.row) - copies.groups
    parts.append(f"{copies.groups:,} group{'s' if copies.groups != 1 else ''} with {others:,} further copies")
    return f"{', '.join(parts)}, from a similarity of {comparison.threshold:g} on, in {seconds:.1f} s"
