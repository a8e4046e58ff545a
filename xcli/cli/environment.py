"""Options in the environment: what is typed beats them, messages name the variable, and unknown ones are named."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from itertools import combinations
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from xcli.core.errors import UsageError, XcliError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PREFIX = "XCEPTION_"
_OTHERS = frozenset((f"{PREFIX}WEIGHTS_DIR", f"{PREFIX}WEIGHTS_URL", f"{PREFIX}VERSION"))
_OF_TESTS = f"{PREFIX}TEST_"
_MAX_DROPPED = 3
"""Most variables that are set aside together: `--model`, typed, excludes `--weights` and what goes with that."""

_SIMILAR = 0.8  # of `difflib`


def from_environment(ctx: click.Context) -> Iterator[click.Option]:
    """Yields the options of a command whose values stand in the environment."""
    for option in ctx.command.params:
        source = ctx.get_parameter_source(option.name or "")
        if isinstance(option, click.Option) and source is ParameterSource.ENVIRONMENT:
            yield option


def variable_of(ctx: click.Context, option: click.Option) -> str:
    """Returns the name of the variable that sets an option."""
    return str(option.envvar or f"{ctx.auto_envvar_prefix}_{(option.name or '').upper()}")


def beats(ctx: click.Context, values: dict[str, Any], typed: str, *names: str) -> None:
    """Sets those of the options `names` that stand in the environment to their defaults, if `typed` was typed."""
    if ctx.get_parameter_source(typed) is ParameterSource.COMMANDLINE:
        for option in from_environment(ctx):
            if option.name in names:
                values[option.name] = _default(ctx, option)
                ctx.set_parameter_source(option.name, ParameterSource.DEFAULT)


def made_with(make: Callable[[Mapping[str, Any]], Any], chosen: dict[str, Any]) -> Any:
    """Makes options from values of the command that runs; a value that is typed beats variables that exclude it.

    Raises:
        UsageError: they do not go together; also if the variables do not even without what is typed.
    """
    try:
        return make(chosen)
    except UsageError:
        ctx = click.get_current_context(silent=True)
        options = [] if ctx is None else [one for one in from_environment(ctx) if one.name in chosen]
        if ctx is None or not options:
            raise
        defaults = {one.name: _default(ctx, one) for one in ctx.command.params if one.name in chosen}
        named = {one.name for one in options}
        untyped = {name: value if name in named else defaults[name] for name, value in chosen.items()}
        if not _fits(make, untyped):
            raise
        for count in range(1, min(len(options), _MAX_DROPPED) + 1):
            for dropped in combinations(options, count):
                fewer = chosen | {str(one.name): defaults[one.name] for one in dropped}
                if _fits(make, fewer):
                    return make(fewer)
        raise


def _default(ctx: click.Context, parameter: click.Parameter) -> Any:
    """Returns the value of an option or argument that is given nowhere."""
    value = parameter.to_info_dict().get("default")
    if value is None:
        return () if parameter.nargs == -1 or getattr(parameter, "multiple", False) else None
    return parameter.type_cast_value(ctx, value)


def _fits(make: Callable[[Mapping[str, Any]], Any], values: Mapping[str, Any]) -> bool:
    try:
        make(values)
    except UsageError:
        return False
    return True


def name_variables(ctx: click.Context, error: XcliError) -> None:
    """Says in an error which of the options that it mentions are set by variables."""
    text, notes = str(error), []
    for option in from_environment(ctx):
        name, variable = max(option.opts, key=len), variable_of(ctx, option)
        text = re.sub(rf"received {name}[ =]", f"received {variable}=", text)
        value = ctx.params.get(option.name or "")
        shown = isinstance(value, str) and len(value) > 4 and value in text
        if variable not in text and (shown or re.search(rf"{name}(?![\w-])|\b{option.name}=", text)):
            notes.append(f"{name} is set by {variable}")
    error.args = (f"{text} ({', '.join(notes)})" if notes else text,)


def unknown_variables(ctx: click.Context) -> str | None:
    """Names the variables with our prefix that set nothing, and what may have been meant; None if there are none."""
    names = sorted(name for name in os.environ if name.startswith(PREFIX) and not name.startswith(_OF_TESTS))
    if not set(names) - _OTHERS:
        return None
    root = ctx.find_root()
    known = set(_OTHERS) | {variable_of(root, one) for one in root.command.params if isinstance(one, click.Option)}
    commands = root.command.commands if isinstance(root.command, click.Group) else {}
    for name, command in commands.items():
        below = click.Context(command, parent=root, info_name=name)
        known |= {variable_of(below, one) for one in command.params if isinstance(one, click.Option)}
    unknown, rests = [], [name.removeprefix(PREFIX) for name in known]
    for name in names:
        if name not in known:
            rest = name.removeprefix(PREFIX)
            own = f"{ctx.auto_envvar_prefix}_{rest}"  # the command was left out
            close = [own] if own in known else [PREFIX + one for one in get_close_matches(rest, rests, 1, _SIMILAR)]
            unknown.append(name + (f" (did you mean {close[0]}?)" if close else ""))
    return f"no option has the variable {', '.join(unknown)}" if unknown else None
