"""Names of the classes of a model, and which class a name means.

Some names occur twice in ImageNet (crane, maillot): only its wnid or its index identifies a class.
"""

from __future__ import annotations

import json
import re
import unicodedata
from codecs import BOM_UTF8
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import TYPE_CHECKING, Any

from xcli.core.errors import LabelsError, SourceError
from xcli.models.architecture import IMAGENET_CLASSES

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_BYTES, _MAX_LABELS, _MAX_NAME = 1 << 25, 1 << 20, 1 << 12
_MAX_VALUES = 4 * _MAX_LABELS  # of JSON, and brackets

LABEL_TYPES = ("name", "wnid", "both")


@dataclass(frozen=True, slots=True)
class Labels:
    """Class names in the order of the model's outputs.

    Attributes:
        names: one for each class.
        wnids: one WordNet identifier for each class; None where there are none.
        source: path of the label file, `imagenet`, or `index` where the names are only numbers; for provenance.
    """

    names: tuple[str, ...]
    wnids: tuple[str, ...] | None = None
    source: str = "index"

    @property
    def digest(self) -> str:
        return sha256(json.dumps([self.names, self.wnids]).encode()).hexdigest()


@cache
def imagenet_labels() -> Labels:
    """Returns the 1,000 classes of ILSVRC-2012, with their wnids."""
    text = resources.files("xcli").joinpath("data/imagenet_labels.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines()]
    return Labels(tuple(name for _, name in rows), tuple(wnid for wnid, _ in rows), "imagenet")


def default_labels(classes: int) -> Labels:
    """Returns the labels of ImageNet for 1,000 classes, otherwise the index as text."""
    if classes == IMAGENET_CLASSES:
        return imagenet_labels()
    return Labels(tuple(str(index) for index in range(classes)))


def read_labels(path: str) -> Labels:
    """Reads class names from a file.

    Args:
        path: a text file with one name on each line, or wnid, tab and name; or JSON: a list of names or of
            [wnid, name], an object of index to one of these, an object of name to index, or `{"labels": LIST}`.

    Raises:
        LabelsError: the file cannot be read, has another format, or more than 32 MiB, a million names, or 4,096
            characters in a name.
    """
    try:
        text = _read(path)
        if text.lstrip()[:1] in ("{", "["):
            entries = _entries(json.loads(text))
        else:
            # Not splitlines(): a name may contain characters that Unicode counts as line ends.
            entries = [line.split("\t", 1)[::-1] for line in re.split("\r\n|\r|\n", text) if line.strip()]
        return _labels(entries, path)
    except OSError as error:
        raise LabelsError(f"cannot read labels from {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LabelsError(f"{path} is not a label file: it is not UTF-8 text") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise LabelsError(f"{path} is not a label file: {error}") from error


def _read(path: str) -> str:
    with open(path, "rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"it has more than {_MAX_BYTES:,} bytes")
    is_json = content.removeprefix(BOM_UTF8).lstrip()[:1] in (b"{", b"[")
    counted, most = (b",[{", _MAX_VALUES) if is_json else (b"\r\n", 2 * _MAX_LABELS)
    if sum(content.count(one) for one in counted) > most:
        raise ValueError(f"it has more than {_MAX_LABELS:,} labels")
    return content.decode("utf-8-sig")


def _labels(entries: list[Sequence[str]], source: str) -> Labels:
    if not entries:
        raise ValueError("it holds no labels")
    entries = [[part.strip() for part in entry] for entry in entries]
    for number, entry in enumerate(entries, start=1):
        if not all(entry):
            raise ValueError(f"label {number} is empty")
        if max(map(len, entry)) > _MAX_NAME:
            raise ValueError(f"label {number} has more than {_MAX_NAME:,} characters")
        if len(entry) != len(entries[0]):
            raise ValueError(f"label {number} is not written like the first: give all of them a wnid, or none")
    names, *wnids = zip(*entries, strict=True)
    return Labels(names, wnids[0] if wnids else None, source)


def _entries(value: Any) -> list[Sequence[str]]:
    if isinstance(value, dict):
        if isinstance(value.get("labels"), list):
            return _entries(value["labels"])
        value = _in_order(value)
    entries: list[Sequence[str]] = []
    for item in value:
        if isinstance(item, str):
            entries.append((item,))
        elif isinstance(item, list) and len(item) == 2 and all(isinstance(part, str) for part in item):
            entries.append((item[1], item[0]))
        else:
            raise TypeError(f"a label must be a name or [wnid, name]; received {str(item)[:100]!r}")
    return entries


def _in_order(value: dict[str, Any]) -> list[Any]:
    """Sorts an object of index to label, or of name to index (like `class_indices` of Keras' generators)."""
    if value and all(isinstance(item, int) and not isinstance(item, bool) for item in value.values()):
        numbered = [(index, name) for name, index in value.items()]
    else:
        numbered = [(int(key), item) if key.isdecimal() else (-1, item) for key, item in value.items()]
    numbered.sort(key=lambda pair: pair[0])
    if [index for index, _ in numbered] != list(range(len(numbered))):
        raise ValueError(f"its indices are not 0 to {len(numbered) - 1}")
    return [item for _, item in numbered]


def fit_labels(labels: Labels | None, classes: int) -> Labels:
    """Returns the labels given, or the default; raises LabelsError where there is not one for each class."""
    if labels is None:
        return default_labels(classes)
    if len(labels.names) != classes:
        count = len(labels.names)
        ways = f"--model, --weights FILE, or --weights none --classes {count}"
        advice = f"give the names of these {classes} classes, or a model of {count} classes ({ways})"
        if count == classes + 1:
            advice = "is the first line a heading, or a class like 'background'? Remove it"
        raise LabelsError(f"{labels.source} has {count} labels, but the model has {classes} classes; {advice}")
    return labels


def match_labels(names: Sequence[str], labels: Labels) -> dict[str, int]:
    """Returns the index of the class that each name means; positions never count.

    A name matches a wnid or class name that is written exactly like it, or else those that differ only in case,
    underscores, spaces, and accents being composed or not (the normal forms of Unicode).

    Raises:
        SourceError: names match no class (the message lists all of them), or a name matches several classes.
    """
    found = find_labels(names, labels)
    unknown = [name for name in names if not found[name]]
    if unknown:
        raise SourceError(_unknown(unknown, labels))
    for name, indices in found.items():
        if len(indices) > 1:
            raise SourceError(_ambiguous(name, sorted(indices), labels))
    return {name: indices.pop() for name, indices in found.items()}


def find_labels(names: Sequence[str], labels: Labels) -> dict[str, set[int]]:
    """Returns the indices of the classes that each name may mean, as `match_labels` looks for them; perhaps none."""
    exact: dict[str, set[int]] = {}
    loose: dict[str, set[int]] = {}
    for texts in (labels.names, labels.wnids or ()):
        for index, text in enumerate(texts):
            exact.setdefault(text, set()).add(index)
            loose.setdefault(_loose(text), set()).add(index)
    return {name: set(exact.get(name) or loose.get(_loose(name)) or ()) for name in names}


def _loose(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).replace("_", " ").split()).casefold()


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
