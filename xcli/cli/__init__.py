"""The command line: one group of thin commands, each imported only when it is used."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from importlib import import_module

import click
from click.shell_completion import CompletionItem

from xcli.cli.verbosity import message_arguments
from xcli.core.version import __version__

PROGRAM = "xception"

HEADINGS = {
    "Make tables": {
        "classify": "Classify images: their best classes and probabilities.",
        "features": "Compute an embedding (feature vector) of each image.",
        "merge": "Merge the outputs of --shard runs and check that nothing is missing or duplicated.",
    },
    "Use tables": {
        "audit": "Find what is wrong with a labelled data set, before a model is trained on it.",
        "compare": "Compare two tables of the same images: what has changed, and by how much.",
        "sort": "Put the files of a table into a folder for each class.",
        "search": "Find the images of a table that are most like others.",
        "duplicates": "Find images that are copies of each other, in a table or between two.",
        "report": "Make a page of a table or an evaluation, to look through it in a browser.",
        "verify": "Check that a table is intact and that every source has its row.",
    },
    "Train": {
        "evaluate": "Measure the accuracy of a model on labelled images.",
        "finetune": "Train a classifier of your own on labelled images.",
    },
    "Look after": {
        "export": "Write a model for another program: ONNX Runtime, OpenVINO, LiteRT, TensorFlow.",
        "info": "Show the model, its weights and this machine; check sources.",
    },
}
"""The commands by the headings of the group's help, and what it says of each; each command is in a module of its name
below `xcli.cli.commands`."""

SUMMARIES = dict(sorted(pair for commands in HEADINGS.values() for pair in commands.items()))


class _Commands(Mapping[str, click.Command]):
    """The commands by name; a look-up imports the command."""

    def __getitem__(self, name: str) -> click.Command:
        summary = SUMMARIES[name]
        command: click.Command = getattr(import_module(f"xcli.cli.commands.{name}"), name)
        command.short_help = summary
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(SUMMARIES)

    def __len__(self) -> int:
        return len(SUMMARIES)


class Group(click.Group):
    """A group that lists and completes the names of its commands without importing them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the arguments; `help COMMAND` is `COMMAND --help`."""
        return super().parse_args(ctx, [*args[1:2], "--help"] if args[:1] == ["help"] else args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command; where there is a file instead of it, a command is named that takes one."""
        if not ctx.resilient_parsing and args[0] not in self.commands and os.path.lexists(args[0]):
            again = shlex.join([PROGRAM, "classify", *args])
            raise click.UsageError(f"The command is missing before {args[0]!r}: did you mean {again}?", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, SUMMARIES))
        for heading, commands in HEADINGS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), text) for name, text in commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [CompletionItem(name, help=text) for name, text in SUMMARIES.items() if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)


@click.group(
    cls=Group,
    commands=_Commands(),
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "XCEPTION",
        "max_content_width": 100,
    },
)
@message_arguments
# Not from the environment: XCEPTION_VERSION is what a container calls the version it has installed.
@click.version_option(__version__, prog_name=PROGRAM, allow_from_autoenv=False)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Classify and embed directories of images with the Xception network.

    Every image gets exactly one row, in the order of the sources. Its status is `ok`, or `error` with the reason.

    \b
    xception classify ./photos                      a table on the terminal
    xception classify ./photos -o labels.csv        or a file: .csv, .parquet, .jsonl
    xception features ./photos -o features.parquet  a vector of 2048 numbers for each image
    xception info ./photos                          what is in the directory, before a long run

    Every option can also be set by an environment variable, XCEPTION_<COMMAND>_<OPTION>.
    """
