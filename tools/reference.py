"""The command reference, from the command tree: docs/cli.md, and the man pages.

Both are written in Markdown; docutils turns it into man pages. click-man knows neither the headings of options nor the
environment and the exit codes, and puts the day's date into each page.
"""

from __future__ import annotations

import re
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xcli.cli import PROGRAM
from xcli.cli.help import option_records
from xcli.core.errors import ExitCode
from xcli.core.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

EXIT_CODES = {
    ExitCode.OK: "Every input has an `ok` row.",
    ExitCode.BUG: "A bug. Please report it with the output of --debug.",
    ExitCode.USAGE: "The command line is wrong, or a source cannot be listed.",
    ExitCode.MODEL: "The model, its weights or its labels cannot be found or loaded, or do not fit.",
    ExitCode.ROW_ERRORS: "The run finished; some rows are `error`.",
    ExitCode.OUTPUT: "The output cannot be written: the disk, permissions, an existing file without --overwrite, or a "
    "machine that has no memory, threads or descriptors left.",
    ExitCode.CHECK: "A requested check failed.",
    ExitCode.SIGHUP: "The terminal was closed (SIGHUP).",
    ExitCode.SIGINT: "Interrupted (SIGINT).",
    ExitCode.SIGTERM: "Terminated (SIGTERM).",
}
ENVIRONMENT = {
    "XCEPTION_<COMMAND>_<OPTION>": "The value of a command's option that is not on the command line: "
    "XCEPTION_CLASSIFY_BATCH_SIZE stands for --batch-size of classify. A flag takes 1 or 0. Several values of "
    "--include or --exclude are separated by spaces, those of --source (XCEPTION_MERGE_SOURCES), --also, "
    "--between, --from-features and --images of export by colons.",
    "XCEPTION_<OPTION>": "The same for an option before the command: XCEPTION_LOG_FILE stands for --log-file.",
    "XCEPTION_WEIGHTS_DIR": "Stands for --weights-dir of every command.",
    "XCEPTION_WEIGHTS_URL": "Address to download the ImageNet weights from, instead of the official one.",
    "NO_COLOR": "If it is set and not empty, tables on a terminal have no colours.",
}
EXAMPLES = Path(__file__).with_name("examples.sh")
INTRODUCTION = """\
# Command line

This page is generated from the program: it says what `xception COMMAND --help` says. `make generate` writes it.

Every option can also be set in the environment, as `XCEPTION_<COMMAND>_<OPTION>`: `XCEPTION_CLASSIFY_TOP=3` stands
for `xception classify --top 3`. The command line takes precedence. The [exit codes](getting-started.md#exit-codes) are
the same for all commands.
"""


def contexts(group: click.Group) -> Iterator[click.Context]:
    """The group's context, then those of its visible commands. Nothing is parsed, so the environment has no part."""
    top = click.Context(group, info_name=PROGRAM, **group.context_settings)
    yield top
    for name, command in sorted(group.commands.items()):
        if not command.hidden:
            yield click.Context(command, info_name=name, parent=top, **command.context_settings)


def reference(group: click.Group) -> str:
    """The page docs/cli.md."""
    parts = [INTRODUCTION]
    for ctx in contexts(group):
        parts += [f"## {ctx.command_path}\n", f"```text\n{_usage(ctx)}\n```\n", *_description(ctx.command)]
        for section, records in option_records(ctx).items():
            options = [f"- {_term(names)}: {_text(text)}" for names, text in records]
            parts += [f"**{section}**\n", "\n".join(options) + "\n"]
        parts += ["**Examples**\n", *examples] if (examples := list(_examples(ctx))) else []
    return "\n".join(parts)


def man_page(ctx: click.Context) -> str:
    """The man page of a command, or of the group."""
    from docutils.core import publish_string
    from myst_parser.parsers.docutils_ import Parser

    settings = {"_disable_config": True, "output_encoding": "unicode", "report_level": 2, "halt_level": 2}
    settings["myst_enable_extensions"] = ["deflist"]
    text = "\n".join(_man_sections(ctx))
    roff = publish_string(text, parser=Parser(), writer="manpage", settings_overrides=settings)
    macros = roff[roff.index(".nr") : roff.index(".TH")]
    # mandoc warns of vertical space after a heading, where there is space already.
    body = re.sub(r"^(\.S[HS] .*)\n\.sp$", r"\1", roff[roff.index(".SH NAME") :], flags=re.MULTILINE)
    title = page_name(ctx).upper().replace("-", r"\-")
    return (
        # Ragged and without hyphens, so that a search finds the names of options.
        f'.\\" Written by tools/generate.py: edits are lost.\n{macros}.nr HY 0\n'
        f'.TH {title} 1 "" "{PROGRAM} {__version__}"\n.ad l\n{body}'
    )


def _man_sections(ctx: click.Context) -> Iterator[str]:
    pages = {one: one.command.get_short_help_str(limit=1000).rstrip(".") for one in contexts(ctx.find_root().command)}
    name, summary = page_name(ctx), _text(ctx.command.get_short_help_str(limit=1000).rstrip("."))
    yield f"# {name}\n\n## NAME\n\n{name} - {summary}\n\n## SYNOPSIS\n\n{_term(_usage(ctx))}\n\n## DESCRIPTION\n"
    yield from _description(ctx.command)
    if isinstance(ctx.command, click.Group):
        yield "## COMMANDS\n"
        yield from (_definition(f"`{one.info_name}`", text) for one, text in pages.items() if one.parent)
    yield "## OPTIONS\n"
    sections = option_records(ctx)
    for section, records in sections.items():
        yield f"### {section}\n" if len(sections) > 1 else ""
        yield from (_definition(_term(names), text) for names, text in records)
    yield "## ENVIRONMENT\n"
    yield from (_definition(f"`{name}`", text) for name, text in ENVIRONMENT.items())
    yield "## EXIT STATUS\n"
    yield from (_definition(f"`{int(code)}`", EXIT_CODES[code]) for code in ExitCode)
    if examples := list(_examples(ctx)):
        yield from ("## EXAMPLES\n", *examples)
    yield "## SEE ALSO\n\n" + ", ".join(f"`{page_name(one)}`(1)" for one in pages if page_name(one) != name)


def page_name(ctx: click.Context) -> str:
    """The name of its man page: xception-classify."""
    return ctx.command_path.replace(" ", "-")


def _usage(ctx: click.Context) -> str:
    return " ".join([ctx.command_path, *ctx.command.collect_usage_pieces(ctx)])


def _description(command: click.Command) -> Iterator[str]:
    # Click ends what the help shows at a form feed, and leaves paragraphs as they are that begin with a backspace.
    for paragraph in cleandoc((command.help or "").split("\f")[0]).split("\n\n"):
        verbatim = paragraph.startswith("\b\n")
        yield f"```text\n{paragraph[2:]}\n```\n" if verbatim else f"{_text(paragraph)}\n"


def _examples(ctx: click.Context) -> Iterator[str]:
    """A sentence and a command each, from examples.sh."""
    for comment, command in re.findall(r"^# (.*)\n([^#\n].*)$", EXAMPLES.read_text(), re.MULTILINE):
        if ctx.parent and f"{ctx.command_path} " in f"{command} ":
            yield f"{_text(comment)}\n\n```text\n{command}\n```\n"


def _definition(term: str, text: str) -> str:
    return f"{term}\n: {_text(text)}\n"


def _term(names: str) -> str:
    """Names of options and words to type as code, and what stands for a value, which is in capitals, in italics."""

    def mark(found: re.Match[str]) -> str:
        word = found[0]
        return f"*{word}*" if word.isupper() else f"`{word}`" if word[0].isalnum() or word[0] == "-" else f"\\{word}"

    return re.sub(r"--?\w[\w-]*|[A-Z][A-Z_]*|[a-z0-9][\w.:-]*|[\[\]*_<>|]", mark, names)


def _text(text: str) -> str:
    """A text in which Markdown finds no marks but code between backticks; names of options become code."""

    def mark(found: re.Match[str]) -> str:
        return found[1] or (f"`{found[2]}`" if found[2] else f"\\{found[3]}")

    pattern = r"(`[^`]+`)|((?<![\w-])--\w[\w-]*\w|\bXCEPTION_[\w<>]+)|([\\*_\[\]<>#|~$&`])"
    marked = re.sub(pattern, mark, " ".join(text.split()))
    return re.sub(r"^(\d*)([-+=(%:.)])", r"\1\\\2", marked)  # no list, comment or target
