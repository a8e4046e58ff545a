"""How options are declared: each under a heading of the help."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])

SECTIONS = INPUT, OUTPUT, MODEL, PIXELS, TRAINING, RUN, CLUSTER, MESSAGES = (
    "Input",
    "Output",
    "Model",
    "Pixels",
    "Training",
    "Run",
    "Cluster",
    "Messages",
)
"""Headings of the help, in the order in which they stand there."""


class Option(click.Option):
    """An option that stands under a heading of its own in the help."""

    def __init__(self, *args: Any, section: str = MESSAGES, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section

    def get_help_extra(self, ctx: click.Context) -> Any:
        """Without the range of numbers: the error message names it to those who leave it."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Completes choices, paths, and the words in a metavar (`imagenet|none|PATH` has two); DIR is a directory."""
        items = super().shell_complete(ctx, incomplete)
        if isinstance(self.type, click.Choice):
            return items
        if self.metavar == "DIR" and isinstance(self.type, click.Path):
            items = [CompletionItem(incomplete, type="dir")]
        alternatives = (self.metavar or "").split("|")
        words = [word for word in alternatives if re.fullmatch(r"[a-z0-9_-]+", word)] if alternatives[1:] else []
        # After the files: Click's script for bash forgets what comes before them.
        return items + [CompletionItem(word) for word in words if word.startswith(incomplete)]


class Command(click.Command):
    """A command whose help groups its options, and which shows its usage errors with a hint at the help."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, records in option_records(ctx).items():
            with formatter.section(section):
                formatter.write_dl(records)


def option_records(ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
    """Returns the options of a command, each as its names and its help, by the headings in their order."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in ctx.command.get_params(ctx):
        record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
        if record is not None:
            sections.setdefault(getattr(parameter, "section", MESSAGES), []).append(record)
    return {section: sections[section] for section in sorted(sections, key=SECTIONS.index)}


def option(*names: str, section: str, **attributes: Any) -> Callable[[F], F]:
    """`click.option` under a heading."""
    return click.option(*names, cls=Option, section=section, **attributes)


def stack(decorators: list[Callable[[F], F]], function: F) -> F:
    for decorator in reversed(decorators):
        function = decorator(function)
    return function
