"""Completion by Tab, in the shells themselves with the files of completions/, and what a Tab costs."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
import termios
import time
from fcntl import ioctl
from pathlib import Path

import click
import pytest

from tests.cli.conftest import run_process
from xcli.cli import PROGRAM, cli
from xcli.cli.completion import VARIABLE, BashComplete

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = ROOT / "completions"

CASES = [
    # What is typed before Tab, and the last argument after it.
    ("class", "classify"),
    ("-v --log-file classify fea", "features"),
    ("--log-file a:b clas", "classify"),
    ("classify --interp", "--interpolation"),
    ("info --no-inc", "--no-include-top"),
    ("classify --precision bf", "bfloat16"),
    ("classify --format=js", "--format=jsonl"),
    ("classify my\\ c", "my cat.jpg"),
    ('classify "my d', "my dog.jpg"),
    ("classify a\\$", "a$b.jpg"),
    ("classify sub\\ dir/x", "sub dir/x y.png"),
    ("classify -o mod", "model.keras"),
    ("classify --output=my\\ c", "--output=my cat.jpg"),
    ("classify --weights imag", "imagenet"),
    ("classify --weights mod", "model.keras"),
    ("classify --weights=imag", "--weights=imagenet"),
    ("classify --weights=mod", "--weights=model.keras"),
    ("classify --weights-dir s", "sub dir/"),
    ("classify --weights-dir=s", "--weights-dir=sub dir/"),
]


def needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A working directory with names that shells stumble over."""
    directory = tmp_path_factory.mktemp("photos")
    for name in ("my cat.jpg", "my dog.jpg", "a$b.jpg", "model.keras"):
        (directory / name).touch()
    (directory / "sub dir").mkdir()
    (directory / "sub dir" / "x y.png").touch()
    return directory


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Variables of a shell whose home is empty, and which finds this program, in its own Python, first of all."""
    home = tmp_path_factory.mktemp("home")
    (home / "bin").mkdir()
    program = home / "bin" / PROGRAM
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m xcli "$@"\n')
    program.chmod(0o755)
    path = f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"
    known = {"HOME": str(home), "ZDOTDIR": str(home), "HISTFILE": "", "INPUTRC": "/dev/null"}
    return {"PATH": path, "PYTHONPATH": str(ROOT), "TERM": "dumb", "LC_ALL": "C.UTF-8", **known}


class Terminal:
    """A program on a pseudo-terminal."""

    def __init__(self, command, cwd, env):
        self.screen, inner = pty.openpty()
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),
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

    def wait_for(self, pattern, seconds=30):
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
        self.shown = self.shown[found.end() :]
        return found


BASH = f"""
source {shlex.quote(str(SCRIPTS / "xception.bash"))}
bind 'set enable-bracketed-paste off' 'set bell-style none' 2>/dev/null
{PROGRAM}() {{ printf 'ARGS'; printf '<%s>' "$@"; printf 'END\\n'; }}
PS1='READY '
"""


def test_bash_completes_what_is_typed(environment, photos, tmp_path):
    (tmp_path / "bashrc").write_text(BASH)
    shell = ["bash", "--noprofile", "--rcfile", str(tmp_path / "bashrc"), "-i"]
    with Terminal(shell, photos, environment) as terminal:
        for typed, expected in CASES:
            terminal.wait_for(rb"READY ")
            terminal.send(f"{PROGRAM} {typed}\t\n")
            arguments = terminal.wait_for(rb"ARGS<(.*?)>END\r\n")[1].decode()
            assert arguments.split("><")[-1] == expected, typed


ZSH = r"""
fpath=($SCRIPTS $fpath)
autoload -Uz compinit
compinit -D -u
todo=("${(@f)LINES_TO_TRY}")
zle-line-init() {
  (( $#todo )) || exit
  BUFFER=$todo[1] CURSOR=$#BUFFER
  shift todo
  zle complete-word
  print -r -- "$BUFFER" >> $NOTES
  BUFFER=
  zle accept-line
}
zle -N zle-line-init
"""


@needs("zsh")
def test_zsh_completes_what_is_typed(environment, photos, tmp_path):
    (Path(environment["HOME"]) / ".zshrc").write_text(ZSH)
    notes = tmp_path / "notes"
    lines = "\n".join(f"{PROGRAM} {typed}" for typed, _ in CASES)
    env = {**environment, "SCRIPTS": str(SCRIPTS), "NOTES": str(notes), "LINES_TO_TRY": lines}
    with Terminal(["zsh", "-d", "-i"], photos, env) as terminal:
        terminal.wait_for(b"", seconds=120)
    for (typed, expected), line in zip(CASES, notes.read_text().splitlines(), strict=True):
        assert shlex.split(line)[-1] == expected, typed


@needs("fish")
def test_fish_completes_what_is_typed_and_describes_it(environment, photos):
    script = f"source {shlex.quote(str(SCRIPTS / 'xception.fish'))}; for l in $argv; echo line:; complete -C $l; end"
    lines = [f"{PROGRAM} {typed}" for typed, _ in CASES]
    shell = ["fish", "--no-config", "-c", script, *lines]
    done = subprocess.run(shell, cwd=photos, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for (typed, expected), block in zip(CASES, done.stdout.split("line:\n")[1:], strict=True):
        name, _, description = block.rstrip("\n").partition("\t")
        assert name == expected, typed
        if typed == "class":
            assert description == cli.commands["classify"].get_short_help_str(1000)


@needs("zsh")
@needs("fish")
def test_the_scripts_are_right_for_their_shells():
    for shell, script in (("bash", "xception.bash"), ("zsh", "_xception"), ("fish", "xception.fish")):
        done = subprocess.run([shell, "-n", SCRIPTS / script], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), shell


# What is offered, in any shell


def offered(line):
    words = shlex.split(line) + ([] if line[-1:].strip() else [""])
    items = BashComplete(cli, {}, PROGRAM, VARIABLE).get_completions(words[:-1], words[-1])
    assert len({item.value for item in items}) == len(items)
    return {f"<{item.type}>" if item.type != "plain" else item.value for item in items}


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("", set(cli.commands)),
        ("--debug --deb", set()),
        ("-qv --log-f", {"--log-file"}),
        ("-v classify --verb", {"--verbose"}),
        ("classify --overwrite --over", set()),
        ("classify -o x --outp", set()),
        ("classify --include x --include y --inclu", {"--include", "--include-system"}),
        ("classify --format=csv --forma", set()),
        ("info classify --layer", {"--layers"}),
        ("info --no-include-top --include-t", set()),
        ("classify ", {"<file>"}),
        ("classify -- --verb", {"<file>"}),
        ("classify --format ", {"csv", "parquet", "jsonl"}),
        ("classify --batch-size ", {"auto"}),
        ("classify --device ", {"auto", "cpu", "gpu"}),
        ("classify --top ", set()),
        ("classify --resize ", {"crop", "squash", "pad"}),
        ("classify --weights ", {"<file>", "imagenet", "none"}),
        ("classify --weights-dir ", {"<dir>"}),
        ("classify --model ", {"<file>"}),
        ("classify --limit ", set()),
        ("--log-file ", {"<file>"}),
        ("evaluate -o ", {"<dir>"}),
        ("finetune --unfreeze a", {"all"}),
        ("finetune --unfreeze block14", {"block14"}),
    ],
)
def test_offers(line, values):
    assert offered(line) == values


@pytest.mark.parametrize("name", ["", *cli.commands])
def test_offers_every_option(name):
    command = cli.commands[name] if name else cli
    options = [one for one in command.params if isinstance(one, click.Option)]
    expected = {name for one in options if not one.hidden for name in one.opts + one.secondary_opts}
    assert offered(f"{name} -".lstrip()) == expected | {"-h", "--help"}


def test_a_tab_imports_nothing_heavy_and_takes_a_fraction_of_a_second(environment):
    code = (
        "import sys\nfrom xcli.cli.main import run_command\nfrom xcli.cli.verbosity import Messages\n"
        "code = run_command(Messages())\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'PIL', 'pyarrow', 'h5py', 'rich', 'docutils'} & set(sys.modules)\n"
        "assert not heavy, heavy\nsys.exit(code)\n"
    )
    env = {**environment, VARIABLE: "bash_complete", "COMP_WORDS": "xception\nclassify\n--format\nj", "COMP_CWORD": "3"}
    best = 10.0
    for _ in range(5):
        begin = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        best = min(best, time.monotonic() - begin)
        assert (done.returncode, done.stdout, done.stderr) == (0, "plain,jsonl\n", "")
    assert best < 1


def test_an_unknown_shell_is_a_usage_error():
    done = run_process(**{VARIABLE: "tcsh_complete"})
    assert done.code == 2
