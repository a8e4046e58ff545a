"""The generated files: what they hold, man pages as groff and mandoc read them, and the check for drift."""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tools import generate
from tools.reference import ENVIRONMENT, EXAMPLES, contexts, man_page, reference
from xcli.cli import cli
from xcli.cli.help import INPUT, Command, option, option_records
from xcli.core.errors import ExitCode

TOOL = Path(generate.__file__)
NASTY = r"""it's "q" $HOME $(id) a:b [br] {c,d} (p) *? \n b\\s 100% <x> & | ~ ^ ! # ; é ü -- .d 'q _u_ &amp; 1."""
CONTEXTS = list(contexts(cli))
by_name = pytest.mark.parametrize("ctx", CONTEXTS, ids=lambda ctx: ctx.info_name)


def needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def nasty_tree():
    """A command whose every text is full of what Markdown and roff take for their own."""

    @click.group(help=NASTY)
    def top(): ...

    @top.command(cls=Command, short_help=NASTY, help=f"{NASTY}\n\n.dot\n\n'quote\n\n\b\n.verbatim\n'also\n\\e  -x\n")
    @option("--nasty", INPUT, NASTY, metavar="a|B:[C]")
    @option("--list", INPUT, "- is standard output.")
    @option("--secret", INPUT, "", hidden=True)
    def run(): ...

    @top.command(cls=Command, hidden=True)
    def hidden(): ...

    return top


generated = functools.cache(functools.partial(generate.outputs, cli, Path(os.devnull)))


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
    for name, data in before.items():
        assert data.endswith(b"\n"), name
        assert not data.endswith(b"\n\n"), name
        assert not re.search(rb"[ \t]$", data, re.MULTILINE), name


@pytest.mark.parametrize("name", ["docs/cli.md", "man/xception-info.1"])
def test_check_compares_bytes_and_shows_a_short_difference(root, capsys, monkeypatch, name):
    monkeypatch.setattr(generate, "outputs", lambda group, root: generated())
    path = root / name
    good = path.read_bytes()
    bad = [good.replace(b"ception", b"deception"), good + b"\n", good[:-1], good.replace(b"\n", b"\r\n"), b"\xff", b""]
    for text in bad:
        path.write_bytes(text)
        capsys.readouterr()
        assert generate.main(["--check", "--root", str(root)]) == 1
        shown = capsys.readouterr().out
        assert shown.startswith(f"{name}: drifted")
        assert (b"deception" in text) == bool(re.search(r"^-.*deception", shown, re.MULTILINE))
        assert len(shown.splitlines()) < 30
        assert path.read_bytes() == text
    assert re.search(r"^\.\.\. and \d+ lines more$", shown, re.MULTILINE)
    assert generate.main(["--root", str(root)]) == 0
    assert path.read_bytes() == good


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


def test_output_depends_on_nothing_around(root, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "docutils.conf").write_text("[general]\nlanguage_code: de\nsectnum_xform: yes\n")
    (home / ".docutils").write_text("[general]\nlanguage_code: de\n")
    env = {
        "PATH": os.environ["PATH"], "HOME": str(home), "COLUMNS": "40", "LINES": "5", "NO_COLOR": "1", "LANG": "C",
        "LC_ALL": "C", "TERM": "dumb", "FORCE_COLOR": "1", "PYTHONUTF8": "0", "PYTHONHASHSEED": "7",
        "XCEPTION_DEBUG": "1", "XCEPTION_CLASSIFY_TOP": "9", "XCEPTION_WEIGHTS_DIR": "/somewhere",
    }  # fmt: skip
    run = [sys.executable, str(TOOL), "--root", str(root), "--check"]
    done = subprocess.run(run, env=env, cwd=home, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# What the pages say


def test_the_reference_has_every_visible_command_and_option_and_marks_nothing_up(tmp_path):
    sections = dict(part.split("\n", 1) for part in reference(cli).split("\n## ")[1:])
    assert list(sections) == [ctx.command_path for ctx in CONTEXTS]
    for ctx in CONTEXTS:
        for one in (one for one in ctx.command.get_params(ctx) if isinstance(one, click.Option)):
            for name in one.opts + one.secondary_opts:
                assert re.search(rf"^- .*`{name}`.*: \S", sections[ctx.command_path], re.MULTILINE), name
    texts = generate.outputs(nasty_tree(), tmp_path)
    assert {name for name in texts if name.startswith("man/")} == {"man/xception.1", "man/xception-run.1"}
    assert not [name for name, text in texts.items() if "hidden" in text or "secret" in text]
    nasty = texts["docs/cli.md"]
    assert r"a:b \[br\] {c,d} (p) \*?" in nasty
    assert "```text\n.verbatim\n'also\n\\e  -x\n```" in nasty


def rendered(page, tmp_path):
    path = tmp_path / "page.1"
    path.write_text(page)
    command = ["groff", "-man", "-ww", "-Kutf8", "-Tutf8", "-rLL=200n", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "GROFF_SGR": ""})
    assert (done.returncode, done.stderr) == (0, "")
    return re.sub(r".\x08|\x1b\[[\d;]*m", "", done.stdout)


@needs("groff")
@by_name
def test_groff_renders_without_warnings_every_option_under_its_heading(tmp_path, ctx):
    text = rendered(man_page(ctx), tmp_path)
    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "ENVIRONMENT", "EXIT STATUS", "SEE ALSO"):
        assert f"\n{section}\n" in text
    for section, records in option_records(ctx).items():
        part = text.partition(f"\n   {section}\n" if ctx.parent else "\nOPTIONS\n")[2]
        part = " ".join(re.split(r"^ {0,3}\S", part, flags=re.MULTILINE)[0].split())
        for names, described in records:
            assert f"{names} {' '.join(described.split())}".replace("`", "") in part
    for code in ExitCode:
        assert re.search(rf"^       {int(code)} +\S", text, re.MULTILINE)
    for other in CONTEXTS:
        assert (f"{other.command_path.replace(' ', '-')}(1)" in text.partition("SEE ALSO")[2]) == (other is not ctx)


@needs("mandoc")
@pytest.mark.parametrize("ctx", [*CONTEXTS, *contexts(nasty_tree())], ids=lambda ctx: ctx.info_name)
def test_mandoc_finds_nothing_but_the_missing_date(tmp_path, ctx):
    path = tmp_path / "page.1"
    path.write_text(man_page(ctx))
    done = subprocess.run(["mandoc", "-T", "lint", str(path)], capture_output=True, text=True)
    # There is no date, so that the pages change only with the program. Paragraphs are not wrapped.
    expected = re.compile("missing date|input text line longer")
    assert [line for line in done.stdout.splitlines() if not expected.search(line)] == []


@needs("groff")
def test_groff_shows_texts_as_they_were_written(tmp_path):
    text = rendered(man_page(list(contexts(nasty_tree()))[1]), tmp_path)
    assert f"xception-run - {NASTY.rstrip('.')}\n" in text
    assert f"--nasty a|B:[C]\n              {NASTY}\n" in text
    assert "--list TEXT\n              - is standard output.\n" in text
    assert "\n       .dot\n\n       'quote\n\n          .verbatim\n          'also\n          \\e  -x\n" in text


def test_every_command_has_examples_that_it_understands():
    page = reference(cli)
    commands = [line for line in EXAMPLES.read_text().splitlines() if line and not line.startswith("#")]
    for name, command in cli.commands.items():
        own = [typed for typed in commands if f"xception {name} " in f"{typed} "]
        assert 3 <= len(own) <= 5, f"give {name} three to five examples in {EXAMPLES}"
        for typed in own:
            words = shlex.split(typed)
            words = words[words.index("xception") + 2 :]
            command.make_context(name, words[: words.index("|")] if "|" in words else words)
            assert f"```text\n{typed}\n```" in page
            commands.remove(typed)
    assert not commands, "examples of a command that is gone"


def test_the_environment_section_names_what_is_not_by_its_rule():
    named = " ".join([*ENVIRONMENT, *ENVIRONMENT.values()])
    for ctx in CONTEXTS:
        for one in (one for one in ctx.command.params if isinstance(one, click.Option)):
            name = max(one.opts, key=len)
            if one.name != name[2:].replace("-", "_") and one.allow_from_autoenv:
                assert f"{name} ({ctx.auto_envvar_prefix}_{one.name.upper()})" in named
            assert one.envvar is None or one.envvar in ENVIRONMENT
            assert not one.multiple or name in named
