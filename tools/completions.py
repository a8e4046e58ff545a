"""Shell completions that never start Python: everything that they need to know is written into them."""

from __future__ import annotations

import re
import shlex
from textwrap import dedent, indent, wrap
from typing import TYPE_CHECKING

from xcli.cli import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tools.tree import Command, Option, Program, Values

LINE = 110


def _filled(template: str, **parts: str) -> str:
    """The template with PROGRAM filled in, and `@name@` by that part, indented alike where it stands on its own."""

    def part(match: re.Match[str]) -> str:
        return indent(parts[match[2]], match[1] or "")

    text = dedent(template).lstrip("\n").replace("PROGRAM", PROGRAM)
    return re.sub(r"(^ *)?@(\w+)@", part, text, flags=re.MULTILINE)


# bash

_BASH = r"""
    # Completion of PROGRAM for bash 4 and later. Written by tools/generate.py: edits are lost.

    ((BASH_VERSINFO[0] >= 4)) || return 0

    # Sets options (an element holds all names of one), valued and repeatable for command $1; empty is the program.
    _PROGRAM_options() {
        case $1 in
            @options@
            *) return 1 ;;
        esac
    }

    # Sets words and paths to what completes option $2 of command $1, or with an empty $2 its arguments.
    _PROGRAM_values() {
        case "$1 $2" in
            @values@
        esac
    }

    _PROGRAM() {
        local IFS=$' \t\n'
        local -a options=() words=()
        local valued='' repeatable='' paths=''
        local command='' given=' ' pending='' rest='' glued='' prefix=''
        local cur=${COMP_WORDS[COMP_CWORD]} word names name i j

        COMPREPLY=()
        _PROGRAM_options ''
        for ((i = 1; i < COMP_CWORD; i++)); do
            word=${COMP_WORDS[i]}
            if [[ $word =~ ^[=:]+$ ]]; then
                # Readline cuts words at these: what follows belongs to the word before.
                glued=1
            elif [[ $glued ]]; then
                glued='' pending=''
            elif [[ $pending ]]; then
                pending=''
            elif [[ ! $rest && $word == -- ]]; then
                rest=1
            elif [[ ! $rest && $word == --* ]]; then
                given+="${word%%=*} "
                [[ $valued == *" $word "* ]] && pending=$word
            elif [[ ! $rest && $word == -?* ]]; then
                for ((j = 1; j < ${#word}; j++)); do
                    name=-${word:j:1}
                    given+="$name "
                    [[ $valued == *" $name "* ]] || continue
                    ((j + 1 < ${#word})) || pending=$name
                    break
                done
            elif [[ ! $command ]]; then
                _PROGRAM_options "$word" || return 0
                command=$word given=' ' rest=''
            fi
        done

        if [[ $pending && $cur == = ]]; then
            cur=''
        elif [[ $cur =~ ^[=:]+$ || ($glued && ! $pending) ]]; then
            return 0
        elif [[ ! $pending && ! $rest && $cur == --*=* ]]; then
            # Only where = was taken out of COMP_WORDBREAKS.
            pending=${cur%%=*} prefix=${cur%%=*}= cur=${cur#*=}
        fi

        if [[ $pending ]]; then
            _PROGRAM_values "$command" "$pending"
        elif [[ ! $rest && $cur == -* ]]; then
            for names in "${options[@]}"; do
                for name in $names; do
                    [[ $given == *" $name "* && $repeatable != *" $name "* ]] && continue 2
                done
                words+=($names)
            done
        elif [[ ! $command ]]; then
            @commands@
        else
            _PROGRAM_values "$command" ''
        fi

        for word in ${words[@]+"${words[@]}"}; do
            [[ $word == "$cur"* ]] && COMPREPLY+=("$prefix$word")
        done
        if [[ $paths ]]; then
            # Makes readline quote names and put a slash after directories; fails outside of a real completion.
            compopt -o filenames 2>/dev/null
            while IFS= read -r word; do
                COMPREPLY+=("$prefix$word")
            done < <(compgen "$paths" -- "$cur")
        fi
        return 0
    }

    complete -F _PROGRAM PROGRAM
"""


def bash(program: Program) -> str:
    """The script for bash; it needs nothing beside bash itself."""
    return _filled(
        _BASH,
        options="\n".join(map(_bash_options, program.all)),
        values="\n".join(arm for command in program.all for arm in _bash_values(command)),
        commands=_bash_array("words=", (command.name for command in program.commands)),
    )


def _bash_array(start: str, elements: Iterable[str]) -> str:
    """`name=(...)`, in as many lines as it takes."""
    lines = [f"{start}("]
    for element in map(shlex.quote, elements):
        if len(lines[-1]) + len(element) > LINE - 20:
            lines.append("   ")
        lines[-1] += element if lines[-1].endswith("(") else f" {element}"
    return "\n".join(lines) + ")"


def _bash_options(command: Command) -> str:
    def names(options: Iterable[Option]) -> str:
        # Each name has blanks on both sides, for it is looked up together with them.
        every = " ".join(name for option in options for name in option.all_names)
        return '" ' + " \\\n    ".join(wrap(every, LINE - 20, break_on_hyphens=False)) + ' "'

    body = [
        _bash_array("options=", (" ".join(option.all_names) for option in command.options)),
        f"valued={names(option for option in command.options if option.metavar)}",
        f"repeatable={names(option for option in command.options if option.repeatable)}",
        ";;",
    ]
    return f"{shlex.quote(command.name)})\n" + indent("\n".join(body), "    ")


def _bash_values(command: Command) -> list[str]:
    """An arm of the `case` for each option, and for the arguments, that can be completed."""
    found = [(option.names, option.values) for option in command.options]
    arms = []
    for names, values in [(("",), command.values), *found]:
        sets = [_bash_array("words=", values.words)] if values.words else []
        if values.files or values.directories:
            sets.append(f"paths={'-f' if values.files else '-d'}")
        if sets:
            pattern = " | ".join(shlex.quote(f"{command.name} {name}") for name in names)
            arms.append(f"{pattern}) {' '.join(sets)} ;;")
    return arms


# zsh

_ZSH = r"""
    #compdef PROGRAM
    # Completion of PROGRAM for zsh. Written by tools/generate.py: edits are lost.

    _PROGRAM() {
      local curcontext=$curcontext context state state_descr ret=1
      local -a line commands
      local -A opt_args

      _arguments -C -s -S : \
        @specs@
        '(-): :->command' \
        '(-)*:: :->arguments' && ret=0

      case $state in
        command)
          commands=(
            @commands@
          )
          _describe -t commands command commands && ret=0
          ;;
        arguments)
          curcontext=${curcontext%:*:*}:PROGRAM-$words[1]:
          if (( $+functions[_PROGRAM_command_$words[1]] )); then
            _PROGRAM_command_$words[1] && ret=0
          fi
          ;;
      esac
      return ret
    }

    _PROGRAM_words_or_files() {
      _alternative "words:value:($*)" 'files:file:_files'
    }

    @functions@

    # The file is a function that defines itself when it is loaded, and that may also be sourced.
    if [[ $funcstack[1] == _PROGRAM ]]; then
      _PROGRAM "$@"
    else
      compdef _PROGRAM PROGRAM
    fi
"""


def zsh(program: Program) -> str:
    """The script for zsh: a function for its completion system."""
    functions = []
    for command in program.commands:
        specs = _zsh_specs(command)
        action = _zsh_action(command.values)
        if action:
            specs.append(_single_quoted(f"*:{_zsh_message(' '.join(command.arguments))}:{action}"))
        body = " \\\n".join(f"    {spec}" for spec in specs)
        functions.append(f"_{PROGRAM}_command_{command.name}() {{\n  _arguments -s -S : \\\n{body}\n}}")
    return _filled(
        _ZSH,
        specs="\n".join(f"{spec} \\" for spec in _zsh_specs(program.group)),
        commands="\n".join(
            _single_quoted(f"{_zsh_escaped(command.name)}:{_zsh_escaped(command.summary)}")
            for command in program.commands
        ),
        functions="\n\n".join(functions),
    )


def _single_quoted(text: str) -> str:
    return "'" + text.replace("'", r"'\''") + "'"


def _zsh_escaped(text: str) -> str:
    """For a description in a specification, where colons and brackets have a meaning."""
    return re.sub(r"([\\:\[\]])", r"\\\1", text)


def _zsh_message(text: str) -> str:
    """For the heading over values in a specification, which ends at a colon."""
    return re.sub(r"([\\:])", r"\\\1", text)


def _zsh_specs(command: Command) -> list[str]:
    """A specification for every name of every option."""
    specs = []
    for option in command.options:
        others = f"({' '.join(option.all_names)})" if option.all_names[1:] else ""
        for name in option.all_names:
            spec = f"{'*' if option.repeatable else others}{name}"
            if option.metavar:
                spec += "=" if name.startswith("--") else "+"
            spec += f"[{_zsh_escaped(option.describe(name))}]"
            if option.metavar:
                spec += f":{_zsh_message(option.metavar)}:{_zsh_action(option.values) or ' '}"
            specs.append(_single_quoted(spec))
    return specs


def _zsh_action(values: Values) -> str:
    words = " ".join(_zsh_escaped(shlex.quote(word)) for word in values.words)
    if values.directories:
        return "_files -/"
    if values.files:
        # The blank keeps _arguments from slipping in options of its own before the words.
        return f" _{PROGRAM}_words_or_files {words}" if words else "_files"
    return f"({words})" if words else ""


# fish

_FISH = r"""
    # Completion of PROGRAM for fish. Written by tools/generate.py: edits are lost.

    # Whether $argv[1] is the command on the line, empty where there is none yet, and none of the options that follow
    # it there is given already. They come after a = if they take a value, which may be what is being completed.
    function __PROGRAM_at
        set -l tokens (commandline -opc)
        set -e tokens[1]
        set -l command ''
        set -l seen
        set -l value_follows no
        while set -q tokens[1]
            set -l token $tokens[1]
            set -e tokens[1]
            set -a seen $token
            if test $value_follows = yes
                set value_follows no
            else if string match -q -- '-*' $token
                contains -- $token @valued@
                and set value_follows yes
            else
                set command $token
                set seen $tokens
                break
            end
        end

        test "$command" = "$argv[1]"
        or return 1
        set -l value_ahead no
        for option in $argv[2..]
            if test $option = '='
                set value_ahead yes
                continue
            end
            # A short option may stand behind flags, and its value behind it.
            set -l given "^$option"'(=|$)'
            set -l last "^$option"'$'
            if not string match -q -- '--*' $option
                set given '^-[@flags@]*'(string sub -s 2 -- $option)
                set last "$given"'$'
            end
            if test $value_ahead = yes
                and string match -qr -- $last $seen[-1]
                set -e seen[-1]
            end
            string match -qr -- $given $seen
            and return 1
        end
        return 0
    end

    complete -c PROGRAM -f
    @commands@

    @options@
"""


def fish(program: Program) -> str:
    """The script for fish."""
    commands = [
        f"complete -c {PROGRAM} -n '__{PROGRAM}_at \"\"' -a {_fish_quoted(command.name)}"
        f" -d {_fish_quoted(command.summary)}"
        for command in program.commands
    ]
    lines: list[str] = []
    for command in program.all:
        if lines:
            lines.append("")
        if fill := _fish_values(command.values):
            lines.append(f"complete -c {PROGRAM} -n '__{PROGRAM}_at {command.name}' {fill}")
        lines += [
            f"complete -c {PROGRAM} {line}" for option in command.options for line in _fish_option(command, option)
        ]
    every = [option for command in program.all for option in command.options]
    return _filled(
        _FISH,
        valued=" ".join(name for option in program.group.options if option.metavar for name in option.names),
        flags="".join(
            sorted({name[1] for one in every if not one.metavar for name in one.all_names if len(name) == 2})
        ),
        commands="\n".join(commands),
        options="\n".join(lines),
    )


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish_option(command: Command, option: Option) -> list[str]:
    """A line for the names that turn it on, and one for those that turn it off."""
    unless = () if option.repeatable else ("=", *option.names) if option.metavar else option.all_names
    condition = _fish_quoted(" ".join((f"__{PROGRAM}_at", command.name or '""', *unless)))
    lines = []
    for names in filter(None, (option.names, option.off_names)):
        flags = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in names]
        if option.metavar:
            flags.append(f"-r {_fish_values(option.values) or '-f'}")
        lines.append(f"-n {condition} {' '.join(flags)} -d {_fish_quoted(option.describe(names[0]))}")
    return lines


def _fish_values(values: Values) -> str:
    if values.directories:
        return "-f -a '(__fish_complete_directories)'"
    words = f"-a {_fish_quoted(' '.join(values.words))}" if values.words else ""
    return f"-F {words}".rstrip() if values.files else f"-f {words}" if words else ""
