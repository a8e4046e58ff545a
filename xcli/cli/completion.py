"""Completion by Tab: Click's own, with corrections for each shell."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from click import shell_completion

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

VARIABLE = "_XCEPTION_COMPLETE"
"""In the environment it tells the program, for example by `bash_complete`, to print completions and nothing else."""


class BashComplete(shell_completion.BashComplete):
    """Joins the words that readline splits at `=` and `:`."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Returns the words before the cursor, and the incomplete one at it."""
        before, incomplete = super().get_completion_args()
        words: list[str] = []
        for word in [*before, incomplete]:
            if words and word and (word[0] in "=:" or words[-1][-1:] in ("=", ":")):
                words[-1] += word
            else:
                words.append(word)
        return words[:-1], words[-1]


class _WholeWords(shell_completion.ShellComplete):
    """For shells that replace the whole word `--format=js` by what is offered: `--format=jsonl`, not `jsonl`."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Returns the completions, which have the option's name before them if the incomplete word has it."""
        items = super().get_completions(args, incomplete)
        name, equals, _ = incomplete.partition("=")
        if equals and name.startswith("--"):
            for item in items:
                item.value = f"{name}={item.value}"
        return items


class ZshComplete(_WholeWords, shell_completion.ZshComplete):
    """Completes paths after `--output=` too. Click's own function offers nothing when it is called a second time."""

    source_template = shell_completion.ZshComplete.source_template.replace(
        "_path_files", "compset -P '--*='; _path_files"
    ).replace("$zsh_eval_context[-1] == loadautofunc", "$funcstack[1] == _%(prog_name)s")


class FishComplete(_WholeWords, shell_completion.FishComplete):
    """Completes paths after `--output=` too, and keeps what follows a comma in a description."""

    source_template = shell_completion.FishComplete.source_template.replace(
        "__fish_complete_path $metadata[2]",
        'complete -C "__fish_command_without_completions "(string escape -- $metadata[2])',
    ).replace('string split ","', 'string split -m 1 ","')


for each in (BashComplete, ZshComplete, FishComplete):
    shell_completion.add_completion_class(each)


def complete(group: click.Group, program: str, state: Any) -> bool:
    """Prints what the environment asks for: completions, or a shell's script. Returns False if it asks for neither."""
    return not shell_completion.shell_complete(group, {"obj": state}, program, VARIABLE, os.environ[VARIABLE])
