"""`run.json`: the fingerprint of a run that has not ended, with its own digest, and the comparison of two of them."""

from __future__ import annotations

import json
from typing import Any

from xcli.core.checked_json import Schema, parse_object
from xcli.core.errors import CheckError, OutputError
from xcli.core.text import one_line
from xcli.inference.options import BATCH_SIZES
from xcli.tables.provenance import DIGEST, differences, is_unchanged, with_digest

_SCHEMA: Schema = {"provenance": {"batch_size": BATCH_SIZES}, "schema": [str]}

_OPTIONS = frozenset(
    "batch_size bit_depth crop_pct csv_bom csv_safe device dtype engine error_features features_out format input_range "
    "interpolation label_type layer limit manifest max_pixels min_score normalize part_rows path_column pooling "
    "precision raw_scores resampler resize strict top".split()
)
"""Members of a fingerprint that have the name of an option."""


def encode(fingerprint: dict[str, Any]) -> bytes:
    """Returns the content of `run.json`; the same fingerprint gives the same bytes."""
    return json.dumps(with_digest(fingerprint), indent=2, sort_keys=True).encode()


def decode(content: bytes) -> dict[str, Any]:
    """Returns the fingerprint in a `run.json`.

    Raises:
        CheckError: it is damaged, or an earlier version wrote it, without a digest.
    """
    try:
        fingerprint = parse_object(content, _SCHEMA)
    except ValueError as error:
        raise CheckError(f"it is damaged: {one_line(str(error))}") from None
    if DIGEST not in fingerprint:
        raise CheckError("it has no digest, so it is damaged, or from an earlier version of xception")
    if not is_unchanged(fingerprint):
        raise CheckError("it is damaged: its digest is another")
    del fingerprint[DIGEST]
    return fingerprint


def refuse_other_settings(
    target: str,
    earlier: dict[str, Any],
    fingerprint: dict[str, Any],
    run: str,
    this: str = "this run",
    *,
    remedy: str = "another -o, or --restart to discard that run",
) -> None:
    """Checks that two fingerprints are the same.

    Args:
        target: the output.
        earlier: fingerprint of the run that began the output.
        fingerprint: that of the run that continues it.
        run: what the message calls the first.
        this: what the message calls the second.
        remedy: what can be done besides using the same settings.

    Raises:
        OutputError: they are not; the message names the settings that differ.
    """
    changes = differences(earlier, fingerprint)
    # The columns follow from other settings.
    changes = [change for change in changes if change[0] != "schema"] or changes
    if changes:
        before = ", ".join(_setting(name, value) for name, value, _ in changes)
        now = ", ".join(_setting(name, value) for name, _, value in changes)
        same = before if all(_is_option(name) for name, _, _ in changes) else "the same settings"
        raise OutputError(f"{one_line(target)} has {run} with {before}, but {this} has {now}. Use {same}, {remedy}")


def _is_option(name: str) -> bool:
    return name.rpartition(".")[2] in _OPTIONS


def _setting(name: str, value: Any) -> str:
    """Returns a member of a fingerprint as a user would write it: `--top 5`, `no --normalize`."""
    if name == "sources.exclude_from":  # the images, not the table that names them
        return f"--exclude-from ({one_line(str(value))})" if value is not None else "no --exclude-from"
    if not _is_option(name):
        return one_line(f"{name.removeprefix('provenance.')} {json.dumps(value)}")
    option = "--" + name.rpartition(".")[2].replace("_", "-")
    if value is None or value is False:
        return f"no {option}"
    return option if value is True else one_line(f"{option} {value}")
