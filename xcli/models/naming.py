"""Which class of a model the name of a folder, or a label of a manifest, means: never by position."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xcli.core.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xcli.models.labels import Labels


def match_labels(names: Sequence[str], labels: Labels) -> dict[str, int]:
    """Finds the classes that folders or manifests name.

    A name is a wnid, or the name of a class, written as the model has it; else one that differs in nothing but case,
    underscores and spaces from exactly one class.

    Args:
        names: what to look up.
        labels: the classes of the model.

    Returns:
        The index of each name's class.

    Raises:
        SourceError: names are of no class; all of them are listed. Or a name is that of several classes.
    """
    exact: dict[str, set[int]] = {}
    loose: dict[str, set[int]] = {}
    for index, name in enumerate(labels.names):
        for text in (name, *((labels.wnids[index],) if labels.wnids else ())):
            exact.setdefault(text, set()).add(index)
            loose.setdefault(_loose(text), set()).add(index)
    found = {name: exact.get(name) or loose.get(_loose(name)) or set() for name in names}
    unknown = [name for name in names if not found[name]]
    if unknown:
        raise SourceError(_unknown(unknown, labels))
    for name, indices in found.items():
        if len(indices) > 1:
            raise SourceError(_ambiguous(name, sorted(indices), labels))
    return {name: indices.pop() for name, indices in found.items()}


def _loose(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


def _unknown(unknown: Sequence[str], labels: Labels) -> str:
    if labels.source == "index":
        advice = "the model has no names for its classes but 0, 1, 2, ...: give them with --labels FILE"
    else:
        kinds = "names or wnids" if labels.wnids else "names"
        examples = ", ".join(dict.fromkeys(labels.names[:3]))
        advice = f"folders and labels must be {kinds} of its {len(labels.names):,} classes ({examples}, ...)"
    number = "is no class" if len(unknown) == 1 else f"are {len(unknown):,} names that are no classes"
    return f"{', '.join(unknown)} {number} of the model; {advice}"


def _ambiguous(name: str, indices: Sequence[int], labels: Labels) -> str:
    if labels.wnids is None:
        same = ", ".join(f"{labels.names[index]} ({index})" for index in indices)
        return f"{name} means several classes of the model: {same}; give these different names with --labels FILE"
    same = " or ".join(f"{labels.wnids[index]} (class {index})" for index in indices)
    return f"{name} is the name of several classes of the model; use the wnid instead: {same}"
