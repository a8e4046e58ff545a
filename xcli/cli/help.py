"""How options are declared: each under a heading of the help, with the default that its dataclass holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from xcli.cli.environment import made_with, name_variables, variable_of
from xcli.core.errors import XcliError
from xcli.core.records import default

F = TypeVar("F", bound=Callable[..., Any])
Options = TypeVar("Options")
Decorator = Callable[[Any], Any]

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

FILE = click.Path()
COUNT = click.IntRange(min=1)


class Option(click.Option):
    """An option that stands under a heading of its own in the help."""

    def __init__(self, *args: Any, section: str = MESSAGES, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, ParameterSource]:
        """Returns the value and where it is from, which an error message about it can tell too."""
        value, source = super().consume_value(ctx, opts)
        if source is ParameterSource.ENVIRONMENT and self.name is not None:
            ctx.set_parameter_source(self.name, source)
        return value, source

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Names the variable instead of the option if the value stands in the environment."""
        if ctx is not None and self.name and ctx.get_parameter_source(self.name) is ParameterSource.ENVIRONMENT:
            return variable_of(ctx, self)
        return super().get_error_hint(ctx)

    def get_help_extra(self, ctx: click.Context) -> Any:
        """Leaves out the range of numbers: the error message names it to those who leave it."""
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
    """A command whose help groups its options under headings, and which knows the options of the other commands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the arguments; an option of other commands is refused with their names."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            group, name = ctx.find_root().command, error.option_name
            others = group.commands.items() if isinstance(group, click.Group) else ()
            owners = [one for one, command in others if any(name in option.opts for option in command.params)]
            if not owners:
                raise
            raise click.UsageError(f"No such option {name!r}: it belongs to {', '.join(owners)}.", ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; an error names the variables that set the options it mentions."""
        try:
            return super().invoke(ctx)
        except XcliError as error:
            name_variables(ctx, error)
            raise

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


def option(names: str, section: str, text: str, *, of: type | None = None, **attributes: Any) -> Decorator:
    """Declares an option.

    Args:
        names: its names, separated by spaces.
        section: the heading of the help under which it stands.
        text: its help.
        of: the dataclass whose field of the same name holds the default, which the help then shows.
        attributes: as for `click.option`.
    """
    declared = names.split()
    if of is not None:
        field = declared[-1].partition("/")[0].lstrip("-").replace("-", "_")
        attributes |= {"default": default(of, field), "show_default": True}
    return click.option(*declared, cls=Option, section=section, help=text, **attributes)


def flag(names: str, section: str, text: str) -> Decorator:
    """Declares an option without a value."""
    return option(names, section, text, is_flag=True)


def choice(names: str, section: str, choices: Any, text: str, **attributes: Any) -> Decorator:
    """Declares an option with a fixed set of values."""
    return option(names, section, text, type=click.Choice(choices), **attributes)


def path(names: str, section: str, metavar: str, text: str, **attributes: Any) -> Decorator:
    """Declares an option whose value is a path or a URL."""
    return option(names, section, text, metavar=metavar, type=FILE, **attributes)


def number(names: str, section: str, metavar: str, kind: Any, text: str, **attributes: Any) -> Decorator:
    """Declares an option whose value is a number, or another type with a metavar."""
    return option(names, section, text, metavar=metavar, type=kind, **attributes)


def options(*decorators: Decorator) -> Decorator:
    """Returns one decorator for several options, which the help then shows in this order."""

    def decorate(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def fold(kind: type[Options], values: dict[str, Any], **fixed: Any) -> Options:
    """Makes a dataclass of options from a command's values.

    Args:
        kind: the dataclass; a field that is neither in `values` nor in `fixed` keeps its default.
        values: the values of a command by parameter name; they stay as they are.
        fixed: fields that the command decides itself.

    Raises:
        UsageError: the values do not go together; see `made_with`.
    """
    chosen = {one.name: values[one.name] for one in fields(kind) if one.name in values}  # type: ignore[arg-type]
    made: Options = made_with(lambda one: kind(**one, **fixed), {key: chosen[key] for key in chosen.keys() - fixed})
    return made
