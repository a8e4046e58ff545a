"""Man pages in the macros of man(7), which groff and mandoc both read."""

from __future__ import annotations

import re
from textwrap import wrap
from typing import TYPE_CHECKING

from tools.tree import GenerateError
from xcli.cli import PROGRAM
from xcli.errors import ExitCode
from xcli.weights import WEIGHTS_URL_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tools.tree import Command, Option, Program

SOURCE_WIDTH = 79

EXIT_STATUS = {
    ExitCode.OK: "Every input has an `ok` row.",
    ExitCode.BUG: "A bug: please report it, with what --debug prints.",
    ExitCode.USAGE: "The command line makes no sense, or a source cannot be listed.",
    ExitCode.MODEL: "The model, its weights or its labels cannot be had, or do not fit.",
    ExitCode.ROW_ERRORS: "The run finished; some rows are `error`.",
    ExitCode.OUTPUT: "The output cannot be written: the disk, permissions, or an existing file without --overwrite.",
    ExitCode.CHECK: "A requested check failed.",
    ExitCode.SIGINT: "Interrupted (SIGINT).",
    ExitCode.SIGTERM: "Terminated (SIGTERM).",
}

EXAMPLES = {
    "classify": [
        ("A table of all images below a directory; the format is that of the extension:",
         "xception classify ~/photos -o labels.csv"),
        ("The best class only, and only where it is likely, as lines of JSON for another program:",
         "xception classify ~/photos --top 1 --min-score 0.5 --format jsonl | jq -r '.predictions[].label'"),
        ("Names from another program, separated by NUL so that any name will do:",
         "find . -name '*.jpg' -newer last.csv -print0 | xception classify - --null -o new.csv"),
        ("A model of your own, with its class names:",
         "xception classify ~/photos --model birds.keras --labels birds.txt -o birds.parquet"),
        ("A bucket, by all machines of a Ray cluster, into a directory of parts in another bucket:",
         "xception classify s3://bucket/photos/ -o s3://results/labels/ --runner ray --ray-address auto"),
    ],
    "evaluate": [
        ("Accuracies and a table by class, for the validation split where there is one:",
         "xception evaluate clothes --model clothes-model"),
        ("The same with tables and pictures, the confusion matrix and the worst mistakes among them:",
         "xception evaluate clothes --model clothes-model -o report"),
        ("Images and their classes from a table, in columns of these names:",
         "xception evaluate images.csv --path-column file --label-column kind --model birds.keras --labels birds.txt"),
        ("Top-1 and top-5 accuracy of the ImageNet weights, for a directory of folders named by wnid:",
         "xception evaluate ILSVRC2012_val --json | jq '{top1, top5}'"),
        ("Stop a pipeline when the model has become worse:",
         "xception evaluate clothes --model clothes-model --split test --assert-top1 0.9"),
    ],
    "features": [
        ("A vector of 2048 numbers for each image:",
         "xception features ~/photos -o features.parquet"),
        ("A matrix for numpy, ready for cosine similarity, at half the size:",
         "xception features ~/photos --normalize --dtype float16 -o features.npy"),
        ("The output of an inner layer, averaged over the image:",
         "xception features ~/photos --layer block13_sepconv2_act -o inner.parquet"),
        ("Maps of 10 by 10 by 2048 numbers, not averaged:",
         "xception features ~/photos --pooling none -o maps.parquet"),
        ("The second of four parts of a bucket, each on a machine of its own:",
         "xception features s3://bucket/photos/ --shard 2/4 -o part-2.parquet"),
    ],
    "finetune": [
        ("A classifier of your own from a folder for each class:",
         "xception finetune ~/clothes -o RUN"),
        ("The head alone, in a minute or two:",
         "xception finetune ~/clothes -o RUN --unfreeze none"),
        ("More views of few images, and more of the network trained on them (slower):",
         "xception finetune ~/clothes -o RUN --views 6 --unfreeze block12"),
        ("New classes for the network of an earlier run, from a table with the columns file and kind:",
         "xception finetune birds.csv --path-column file --label-column kind -o BIRDS --model RUN"),
    ],
    "info": [
        ("The network, where its weights are, and what this machine has:",
         "xception info"),
        ("What is in a directory, before a long run:",
         "xception info ~/photos"),
        ("Names for --layer of features:",
         "xception info --layers"),
        ("Whether a file of weights fits, in a script:",
         "xception info --weights my.weights.h5 --classes 12 --json | jq -r .weights.state"),
    ],
    "merge": [
        ("Four parts to the table that one run would have written, if no image is missing:",
         "xception merge part-1.parquet part-2.parquet part-3.parquet part-4.parquet --source /data/images "
         "-o all.parquet"),
        ("The parts of a run over two directories, only some of whose files were taken:",
         "xception merge part-*.csv --source a --source b --include '*.png' -o all.csv"),
        ("Parts of a run over a list of images; all that is missing goes to a file:",
         "xception merge part-*.parquet --manifest images.csv --report missing.jsonl -o all.parquet"),
        ("One behind the other, as CSV, where the sources are not at hand:",
         "xception merge part-*.parquet -o all.csv"),
    ],
    "verify": [
        ("Whether a table is whole and sound, and has a row for every image:",
         "xception verify labels.csv ~/photos"),
        ("The same of the second of four parts:",
         "xception verify part-2.parquet /data/images --shard 2/4"),
        ("Of the table alone, in a script:",
         "xception verify features.parquet --json | jq -r '.findings[].what'"),
        ("Every image without a row, and whatever else is wrong, as lines of JSON in a file:",
         "xception verify labels.csv ~/photos --report wrong.jsonl"),
    ],
}  # fmt: skip
"""What each command is good for: a sentence and a command line. Those in a command's own help come before them."""

_SPECIAL = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", '"': r"\(dq"}


def page(program: Program, command: Command) -> str:
    """The page of a command, or of the group."""
    examples, description, status = _read_help(command)
    title = escaped(command.page_name.upper())
    blocks = [
        f'.\\" Written by tools/generate.py: edits are lost.\n.TH {title} 1 "" "{PROGRAM} {program.version}"\n'
        # Ragged and without hyphens, for the names of options must be found by a search.
        ".nh\n.ad l",
        f".SH NAME\n{escaped(command.page_name)} \\- {escaped(_lower_first(command.summary))}",
        f".SH SYNOPSIS\n{_synopsis(command)}",
        ".SH DESCRIPTION\n" + "\n.PP\n".join(description),
    ]
    if command == program.group:
        entries = [_entry(bold(one.name), one.summary + ".") for one in program.commands]
        blocks.append("\n".join([".SH COMMANDS", *entries, ".PP", *prose("Each has a page of its own.")]))
    sections = command.sections()
    blocks.append(".SH OPTIONS")
    for section, options in sections.items():
        heading = [f".SS {escaped(section)}"] if len(sections) > 1 else []
        blocks.append("\n".join([*heading, *map(_option, options)]))
    blocks += [_environment(program, command), _exit_status(status)]
    examples += EXAMPLES.get(command.name, [])
    if examples:
        blocks.append(".SH EXAMPLES\n" + "\n.PP\n".join(_example(*example) for example in examples))
    others = [one for one in program.all if one != command]
    blocks.append(".SH SEE ALSO\n" + ",\n".join(f"{bold(one.page_name)}(1)" for one in others))
    return "\n".join(blocks) + "\n"


def escaped(text: str) -> str:
    """Text that roff shows as it is. At the start of a line, `line` has to see to the first character too."""
    return "".join(_SPECIAL.get(one, one if one.isascii() else f"\\[u{ord(one):04X}]") for one in text)


def line(text: str) -> str:
    """An escaped text as a line that roff does not take for a request."""
    return f"\\&{text}" if text.startswith((".", "'")) else text


def bold(text: str) -> str:
    """What is to be typed as it stands."""
    return f"\\fB{escaped(text)}\\fR"


def prose(text: str) -> list[str]:
    """Filled text: a sentence begins a line, as roff expects; options, variables and `code` are bold."""
    lines = []
    for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z\[])", " ".join(text.split())):
        parts = re.split(r"(`[^`]+`|(?<![\w-])--[a-z0-9][\w-]*|\bXCEPTION_[\w<>]+)", sentence)
        marked = "".join(bold(part.strip("`")) if index % 2 else escaped(part) for index, part in enumerate(parts))
        *wrapped, last = wrap(marked, SOURCE_WIDTH, break_long_words=False, break_on_hyphens=False) or [""]
        # A full stop that ends a line but no sentence must not get the space of one.
        lines += [line(one) + ("\\&" if one.endswith((".", "!", "?")) else "") for one in wrapped] + [line(last)]
    return lines


def _lower_first(text: str) -> str:
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def _verbatim(lines: Iterable[str]) -> str:
    return "\n".join([".nf", *(line(escaped(one)) for one in lines), ".fi"])


def _metavar(text: str) -> str:
    """Capitals stand for something, and are italic; small letters are words to type, and bold."""
    parts = re.split(r"([A-Z][A-Z_]*|[a-z0-9][\w.:-]*)", text)
    fonts = ["" if index % 2 == 0 else "\\fI" if part[0].isupper() else "\\fB" for index, part in enumerate(parts)]
    return "".join(
        f"{font}{escaped(part)}\\fR" if font else escaped(part) for font, part in zip(fonts, parts, strict=True)
    )


def _synopsis(command: Command) -> str:
    arguments = [_metavar("[OPTION]..."), *map(_metavar, command.arguments)]
    return f"{bold(command.usage_name)} {' '.join(arguments)}"


def _entry(term: str, text: str) -> str:
    return "\n".join([".TP", term, *prose(text)])


def _option(option: Option) -> str:
    value = f" {_metavar(option.metavar)}" if option.metavar else ""
    entry = _entry(", ".join(map(bold, option.all_names)) + value, option.help)
    return entry if option.default is None else f"{entry}\n[default:\\ {escaped(option.default)}]"


def _read_help(command: Command) -> tuple[list[tuple[str, str]], list[str], str]:
    """Examples, paragraphs of the description, and what the help says of the exit status."""
    examples: list[tuple[str, str]] = []
    description, status = [], ""
    for paragraph in re.split(r"\n\s*\n", command.help):
        lines = paragraph.split("\n")
        if lines[0].strip() != "\b":
            if lines[0].startswith("Exit status:"):
                status = paragraph.removeprefix("Exit status:")
            else:
                description.append("\n".join(prose(paragraph)))
            continue
        pairs = [re.split(r"\s{2,}", one.strip(), maxsplit=1) for one in lines[1:]]
        if all(len(pair) == 2 and pair[0].split()[0] == command.usage_name.split()[0] for pair in pairs):
            examples += [(f"{text[:1].upper()}{text[1:]}:", typed) for typed, text in pairs]
        else:
            description.append(".RS 4\n" + _verbatim(lines[1:]) + "\n.RE")
    return examples, description, status


def _example(text: str, typed: str) -> str:
    return "\n".join([*prose(text), ".PP", ".RS 4", ".nf", bold(typed), ".fi", ".RE"])


def _environment(program: Program, command: Command) -> str:
    """The rule, what goes by another, and what the library reads."""
    prefix, lines = command.variable_prefix, [".SH ENVIRONMENT"]
    ruled = {one.rule_variable: one for one in command.options if one.rule_variable}
    usual = {name: one for name, one in ruled.items() if name == f"{prefix}_{_as_variable(one.long_name)}"}
    rule = "Stands for an option that the command line does not have: its name in capitals, with _ for each -."
    if example := next((name for name, one in usual.items() if "-" in one.long_name[2:]), None):
        rule += f" {example} stands for {usual[example].long_name}."
    rule += " A flag takes 1 or 0."
    for separator, what in ((" ", "blanks"), (":", "colons"), (";", "semicolons")):
        if several := [one.long_name for one in command.options if one.separator == separator]:
            rule += f" Values of {_listed(several)} have {what} between them."
    if command == program.group:
        rule += " Options of a command have its name before theirs: XCEPTION_<COMMAND>_<OPTION>."
    lines.append(_entry(bold(f"{prefix}_<OPTION>"), rule))
    lines += [_entry(bold(name), f"Stands for {one.long_name}.") for name, one in ruled.items() if name not in usual]
    described = program.commands if command == program.group else (command,)
    declared = {name: one for each in described for one in each.options for name in one.variables}
    lines += [
        _entry(bold(name), f"Stands for {one.long_name} in every command that has it.")
        for name, one in declared.items()
    ]
    if any(one.long_name == "--weights" for each in described for one in each.options):
        where = "Address of a directory to download the ImageNet weights from, in place of the official one."
        lines.append(_entry(bold(WEIGHTS_URL_VARIABLE), where))
    lines.append(_entry(bold("NO_COLOR"), "If it is set, and not empty, tables on a terminal have no colours."))
    return "\n".join(lines)


def _as_variable(name: str) -> str:
    return name.lstrip("-").replace("-", "_").upper()


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _exit_status(status: str) -> str:
    if unexplained := set(ExitCode) ^ set(EXIT_STATUS):
        raise GenerateError(f"the man pages and xcli.errors.ExitCode do not agree on {sorted(unexplained)}")
    entries = [_entry(bold(str(int(code))), EXIT_STATUS[code]) for code in ExitCode]
    return "\n".join(
        [".SH EXIT STATUS", *(prose(f"Of this command: {status.strip()} All codes:") if status else []), *entries]
    )
