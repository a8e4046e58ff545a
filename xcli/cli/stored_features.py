"""`--from-features` of `classify` and `finetune`: which options go with tables of features in place of images."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from xcli.cli.environment import beats
from xcli.cli.options import is_given
from xcli.core.errors import UsageError
from xcli.core.text import one_line

if TYPE_CHECKING:
    import click

_EVERYWHERE = ("from_features", "help", "verbose", "quiet", "debug", "log_file", "progress", "output", "overwrite")
_CLASSIFY = (
    *("model", "labels", "top", "min_score", "label_type", "raw_scores", "limit", "shard", "precision", "profile"),
    *("format", "csv_safe", "csv_bom", "errors_out", "max_errors", "restart", "json", "part_rows", "part_seconds"),
)


def refuse_others(ctx: click.Context, values: dict[str, Any], allowed: tuple[str, ...]) -> None:
    """Refuses what was typed and is for images; variables that set such options are set aside.

    Raises:
        UsageError: an option, or an argument, that would do nothing.
    """
    for one in ctx.command.params:
        name = str(one.name)
        if name in (*_EVERYWHERE, *allowed):
            continue
        if is_given(ctx, name) and values.get(name) not in (None, ()):
            option = max(one.opts, key=len)
            if not option.startswith("-"):
                shown = values[name] if isinstance(values[name], str) else values[name][0]
                raise UsageError(f"both --from-features and {one_line(shown)!r} were given: give tables, or images")
            raise UsageError(f"{option} is for images, and --from-features takes tables of features")
        beats(ctx, values, "from_features", name)


def take_tables(ctx: click.Context, values: dict[str, Any]) -> None:
    """Makes the tables of `classify --from-features` its sources.

    Raises:
        UsageError: there is no `--model`, or another option does not go with tables.
    """
    refuse_others(ctx, values, _CLASSIFY)
    if values["model"] is None:
        raise UsageError("--from-features needs the head that scores them: --model RUN, a directory that finetune made")
    output = values["output"]
    if output is not None and any(os.path.realpath(output) == os.path.realpath(one) for one in values["from_features"]):
        raise UsageError(f"{one_line(output)} is the table of features and the output at once; give another -o")
    values["sources"] = values["from_features"]
