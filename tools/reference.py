"""docs/cli.md: every command and every option, from the command tree."""

from __future__ import annotations

import re
from inspect import cleandoc
from typing import TYPE_CHECKING

import click

from xcli.cli.sections import MESSAGES, SECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

INTRODUCTION = """\
# Command line

This page is generated from the program: it says what `xception COMMAND --help` says. `make generate` writes it.

Every option can also be set in the environment, as `XCEPTION_<COMMAND>_<OPTION>`: `XCEPTION_CLASSIFY_TOP=3` stands
for `xception classify --top 3`. The command line takes precedence. The [exit codes](getting-started.md#exit-codes) are
the same for all commands.
"""


def reference(group: click.Group) -> str:
    """The page in Markdown: the group, then each visible command."""
    top = click.Context(group, **group.context_settings)
    parts = [INTRODUCTION, *_command(group, top, "xception")]
    for name in group.list_commands(top):
        command = group.commands[name]
        if not command.hidden:
            ctx = click.Context(command, info_name=name, parent=top, **command.context_settings)
            parts += _command(command, ctx, f"xception {name}")
    return "\n".join(parts)


def _command(command: click.Command, ctx: click.Context, name: str) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(ctx))
    yield f"## {name}\n\n```text\n{name} {usage}\n```\n"
    # Click ends what the help shows at a form feed, and leaves paragraphs as they are that begin with a backspace.
    for paragraph in cleandoc((command.help or "").split("\f")[0]).split("\n\n"):
        verbatim = paragraph.startswith("\b\n")
        yield f"```text\n{paragraph[2:]}\n```\n" if verbatim else f"{_escape(paragraph)}\n"
    sections: dict[str, list[str]] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
        if record is not None:
            line = f"- `{record[0]}`: {_escape(' '.join(record[1].split()))}"
            sections.setdefault(getattr(parameter, "section", MESSAGES), []).append(line)
    for section in sorted(sections, key=SECTIONS.index):
        yield f"**{section}**\n\n" + "\n".join(sections[section]) + "\n"


def _escape(text: str) -> str:
    """Text in which Markdown finds no marks but code between backticks."""
    return re.sub(r"(`[^`]+`)|([\\*_\[\]<>#|~$])", lambda found: found[1] or "\\" + found[2], text)
