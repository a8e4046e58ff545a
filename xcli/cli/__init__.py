"""The command line: one group of thin commands."""

from __future__ import annotations

import click

from xcli.cli.commands.classify import classify
from xcli.cli.commands.evaluate import evaluate
from xcli.cli.commands.features import features
from xcli.cli.commands.finetune import finetune
from xcli.cli.commands.info import info
from xcli.cli.commands.merge import merge
from xcli.cli.commands.verify import verify
from xcli.cli.verbosity import message_arguments
from xcli.core.version import __version__

PROGRAM = "xception"


@click.group(
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


for command in (classify, evaluate, features, finetune, info, merge, verify):
    cli.add_command(command)
