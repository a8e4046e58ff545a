"""The command tree as the generators see it: read once, through as few attributes of Click as will do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from inspect import cleandoc
from typing import Any

import click

from xcli import __version__
from xcli.cli import PROGRAM
from xcli.cli.sections import MESSAGES, SECTIONS

HELP_WIDTH = 88


class GenerateError(Exception):
    """Something that no output can be made of; the message says what."""


@dataclass(frozen=True)
class Values:
    """What an argument, or the value of an option, can be completed with."""

    words: tuple[str, ...] = ()
    files: bool = False
    directories: bool = False


@dataclass(frozen=True)
class Option:
    """An option.

    Attributes:
        names: as declared, short ones included.
        off_names: those that turn a flag off.
        help: in one line.
        section: heading that it stands under.
        metavar: of its value; empty for a flag.
        default: as the help shows it; None where it does not.
        repeatable: whether giving it again adds to it.
        variables: of the environment, those that were declared for it.
        rule_variable: the one that Click makes out of the names of command and parameter.
        separator: between values in such a variable; None where there can be only one.
        values: what it can be completed with.
    """

    names: tuple[str, ...]
    off_names: tuple[str, ...]
    help: str
    section: str
    metavar: str
    default: str | None
    repeatable: bool
    variables: tuple[str, ...]
    rule_variable: str | None
    separator: str | None
    values: Values

    @property
    def all_names(self) -> tuple[str, ...]:
        """Every name, on or off."""
        return self.names + self.off_names

    @property
    def long_name(self) -> str:
        """The name to call it by in a text."""
        return max(self.names, key=len)

    def describe(self, name: str) -> str:
        """What one of its names does, in a sentence for a menu."""
        return f"Opposite of {self.long_name}" if name in self.off_names else first_sentence(self.help)


@dataclass(frozen=True)
class Command:
    """A command, or the group itself.

    Attributes:
        name: empty for the group.
        summary: one sentence without its full stop.
        help: the long help as written, with Click's marks for verbatim paragraphs.
        arguments: as the usage line shows them.
        values: what the arguments can be completed with.
        options: in the order of the help within each section.
        variable_prefix: what the variables of its options begin with.
    """

    name: str
    summary: str
    help: str
    arguments: tuple[str, ...]
    values: Values
    options: tuple[Option, ...]
    variable_prefix: str

    @property
    def usage_name(self) -> str:
        """As it is typed: `xception classify`."""
        return f"{PROGRAM} {self.name}".rstrip()

    @property
    def page_name(self) -> str:
        """As its man page is called: `xception-classify`."""
        return self.usage_name.replace(" ", "-")

    def sections(self) -> dict[str, list[Option]]:
        """The options under their headings, in the order of the help."""
        found: dict[str, list[Option]] = {}
        for option in self.options:
            found.setdefault(option.section, []).append(option)
        return {section: found[section] for section in sorted(found, key=SECTIONS.index)}


@dataclass(frozen=True)
class Program:
    """The group, and its visible commands in the order of the help."""

    version: str
    group: Command
    commands: tuple[Command, ...]

    @property
    def all(self) -> tuple[Command, ...]:
        """The group, then its commands."""
        return (self.group, *self.commands)


def first_sentence(text: str) -> str:
    """The first sentence without its full stop, and without `[default: ...]` unless that is all there is."""
    text = " ".join(text.split())
    without_default = re.sub(r"\s*\[default: [^]]*\]", "", text)
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", without_default or text.strip("[]"))[0].rstrip(".")


def contexts(group: click.Group) -> dict[str, click.Context]:
    """A context for each visible command by its name, and first of all the group's, under an empty one.

    They are made without parsing anything, so that no variable of the environment is read.
    """
    top = click.Context(group, info_name=PROGRAM, terminal_width=HELP_WIDTH, **group.context_settings)
    found = {"": top}
    for name in group.list_commands(top):
        command = group.commands[name]
        if isinstance(command, click.Group):
            raise GenerateError(f"{name!r} is a group in the group: the generators know one level of commands")
        if not command.hidden:
            found[name] = click.Context(command, info_name=name, parent=top, **command.context_settings)
    return found


def read_program(group: click.Group) -> Program:
    """Reads the whole tree."""
    commands = [_read_command(name, ctx) for name, ctx in contexts(group).items()]
    return Program(__version__, commands[0], tuple(commands[1:]))


def _read_command(name: str, ctx: click.Context) -> Command:
    command, parameters = ctx.command, ctx.command.get_params(ctx)
    # Some releases of Click clean the docstring when they store it, others when they show it.
    text = cleandoc((command.help or "").split("\f")[0])
    arguments = [one for one in parameters if isinstance(one, click.Argument)]
    values = [_read_values(one.type, one.metavar or "") for one in arguments]
    commands = ("COMMAND", "[ARGUMENT]...") if isinstance(command, click.Group) else ()
    return Command(
        name=name,
        summary=first_sentence(command.short_help or text.split("\n\n")[0]),
        help=text,
        arguments=(*(one.metavar or str(one.name).upper() for one in arguments), *commands),
        values=Values(
            tuple(dict.fromkeys(word for one in values for word in one.words)),
            files=any(one.files for one in values),
            directories=any(one.directories for one in values),
        ),
        options=tuple(_read_option(one, ctx) for one in parameters if isinstance(one, click.Option) and not one.hidden),
        variable_prefix=ctx.auto_envvar_prefix or "",
    )


def _read_option(option: click.Option, ctx: click.Context) -> Option:
    # Short ones first; some releases of Click have those of the help in no fixed order.
    names, off_names = (tuple(sorted(some, key=_is_long)) for some in (option.opts, option.secondary_opts))
    if odd := [name for name in names + off_names if not re.fullmatch(r"-\w|--\w[\w-]*", name)]:
        raise GenerateError(f"option {odd[0]!r} is neither -x nor --word: the completions know no other kind")
    if option.nargs != 1:
        raise GenerateError(f"option {names[-1]!r} takes {option.nargs} values: the completions know one")
    section = getattr(option, "section", MESSAGES)
    if section not in SECTIONS:
        raise GenerateError(f"option {names[-1]!r} stands under {section!r}, which the help does not know")
    flag = option.is_flag or option.count
    declared = option.envvar or ()
    # Click reads a variable for --help and --version too; nobody needs to be told.
    by_rule = ctx.auto_envvar_prefix and option.allow_from_autoenv and hasattr(option, "section")
    return Option(
        names=names,
        off_names=off_names,
        help=" ".join((option.help or "").split()),
        section=section,
        metavar="" if flag else option.metavar or _default_metavar(option.type),
        default=_shown_default(option),
        repeatable=option.multiple or option.count,
        variables=(declared,) if isinstance(declared, str) else tuple(declared),
        rule_variable=f"{ctx.auto_envvar_prefix}_{str(option.name).upper()}" if by_rule else None,
        separator=(option.type.envvar_list_splitter or " ") if option.multiple else None,
        values=Values() if flag else _read_values(option.type, option.metavar or ""),
    )


def _is_long(name: str) -> bool:
    return name.startswith("--")


def _text(value: object) -> str:
    return value.name if isinstance(value, Enum) else str(value)


def _choices(kind: click.ParamType[Any]) -> tuple[str, ...]:
    return tuple(map(_text, kind.choices)) if isinstance(kind, click.Choice) else ()


def _default_metavar(kind: click.ParamType[Any]) -> str:
    return "|".join(_choices(kind)) or kind.name.upper().replace(" ", "_")


def _read_values(kind: click.ParamType[Any], metavar: str) -> Values:
    """Choices, what the metavar spells out (`imagenet|none|PATH` has two words), and files or directories."""
    if words := _choices(kind):
        return Values(words)
    alternatives = metavar.strip("[].").split("|")
    words = tuple(one for one in alternatives if re.fullmatch(r"[a-z0-9][a-z0-9_-]*", one)) if alternatives[1:] else ()
    path = isinstance(kind, click.Path | click.File)
    directories = path and (not getattr(kind, "file_okay", True) or alternatives == ["DIR"])
    return Values(words, files=path and not directories, directories=directories)


def _shown_default(option: click.Option) -> str | None:
    if isinstance(option.show_default, str):
        return f"({option.show_default})"
    # Of all ways to ask for the default, this one has Click's mark for "none given" taken out in every release.
    value = option.to_info_dict()["default"]
    if not option.show_default or value is None or callable(value):
        return None
    if isinstance(value, bool):
        names = option.opts if value else option.secondary_opts
        return max(names, key=len).lstrip("-") if option.secondary_opts else None
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or None
    return _text(value)
