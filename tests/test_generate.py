"""The generated files: completions in the shells themselves, man pages as they are rendered, and the drift check."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shlex
import shutil
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path

import click
import pytest

from tools import completions, generate, manpages
from tools.tree import GenerateError, Values, contexts, first_sentence, read_program
from xcli.cli import cli
from xcli.cli.sections import INPUT, Command, option
from xcli.errors import ExitCode

PROGRAM = read_program(cli)
TOOL = Path(generate.__file__)
NASTY = r"""it's "q" $HOME $(id) a:b [br] {c,d} (p) *? \n b\\s 100% <x> & | ~ ^ ! # ; é ü -- .d 'q"""


def needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def nasty_tree():
    """A command whose every text is full of what shells and roff take for their own."""

    @click.group(help=NASTY)
    @option("-v", "--verbose", section=INPUT, is_flag=True, help=NASTY)
    def top(): ...

    @top.command(
        cls=Command,
        short_help=NASTY,
        help=f"{NASTY}\n\n.dot\n\n'quote\n\n\b\n.verbatim\n'also\n\\e  -x\n",
    )
    @option("--nasty", section=INPUT, metavar="a|B:[C]", help=NASTY)
    @option("--flag/--no-flag", section=INPUT, help=NASTY)
    @option("--secret", section=INPUT, hidden=True)
    def run(): ...

    @top.command(cls=Command, hidden=True)
    def hidden(): ...

    return top


NASTY_PROGRAM = read_program(nasty_tree())


@pytest.fixture
def root(tmp_path):
    """A directory with everything generated."""
    assert generate.main(["--root", str(tmp_path)]) == 0
    return tmp_path


def files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# Writing and checking


def test_check_passes_on_what_was_just_written_and_writing_again_changes_nothing(root, capsys):
    before = files(root)
    capsys.readouterr()
    assert generate.main(["--check", "--root", str(root)]) == 0
    assert generate.main(["--root", str(root)]) == 0
    assert capsys.readouterr().out == ""
    assert files(root) == before


@pytest.mark.parametrize(
    "name", ["docs/cli.md", "completions/xception.bash", "completions/_xception", "completions/xception.fish",
             "man/xception.1", "man/xception-classify.1"]
)  # fmt: skip
def test_check_finds_a_changed_line_and_shows_it(root, capsys, name):
    path = root / name
    good = path.read_bytes()
    path.write_bytes(good.replace(b"--debug", b"--bedug").replace(rb"\-\-debug", rb"\-\-bedug"))
    assert path.read_bytes() != good
    capsys.readouterr()
    assert generate.main(["--check", "--root", str(root)]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith(f"{name}: drifted\n@@")
    assert re.search(r"^-.*bedug", shown, re.MULTILINE)
    assert re.search(r"^\+.*debug", shown, re.MULTILINE)
    assert b"bedug" in path.read_bytes()
    assert generate.main(["--root", str(root)]) == 0
    assert path.read_bytes() == good


def test_check_compares_bytes(root):
    path = root / "man/xception.1"
    good = path.read_bytes()
    for bad in (good + b"\n", good[:-1], good.replace(b"\n", b"\r\n"), b"\xff" + good, b""):
        path.write_bytes(bad)
        assert generate.main(["--check", "--root", str(root)]) == 1, bad[:20]


def test_a_long_difference_is_cut(root, capsys):
    (root / "completions/_xception").write_text("x\n" * 100)
    capsys.readouterr()
    assert generate.main(["--check", "--root", str(root)]) == 1
    assert re.search(r"^\.\.\. and \d+ lines more$", shown := capsys.readouterr().out, re.MULTILINE), shown
    assert len(shown.splitlines()) < 30


def test_check_finds_missing_and_stale_files_and_writing_mends_them(root, capsys):
    before = files(root)
    (root / "man/xception-info.1").unlink()
    (root / "man/xception-gone.1").write_text("")
    (root / "man/other.1").write_text("not ours")
    capsys.readouterr()
    assert generate.main(["--check", "--root", str(root)]) == 1
    shown = capsys.readouterr().out
    assert "man/xception-info.1: missing\n" in shown
    assert "man/xception-gone.1: stale" in shown
    assert "other" not in shown
    assert generate.main(["--root", str(root)]) == 0
    assert files(root) == before | {"man/other.1": b"not ours"}


def test_output_depends_on_nothing_around_and_imports_nothing_heavy(root, tmp_path):
    env = {
        "PATH": os.environ["PATH"], "HOME": "/nowhere", "COLUMNS": "40", "LINES": "5", "NO_COLOR": "1", "LANG": "C",
        "LC_ALL": "C", "TERM": "dumb", "FORCE_COLOR": "1", "PYTHONUTF8": "0", "PYTHONHASHSEED": "7",
        "XCEPTION_DEBUG": "1", "XCEPTION_CLASSIFY_TOP": "9", "XCEPTION_INFO_POOLING": "max",
        "XCEPTION_WEIGHTS_DIR": "/somewhere", "XCEPTION_CLASSIFY_HELP": "1",
    }  # fmt: skip
    other = tmp_path / "other"
    other.mkdir()
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['generate.py', '--root', {str(other)!r}]\n"
        "try:\n"
        f"    runpy.run_path({str(TOOL)!r}, run_name='__main__')\n"
        "except SystemExit as leaving:\n"
        "    assert leaving.code == 0\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'PIL', 'pyarrow', 'h5py', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = {name: data for name, data in files(root).items() if not name.startswith("other/")}
    assert files(other) == expected


def test_runs_as_a_script_from_any_directory(root, tmp_path):
    run = [sys.executable, str(TOOL), "--check", "--root", str(root)]
    assert subprocess.run(run, cwd=tmp_path).returncode == 0
    (root / "man/xception.1").unlink()
    done = subprocess.run(run, cwd="/", capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[0]) == (1, "man/xception.1: missing")


def test_texts_are_tidy():
    for name, text in generate.outputs(cli, Path("/nonexistent")).items():
        assert text.endswith("\n"), name
        assert not text.endswith("\n\n"), name
        assert not [line for line in text.split("\n") if line != line.rstrip()], name


# docs/cli.md


def test_the_reference_has_every_command_and_option_and_marks_nothing_up():
    text = generate.reference(cli)
    sections = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])
    assert list(sections) == [command.usage_name for command in PROGRAM.all]
    for command in PROGRAM.all:
        for one in command.options:
            assert re.search(rf"^- `[^`]*{re.escape(one.long_name)}\b", sections[command.usage_name], re.MULTILINE)
    assert "\\\\xNN" in text
    nasty = generate.reference(nasty_tree())
    assert "secret" not in nasty
    assert "hidden" not in nasty
    assert r"a:b \[br\] {c,d} (p) \*?" in nasty
    assert "```text\n.verbatim\n'also\n\\e  -x\n```" in nasty


# The tree


def test_every_visible_command_has_a_page_and_hidden_ones_have_none(tmp_path):
    names = set(generate.outputs(cli, tmp_path))
    assert {f"man/xception-{name}.1" for name, command in cli.commands.items() if not command.hidden} < names
    texts = generate.outputs(nasty_tree(), tmp_path)
    assert {name for name in texts if name.startswith("man/")} == {"man/xception.1", "man/xception-run.1"}
    assert not [name for name, text in texts.items() if "hidden" in text or "secret" in text]


def test_what_is_known_of_values_follows_from_types_and_metavars():
    classify = next(command for command in PROGRAM.commands if command.name == "classify")
    found = {one.long_name: one.values for one in classify.options}
    assert found["--weights"] == Values(("imagenet", "none"), files=True)
    assert found["--weights-dir"] == Values(directories=True)
    assert found["--device"] == Values(("auto", "cpu", "gpu"))
    assert found["--batch-size"] == Values(("auto",))
    assert found["--output"] == found["--model"] == found["--log-file"] == Values(files=True)
    assert found["--resize"] == Values(("crop", "squash", "pad"))
    assert found["--limit"] == found["--shard"] == found["--include"] == Values()
    assert (classify.arguments, classify.values) == (("[SOURCE]...",), Values(files=True))


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Of it.", "Of it"),
        ("The table; - is out. Without it: a list.", "The table; - is out"),
        ("A .keras file with it. And more", "A .keras file with it"),
        ("Filter [default: x, or\n y].", "Filter"),
        ("[default: from FILE]", "default: from FILE"),
        ("", ""),
    ],
)
def test_first_sentence(text, first):
    assert first_sentence(text) == first


def test_trees_that_the_generators_do_not_know_are_refused():
    @click.group()
    def top(): ...

    for bad, complaint in [
        (click.Option(["-long"]), "neither -x nor --word"),
        (click.Option(["--pair"], nargs=2), "takes 2 values"),
    ]:
        top.params[:] = [bad]
        with pytest.raises(GenerateError, match=complaint):
            read_program(top)
    top.params.clear()
    top.add_command(click.Group("inner"))
    with pytest.raises(GenerateError, match="'inner' is a group in the group"):
        read_program(top)


def test_variables_in_the_pages_are_those_that_click_reads(monkeypatch):
    for name, ctx in contexts(cli).items():
        described = next(command for command in PROGRAM.all if command.name == name)
        parameters = [one for one in ctx.command.get_params(ctx) if isinstance(one, click.Option) and not one.hidden]
        for read, parameter in zip(described.options, parameters, strict=True):
            for variable in (*read.variables, *filter(None, [read.rule_variable])):
                monkeypatch.setenv(variable, "value")
                assert parameter.resolve_envvar_value(ctx) == "value", variable
                monkeypatch.delenv(variable)


# bash


BASH = r"""
set -u
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_xception
((${#COMPREPLY[@]})) && printf '%s\0' "${COMPREPLY[@]}"
exit 0
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """Directory of the scripts of the true tree; nasty/ in it has those of the other one."""
    directory = tmp_path_factory.mktemp("scripts")
    (directory / "nasty").mkdir()
    for program, place in ((PROGRAM, directory), (NASTY_PROGRAM, directory / "nasty")):
        (place / "xception.bash").write_text(completions.bash(program))
        (place / "_xception").write_text(completions.zsh(program))
        (place / "xception.fish").write_text(completions.fish(program))
    return directory


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A working directory with names that shells stumble over."""
    directory = tmp_path_factory.mktemp("photos")
    for name in ("my cat.jpg", "my dog.jpg", "a$b.jpg", "model.keras", "im.h5"):
        (directory / name).touch()
    (directory / "sub dir").mkdir()
    (directory / "sub dir" / "x y.png").touch()
    return directory


EVERYTHING = {"my cat.jpg", "my dog.jpg", "a$b.jpg", "model.keras", "im.h5", "sub dir"}


def bash_completions(script, words, cwd):
    done = subprocess.run(
        ["bash", "--norc", "--noprofile", "-c", BASH, "bash", str(script), *words], cwd=cwd, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().split("\0")[:-1]


SHELL_CASES = [
    # Line up to the cursor, and what is offered.
    ("xception cl", {"classify"}),
    ("xception ", {command.name for command in PROGRAM.commands}),
    ("xception -v --log-file classify fea", {"features"}),
    ("xception -qv --log-f", {"--log-file"}),
    ("xception --debug --deb", set()),
    ("xception bogus --", set()),
    ("xception -v classify --verb", {"--verbose"}),
    ("xception classify --interp", {"--interpolation"}),
    ("xception classify --format ", {"csv", "parquet", "jsonl"}),
    ("xception classify --format p", {"parquet"}),
    ("xception classify --precision bf", {"bfloat16"}),
    ("xception classify --batch-size ", {"auto"}),
    ("xception classify --device ", {"auto", "cpu", "gpu"}),
    ("xception classify --top ", set()),
    ("xception classify ", EVERYTHING),
    ("xception classify my", {"my cat.jpg", "my dog.jpg"}),
    ("xception classify 'my cat.jpg' m", {"my cat.jpg", "my dog.jpg", "model.keras"}),
    ("xception classify 'sub dir/'", {"sub dir/x y.png"}),
    ("xception classify -vo m", {"my cat.jpg", "my dog.jpg", "model.keras"}),
    ("xception classify --weights im", {"imagenet", "im.h5"}),
    ("xception classify --weights ", EVERYTHING | {"imagenet", "none"}),
    ("xception classify --weights-dir ", {"sub dir"}),
    ("xception --log-file m", {"my cat.jpg", "my dog.jpg", "model.keras"}),
    ("xception classify --overwrite --over", set()),
    ("xception classify -o x --outp", set()),
    ("xception classify -ox --outp", set()),
    ("xception classify -vq --qui", set()),
    ("xception classify --include x --include y --inclu", {"--include"}),
    ("xception classify --format=csv --forma", set()),
    ("xception -q classify --quie", {"--quiet"}),
    ("xception classify -v --verb", {"--verbose"}),
    ("xception info --no-inc", {"--no-include-top"}),
    ("xception info --include-t", {"--include-top"}),
    ("xception info --no-include-top --include-t", set()),
    ("xception info classify --layer", {"--layers"}),
    ("xception classify -- --verb", set()),
]

EQUALS_CASES = [
    ("--format", "", {"csv", "parquet", "jsonl"}),
    ("--format", "js", {"jsonl"}),
    ("--weights", "im", {"imagenet", "im.h5"}),
    ("--weights-dir", "s", {"sub dir"}),
    ("--output", "my", {"my cat.jpg", "my dog.jpg"}),
]


def words_of(line):
    return shlex.split(line) + ([""] if line.endswith(" ") else [])


@pytest.mark.parametrize(("line", "offered"), SHELL_CASES)
def test_bash_offers(scripts, photos, line, offered):
    found = bash_completions(scripts / "xception.bash", words_of(line), photos)
    assert sorted(found) == sorted(offered)


@pytest.mark.parametrize(("name", "value", "offered"), EQUALS_CASES)
def test_bash_offers_values_after_an_equals_sign(scripts, photos, name, value, offered):
    # Readline makes the sign a word of its own, unless the user has taken it out of COMP_WORDBREAKS.
    split = ["xception", "classify", name, "=", *filter(None, [value])]
    assert set(bash_completions(scripts / "xception.bash", split, photos)) == offered
    whole = ["xception", "classify", f"{name}={value}"]
    assert set(bash_completions(scripts / "xception.bash", whole, photos)) == {f"{name}={one}" for one in offered}


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["xception", "--log-file", "a", ":", "b", "cl"], {"classify"}),
        (["xception", "--log-file", "=", "a", "cl"], {"classify"}),
        (["xception", "classify", "--format", "=", "csv", "--forma"], set()),
        (["xception", "classify", "a", ":"], set()),
        (["xception", "classify", "a", ":", "m"], set()),
    ],
)
def test_bash_knows_words_that_readline_has_cut(scripts, photos, words, offered):
    assert set(bash_completions(scripts / "xception.bash", words, photos)) == offered


@pytest.mark.parametrize("command", PROGRAM.all, ids=lambda command: command.page_name)
def test_bash_offers_every_option(scripts, photos, command):
    words = [*command.usage_name.split(), "-"]
    expected = [name for one in command.options for name in one.all_names]
    assert sorted(bash_completions(scripts / "xception.bash", words, photos)) == sorted(expected)
    assert expected


class Terminal:
    """A program on a pseudo-terminal that is wide enough for any description."""

    def __init__(self, command, cwd, env):
        self.screen, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 400, 0, 0))
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={"PATH": os.environ["PATH"], "TERM": "dumb", **env},
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
        )
        os.close(inner)
        self.shown = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.screen)

    def send(self, text):
        os.write(self.screen, text.encode())

    def wait_for(self, pattern, seconds=15):
        """Reads until the pattern is on the screen; an empty pattern waits for the end."""
        deadline = time.monotonic() + seconds
        while not (pattern and (found := re.search(pattern, self.shown))):
            ready, _, _ = select.select([self.screen], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"waited for {pattern!r}, got {self.shown!r}"
            try:
                data = os.read(self.screen, 65536)
            except OSError:
                data = b""
            if not data:
                assert not pattern, f"ended before {pattern!r}: {self.shown!r}"
                return None
            self.shown += data
        self.shown = b""
        return found


def test_bash_quotes_file_names_on_a_terminal(scripts, photos, tmp_path):
    setup = tmp_path / "bashrc"
    setup.write_text(
        f"source {shlex.quote(str(scripts / 'xception.bash'))}\n"
        "bind 'set enable-bracketed-paste off' 'set bell-style none' 2>/dev/null\n"
        "xception() { printf 'ARGS'; printf '<%s>' \"$@\"; printf 'END\\n'; }\n"
        "PS1='READY '\n"
    )
    shell = ["bash", "--noprofile", "--rcfile", str(setup), "-i"]
    with Terminal(shell, photos, {"HISTFILE": "", "INPUTRC": "/dev/null"}) as terminal:
        terminal.wait_for(rb"READY ")
        for typed, arguments in [
            ("class\tmy\\ c\t", b"<classify><my cat.jpg>"),
            ('classify "my d\t', b"<classify><my dog.jpg>"),
            ("classify su\tx\t", b"<classify><sub dir/x y.png>"),
            ("classify --output=my\\ c\t", b"<classify><--output=my cat.jpg>"),
            ("classify --weights=imag\t", b"<classify><--weights=imagenet>"),
            ("classify a\\$\t", b"<classify><a$b.jpg>"),
        ]:
            terminal.send(f"xception {typed}\n")
            found = terminal.wait_for(rb"ARGS(<.*?>)END\r\n")
            assert found[1] == arguments


def test_bash_syntax(scripts):
    for script in (scripts / "xception.bash", scripts / "nasty/xception.bash"):
        done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


# zsh


ZSH = r"""
fpath=($SCRIPTS $fpath)
autoload -Uz compinit
compinit -D -u
# Notes what is offered, with descriptions, and lets it be offered; calls that only fill arrays are not offers.
compadd() {
  if (( ! ${@[(I)-[AOD]*]} )); then
    local -a matches
    local at=${@[(I)-*d]}
    builtin compadd -O matches "$@"
    print -rl -- ${${(Q)matches}/#/match:} >> $NOTES
    (( at )) && print -rl -- ${${(P)${@[at+1]}}/#/text:} >> $NOTES
  fi
  builtin compadd "$@"
}
zle-line-init() {
  local line
  for line in "${(@f)LINES_TO_TRY}"; do
    print -r -- "line:$line" >> $NOTES
    BUFFER=$line CURSOR=$#line
    zle complete-word
    print -r -- "buffer:$BUFFER" >> $NOTES
  done
  exit
}
zle -N zle-line-init
"""


def zsh_completions(scripts, photos, tmp_path, lines):
    """For each line: the matches, the texts in the menu, and the line after completion."""
    (tmp_path / ".zshrc").write_text(ZSH)
    notes = tmp_path / "notes"
    env = {
        "ZDOTDIR": str(tmp_path), "SCRIPTS": str(scripts), "NOTES": str(notes), "LINES_TO_TRY": "\n".join(lines),
        "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    with Terminal(["zsh", "-d", "-i"], photos, env) as terminal:
        terminal.wait_for(b"")
    found = []
    for note in notes.read_text().splitlines():
        kind, _, text = note.partition(":")
        if kind == "line":
            found.append((set(), [], []))
        else:
            matches, texts, buffers = found[-1]
            if kind == "match" and text:
                matches.add(text)
            elif kind != "match":
                (texts if kind == "text" else buffers).append(text)
    return found


@needs("zsh")
def test_zsh_offers(scripts, photos, tmp_path):
    # Quoted names are left to _files, which is a part of zsh.
    cases = [(line, offered) for line, offered in SHELL_CASES if "'" not in line]
    cases += [(f"xception classify {name}={value}", offered) for name, value, offered in EQUALS_CASES]
    lines = [line for line, _ in cases]
    found = zsh_completions(scripts, photos, tmp_path, lines)
    wrong = {
        line: (matches, offered)
        for (line, offered), (matches, _, _) in zip(cases, found, strict=True)
        if matches != offered
    }
    assert not wrong


@needs("zsh")
def test_zsh_shows_descriptions_as_they_were_written(scripts, photos, tmp_path):
    found = zsh_completions(scripts / "nasty", photos, tmp_path, ["xception r", "xception run --n", "xception --v"])
    for (matches, texts, _), expected in zip(found, ["run", "--nasty", "--verbose"], strict=True):
        assert expected in matches
        assert f"{expected} -- {NASTY}" in [re.sub(r" +-- ", " -- ", text, count=1).rstrip() for text in texts]


@needs("zsh")
def test_zsh_offers_every_option(scripts, photos, tmp_path):
    found = zsh_completions(
        scripts, photos, tmp_path, [f"{one.usage_name} {dash}" for one in PROGRAM.all for dash in ("-", "--")]
    )
    for command in PROGRAM.all:
        offered = found.pop(0)[0] | found.pop(0)[0]
        assert {name for one in command.options for name in one.all_names} == offered


@needs("zsh")
def test_zsh_syntax(scripts):
    for script in (scripts / "_xception", scripts / "nasty/_xception"):
        done = subprocess.run(["zsh", "-n", script], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


# fish


def fish_completions(script, lines, cwd, home):
    """For each line, the matches and their descriptions."""
    program = f"source {shlex.quote(str(script))}\nfor line in $argv\n    echo line:\n    complete -C $line\nend\n"
    done = subprocess.run(
        ["fish", "--no-config", "-c", program, *lines],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [dict(row.partition("\t")[::2] for row in block.splitlines()) for block in done.stdout.split("line:\n")[1:]]


@needs("fish")
def test_fish_offers(scripts, photos, tmp_path):
    cases = list(SHELL_CASES)
    cases += [
        (f"xception classify {name}={value}", {f"{name}={one}" for one in offered})
        for name, value, offered in EQUALS_CASES
    ]
    found = fish_completions(scripts / "xception.fish", [line for line, _ in cases], photos, tmp_path)
    wrong = {}
    for (line, offered), matches in zip(cases, found, strict=True):
        # Fish marks directories, and falls back on names that hold what was typed where none begins with it.
        begins = {name.rstrip("/") for name in matches if name.startswith(words_of(line)[-1])}
        if begins != offered:
            wrong[line] = (begins, offered)
    assert not wrong


@needs("fish")
def test_fish_shows_descriptions_as_they_were_written(scripts, photos, tmp_path):
    lines = ["xception r", "xception run --na", "xception --verb"]
    found = fish_completions(scripts / "nasty/xception.fish", lines, photos, tmp_path)
    assert found == [{"run": NASTY}, {"--nasty": NASTY}, {"--verbose": NASTY}]


@needs("fish")
def test_fish_offers_every_option(scripts, photos, tmp_path):
    found = fish_completions(
        scripts / "xception.fish", [f"{command.usage_name} -" for command in PROGRAM.all], photos, tmp_path
    )
    for command, matches in zip(PROGRAM.all, found, strict=True):
        assert {name for one in command.options for name in one.all_names} == set(matches)
        assert matches["--debug"] == "Show tracebacks"


@needs("fish")
def test_fish_syntax(scripts):
    for script in (scripts / "xception.fish", scripts / "nasty/xception.fish"):
        done = subprocess.run(["fish", "--no-config", "-n", script], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


# What holds without the shells, too


def test_zsh_and_fish_scripts_name_every_option_with_its_description():
    zsh, fish = completions.zsh(PROGRAM), completions.fish(PROGRAM)
    for command in PROGRAM.commands:
        specs = zsh.partition(f"_xception_command_{command.name}()")[2].partition("\n}\n")[0]
        lines = [line for line in fish.splitlines() if f"'__xception_at {command.name}" in line]
        for one in command.options:
            for name in one.all_names:
                described = one.describe(name)
                assert re.search(rf"[*)']{name}[=+]?\[", specs), name
                flag = f" -l {name[2:]} " if name.startswith("--") else f" -s {name[1:]} "
                (line,) = (line for line in lines if flag in line)
                assert described.replace("\\", "\\\\").replace("'", "\\'") in line


# Man pages


def rendered(page, tmp_path, command):
    path = tmp_path / "page.1"
    path.write_text(page)
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, env={**os.environ, "GROFF_SGR": ""})
    assert (done.returncode, done.stderr) == (0, "")
    return re.sub(r".\x08|\x1b\[[\d;]*m", "", done.stdout)


PAGES = [(program, command) for program in (PROGRAM, NASTY_PROGRAM) for command in program.all]
PAGE_IDS = [f"{'true' if program is PROGRAM else 'nasty'}-{command.page_name}" for program, command in PAGES]
GROFF = ["groff", "-man", "-ww", "-Tutf8", "-rLL=200n"]


@needs("groff")
@pytest.mark.parametrize(("program", "command"), PAGES, ids=PAGE_IDS)
def test_groff_renders_without_warnings_and_shows_every_option(tmp_path, program, command):
    text = rendered(manpages.page(program, command), tmp_path, GROFF)
    for one in command.options:
        heading = f"       {', '.join(one.all_names)}" + (f" {one.metavar}" if one.metavar else "")
        assert re.search(rf"^{re.escape(heading)}(\s|$)", text, re.MULTILINE), heading
        assert one.help.replace("`", "") in re.sub(r"\s+", " ", text)
    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "ENVIRONMENT", "EXIT STATUS", "SEE ALSO"):
        assert f"\n{section}\n" in text


@needs("mandoc")
@pytest.mark.parametrize(("program", "command"), PAGES, ids=PAGE_IDS)
def test_mandoc_finds_nothing_but_the_missing_date(tmp_path, program, command):
    path = tmp_path / "page.1"
    path.write_text(manpages.page(program, command))
    done = subprocess.run(["mandoc", "-T", "lint", str(path)], capture_output=True, text=True)
    # The date is left out for the sake of the check for drift; a long word or verbatim line is no mistake.
    expected = re.compile("missing date|input text line longer")
    assert [line for line in done.stdout.splitlines() if not expected.search(line)] == []


@needs("groff")
def test_groff_shows_texts_as_they_were_written(tmp_path):
    page = manpages.page(NASTY_PROGRAM, NASTY_PROGRAM.commands[0])
    text = rendered(page, tmp_path, GROFF)
    assert f"xception-run - {NASTY}\n" in text
    assert f"--nasty a|B:[C]\n              {NASTY}\n" in text
    assert "\n       .dot\n\n       'quote\n\n           .verbatim\n           'also\n           \\e  -x\n" in text


@needs("groff")
def test_groff_does_not_take_a_word_at_a_line_start_for_a_request(tmp_path):
    help_text = " ".join(["word"] * 13 + [".keras file 'quoted"] * 12)
    command = replace(NASTY_PROGRAM.commands[0], help=help_text)
    page = manpages.page(NASTY_PROGRAM, command)
    assert re.search(r"^\\&\.keras", page, re.MULTILINE), "the case is not in the page"
    assert help_text in re.sub(r"\s+", " ", rendered(page, tmp_path, GROFF))


@needs("groff")
def test_groff_does_not_take_a_full_stop_at_a_line_end_for_the_end_of_a_sentence(tmp_path):
    command = replace(NASTY_PROGRAM.commands[0], help="one etc. and more " * 30)
    page = manpages.page(NASTY_PROGRAM, command)
    assert re.search(r"etc\.\\&$", page, re.MULTILINE), "the case is not in the page"
    assert "etc.  " not in rendered(page, tmp_path, GROFF)


def test_characters_that_roff_would_change_are_written_in_its_own_way():
    assert manpages.escaped("-\\'`^~\"é a.") == r"\-\e\(aq\(ga\(ha\(ti\(dq\[u00E9] a."


def test_pages_are_ascii_without_a_request_of_their_own_making():
    requests = {"TH", "SH", "SS", "TP", "PP", "RS", "RE", "nf", "fi", "nh", "ad", '\\"'}
    for program, command in PAGES:
        page = manpages.page(program, command)
        assert page.isascii()
        assert {re.match(r".(\\\"|\w*)", line)[1] for line in page.splitlines() if line[:1] in ".'"} <= requests
        assert not re.search(r"(?<!\\)-", page)


@pytest.mark.parametrize("command", PROGRAM.all, ids=lambda command: command.page_name)
def test_pages_hold_every_option_under_its_heading(command):
    page = manpages.page(PROGRAM, command)
    assert r"\fB\-h\fR, \fB\-\-help\fR" in page
    for section, options in command.sections().items():
        part = page.partition(f"\n.SS {section}\n" if len(command.sections()) > 1 else "\n.SH OPTIONS\n")[2]
        part = re.split(r"^\.S[SH] ", part, flags=re.MULTILINE)[0]
        for one in options:
            for name in one.all_names:
                assert rf"\fB{manpages.escaped(name)}\fR" in part, (section, name)
    for other in PROGRAM.all:
        assert (f"{manpages.bold(other.page_name)}(1)" in page) == (other != command)


def test_exit_codes_without_words_are_an_error(monkeypatch):
    page = manpages.page(PROGRAM, PROGRAM.group)
    for code in ExitCode:
        assert f".TP\n\\fB{int(code)}\\fR\n" in page
    monkeypatch.delitem(manpages.EXIT_STATUS, ExitCode.OUTPUT)
    with pytest.raises(GenerateError, match="do not agree"):
        manpages.page(PROGRAM, PROGRAM.group)


def test_every_command_has_examples_that_it_understands():
    assert set(manpages.EXAMPLES) <= {command.name for command in PROGRAM.commands}, (
        "examples of a command that is gone"
    )
    for command in PROGRAM.commands:
        examples = manpages.EXAMPLES.get(command.name, [])
        assert 3 <= len(examples) <= 5, f"give {command.name} three to five examples in tools/manpages.py"
        for text, typed in examples:
            assert text.endswith(":")
            words = shlex.split(typed)
            words = words[words.index("xception") :]
            words = words[: words.index("|")] if "|" in words else words
            assert words[1] == command.name
            cli.commands[command.name].make_context(command.name, words[2:])
            assert manpages.bold(typed) in manpages.page(PROGRAM, command)


def test_examples_in_the_help_are_moved_to_their_section():
    page = manpages.page(PROGRAM, PROGRAM.group)
    description, examples = page.partition(".SH EXAMPLES")[::2]
    assert "labels.csv" not in description
    assert r"\fBxception classify ./photos \-o labels.csv\fR" in examples
