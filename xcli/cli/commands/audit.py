"""`xception audit`."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from xcli.analysis.audit import Audit
from xcli.analysis.audit_findings import findings_batch, findings_schema
from xcli.analysis.audit_images import AuditImages, images_of_data, images_of_table
from xcli.analysis.feature_audit import READINGS, match_rows
from xcli.analysis.vectors import FeatureTables, open_features
from xcli.cli.answer_table import check_answer_table
from xcli.cli.commands.evaluate import label_columns, labelled_images
from xcli.cli.display import lacking_pictures, open_console, print_json
from xcli.cli.help import INPUT, MODEL, OUTPUT, RUN, Command, flag, fold, number, option, path
from xcli.cli.options import command_line, engine_option, machine_options, weights_places
from xcli.cli.progress import Progress, Readings, Stages, progress_argument
from xcli.cli.table_run import quiet_libraries
from xcli.cli.verbosity import Messages, message_arguments, start_messages
from xcli.core.errors import ExitCode, SourceError, UsageError, XcliError
from xcli.core.finding_kinds import KINDS, PICTURE_KINDS, parse_kinds
from xcli.core.text import one_line
from xcli.inference.options import RunOptions
from xcli.inference.run import Run
from xcli.inference.tasks import FeaturesTask
from xcli.models.loader import load_model, preprocessing_for
from xcli.models.spec import ModelSpec
from xcli.outputs.options import Output
from xcli.outputs.save import save
from xcli.outputs.target import Directory, File, parse_target
from xcli.reports.audit_part import write_audit_page
from xcli.reports.options import MAX_PAGE_MB, ReportOptions
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.storage.atomic import open_output
from xcli.storage.temporary import TemporaryDirectory
from xcli.storage.urls import is_url
from xcli.tables.formats import FEATURES_FORMATS, create_table, open_table

if TYPE_CHECKING:
    from xcli.analysis.feature_audit import ImageRows
    from xcli.sources.labelled import LabelledImages

log = logging.getLogger("xcli")

_TRUTH = "The labels, if DATA is a table of features: a manifest with the columns path and label, or class folders."
_FEATURES = "Features of the images: a table that features wrote. If there is no FILE, they are computed into it."
_IMAGES = "Look for the images in DIR: they have been moved there since the table was made."
_OUTPUT = "Write the findings to FILE (.csv, .parquet, .jsonl), a row for each; - is standard output."
_HTML = "Also make a page with the images of the findings, to look at in a browser."
_MAX_SIZE = "Size of the page of --html; when it is reached, further images have no thumbnail."
_ASSERT = f"Exit with 6 if there are findings of one of these kinds: {', '.join(KINDS)}."
_PIXELS = "Look at the images themselves; without it, only at what their features tell."
_MODEL = "Compute features with a network of your own, a directory that finetune made or a .keras file."
_WEIGHTS = "Weights with which features are computed."


@click.command(cls=Command)
@click.argument("data", metavar="DATA", type=click.Path())
@path("--truth", INPUT, "FILE|DIR", _TRUTH)
@path("--features", INPUT, "FILE", _FEATURES)
@label_columns
@path("--images", INPUT, "DIR", _IMAGES)
@path("-o --output", OUTPUT, "FILE", _OUTPUT)
@path("--html", OUTPUT, "FILE", _HTML)
@number("--max-size", OUTPUT, "MB", click.FloatRange(0.1, MAX_PAGE_MB), _MAX_SIZE, of=ReportOptions)
@flag("--json", OUTPUT, "Print the summary as JSON.")
@flag("--overwrite", OUTPUT, "Replace FILE, and that of --html, if it exists.")
@option("--assert-clean", OUTPUT, _ASSERT, metavar="KIND,...")
@option("--pixels/--no-pixels", RUN, _PIXELS, default=True, show_default=True)
@path("--model", MODEL, "PATH", _MODEL)
@path("--weights", MODEL, "imagenet|none|PATH", _WEIGHTS, of=ModelSpec)
@weights_places
@engine_option
@machine_options("Arithmetic of the features. auto: float32 on a CPU, float16 on a GPU with tensor cores.")
@progress_argument
@message_arguments
@click.pass_context
def audit(ctx: click.Context, /, **values: Any) -> int:
    """Find what is wrong with a labelled data set, before a model is trained on it.

    DATA is a directory with a folder for each class, or with train/ and validation/ that have one; a manifest (CSV or
    Parquet) with the columns path and label, and perhaps split; or, with --truth, a table that features wrote.

    Found are images that cannot be read; labels that are likely wrong, with the likely one; copies under two labels, in
    two splits, and in one class; images unlike all others; blank, blurred, dark, bright and tiny images, and ones of
    odd shapes; and classes of few images. A finding is a hint: look at the image before you act on it.

    Labels, copies and outliers are judged by features. Without --features they are computed for this audit only. With
    a table of them no network runs, and TensorFlow is not imported; --model and --weights are for a new table.

    \b
    CSV, Parquet, JSONL: path, label, issue, severity, detail, suggested, related
    xception audit clothes/ --features clothes.parquet -o findings.csv
    xception finetune clothes/ -o RUN --exclude findings.csv

    Exit status: 0 looked at, 2 usage, 3 model, 5 output, 6 a table is damaged, or findings of --assert-clean.
    """
    begin = time.monotonic()
    messages = start_messages(ctx)
    form, kinds = _checked(values)
    with ExitStack() as stack:
        images, rows, tables = _read(values, messages, stack)
        found = _audit(images, rows, tables, values, messages)
    if values["output"] is not None:
        with create_table(form, values["output"], findings_schema(), {}, values["overwrite"]) as table:
            table.write(findings_batch(found.findings))
    if values["html"] is not None:
        _write_page(found, tables, values)
    if values["json"]:
        print_json(summary_of(found))
    elif values["output"] != "-":
        _show(found)
    for remark, without in found.unchecked:
        log.warning("%s: not, or not wholly, looked for: %s", remark, ", ".join(without))
    for remark in found.remarks:
        log.info("%s", remark)
    seconds = time.monotonic() - begin
    log.info("%s images: %s findings in %.1f s", f"{len(images):,}", f"{len(found.findings):,}", seconds)
    return _assert_clean(found, kinds)


def _checked(values: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Returns the format of the table, and the kinds of --assert-clean; raises what can be known at the start."""
    form = check_answer_table("audit", values)
    if values["html"] is not None:
        if not isinstance(parse_target(values["html"]), File):
            raise UsageError(f"--html takes the name of a file; received {values['html']!r}")
        open_output(values["html"], values["overwrite"]).discard()
    kinds = () if values["assert_clean"] is None else parse_kinds(values["assert_clean"])
    unseen = [] if values["pixels"] else [kind for kind in kinds if kind in PICTURE_KINDS]
    if unseen:
        raise UsageError(f"--no-pixels does not look for {unseen[0]}, of which --assert-clean is to know")
    if values["images"] is not None and not os.path.isdir(values["images"]):
        raise UsageError(f"--images takes a directory on this machine, and {values['images']!r} is none")
    if values["truth"] is not None and values["features"] is not None:
        raise UsageError("with --truth, DATA is the table of features; --features is for class folders and manifests")
    if values["features"] is not None and not isinstance(parse_target(values["features"]), File | Directory):
        raise UsageError(f"--features takes the name of a table; received {values['features']!r}")
    return form, kinds


def _read(values: dict[str, Any], messages: Messages, stack: ExitStack) -> tuple[AuditImages, ImageRows, FeatureTables]:
    """Lists the images, and opens the table of their features, which is computed if need be."""
    if values["truth"] is not None:
        tables = open_features([values["data"]])
        images, without = images_of_table(tables, values["truth"])
        unlabelled = int((images.labels < 0).sum())
        if without or unlabelled:
            text = "%s rows of the table have no label, and %s labels have no row"
            log.warning(text, f"{unlabelled:,}", f"{without:,}")
        return images, match_rows(images, tables), tables
    images = images_of_data(_labelled(values))
    if not len(images):
        raise SourceError(f"{one_line(values['data'])} has no images")
    name = values["features"]
    if name is None:
        folder = TemporaryDirectory("features")
        stack.callback(folder.close)
        name = os.path.join(folder.path, "features.parquet")
    if not is_url(name) and not os.path.exists(name):
        _compute(name, values, messages)
    tables = open_features([name])
    rows = match_rows(images, tables)
    if rows.missing == len(images):
        raise UsageError(
            f"no image of {one_line(values['data'])} has a row in {one_line(name)}: paths have to be the same; the "
            f"first one is {one_line(images.paths[0])!r}"
        )
    return images, rows, tables


def _labelled(values: dict[str, Any]) -> LabelledImages:
    try:
        return labelled_images(values)
    except SourceError:
        try:
            command = open_table(values["data"]).command
        except XcliError:
            command = ""
        if command != "features":
            raise
        raise UsageError(f"{one_line(values['data'])} is a table of features; --truth FILE names its labels") from None


def _compute(name: str, values: dict[str, Any], messages: Messages) -> None:
    """Computes features into a table, as `features` would."""
    target = parse_target(name)
    assert isinstance(target, File | Directory)
    form = target.format(FEATURES_FORMATS, "parquet")
    names = ("path_column", "manifest_base", "include_system", "no_follow", "allow_private_hosts")
    given = {key: values[key] for key in names}
    if os.path.isdir(values["data"]):
        del given["path_column"]
        options = SourceOptions((values["data"],), **given)
    else:
        options = SourceOptions(manifest=values["data"], **given)
    with list_images(options, numbers=form == "parquet") as listing:
        quiet_libraries(debug=messages.debug)
        model = load_model(
            ModelSpec(
                model=values["model"],
                weights=values["weights"],
                include_top=False,
                weights_dir=values["weights_dir"],
                offline=values["offline"],
                progress=messages.level >= 0 and sys.stderr.isatty(),
            )
        )
        run = Run(listing, model, FeaturesTask(), preprocessing_for(model), fold(RunOptions, values))
        with Progress(
            values["progress"],
            quiet=messages.level < 0,
            total=lambda: listing.total,
            kept=lambda: run.report.resumed,
        ) as progress:
            output = Output("features", target, form)
            save(run, output, command_line=command_line(), on_begin=progress.begin, on_batch=progress.advance)


def _audit(
    images: AuditImages, rows: ImageRows, tables: FeatureTables, values: dict[str, Any], messages: Messages
) -> Audit:
    found, quiet = Audit(images), messages.level < 0
    where = {"folder": values["images"], "workers": values["workers"]}
    readings = Readings(tables.readers, lambda: READINGS)
    if len(rows.errors) + rows.missing < len(images):
        with Stages(values["progress"], quiet=quiet) as stages:
            stages.show(readings)
            found.add_features(rows, tables, pixels=values["pixels"], progress=stages.tell, **where)
    if not values["pixels"]:
        found.add_errors(rows.errors)
        found.unchecked.append(("--no-pixels", PICTURE_KINDS))
        return found.finished()
    with Progress(values["progress"], quiet=quiet, total=lambda: len(images)) as progress:
        progress.begin(is_first=False)
        listed = values["truth"] is None
        found.add_pictures(rows.errors, listed=listed, progress=progress.count, **where)
    return found.finished()


def _write_page(found: Audit, tables: FeatureTables, values: dict[str, Any]) -> None:
    options, target = fold(ReportOptions, values, truth=None), values["html"]
    made = write_audit_page(found, values["data"], tables.readers[0], target, options, overwrite=values["overwrite"])
    parts = [f"{len(made.made):,} thumbnails", *lacking_pictures(len(made.missing), made.left_out)]
    log.info("%s: %s", one_line(target), ", ".join(parts))


def summary_of(found: Audit) -> dict[str, Any]:
    """Returns the summary as JSON has it."""
    worst: dict[str, Any] = {}
    for one in found.findings:
        worst.setdefault(one.issue, one._asdict())
    return {
        "images": len(found.images),
        "classes": len(found.images.names),
        "findings": len(found.findings),
        "kinds": {kind: found.counts().get(kind, 0) for kind in KINDS},
        "worst": worst,
        "unchecked": [{"reason": reason, "kinds": kinds} for reason, kinds in found.unchecked],
        "remarks": found.remarks,
    }


def _show(found: Audit) -> None:
    from rich.table import Table
    from rich.text import Text

    console = open_console()
    if not found.findings:
        console.print("nothing found")
        return
    table = Table(box=None, pad_edge=False)
    for name, justify in (("finding", "left"), ("images", "right"), ("the worst of them", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    counts, shown = found.counts(), set[str]()
    for one in found.findings:
        if one.issue not in shown:
            shown.add(one.issue)
            text = f"{one_line(one.path or one.label or '')}: {one_line(one.detail)}"
            table.add_row(one.issue, f"{counts[one.issue]:,}", Text(text, overflow="fold"))
    console.print(table)


def _assert_clean(found: Audit, kinds: tuple[str, ...]) -> int:
    """Returns the exit code that --assert-clean gives."""
    counts, code = found.counts(), ExitCode.OK
    for kind in dict.fromkeys(kinds):
        reasons = [reason for reason, without in found.unchecked if kind in without]
        if counts.get(kind):
            log.error("--assert-clean: %s has %s findings", kind, f"{counts[kind]:,}")
            code = ExitCode.CHECK
        elif reasons:
            log.error("--assert-clean: %s is unknown: %s", kind, reasons[0])
            code = ExitCode.CHECK
    return code
