"""Outputs as the user names them: what stands there already, and whether it can be written."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from xcli.core.errors import CheckError, OutputError, UsageError
from xcli.core.records import PATH, STATUS
from xcli.core.text import one_line
from xcli.outputs.dataset import check_dataset, is_dataset, is_finished
from xcli.outputs.error_list import list_errors
from xcli.storage.streams import is_direct, write_errors
from xcli.storage.urls import is_url
from xcli.tables.formats import FEATURES_FORMATS, GUARDED_FORMATS, check_output, format_from_name
from xcli.tables.provenance import DATASET_META, META_SUFFIX, read_meta
from xcli.tables.readers import open_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xcli.outputs.save import RecordOptions

log = logging.getLogger("xcli")


def output_format(target: str | None, formats: Sequence[str], default: str) -> str:
    """The format that an output's name asks for: Parquet for a directory, else see `format_from_name`."""
    return "parquet" if is_dataset(target) else format_from_name(target, formats, default)


def check_outputs(options: RecordOptions, format: str, target: str | None, *, overwrite: bool) -> None:
    """Finds what is in the way of the output, before a model is loaded for nothing.

    What a run finished is not replaced, but may be the very file that is asked for; `record` finds out.

    Raises:
        UsageError: options that would do nothing, or cannot be had together.
        OutputError: a file exists, or cannot be written.
    """
    check_options(options, format, target)
    if is_dataset(target):
        check_dataset(format, str(target))
    else:
        check_output(format, target, overwrite or (target is not None and recorded(target) is not None))
    second = options.features_out
    if second is not None:
        form = format_from_name(second, FEATURES_FORMATS, "parquet")
        check_output(form, second, overwrite or recorded(second) is not None)


def check_options(options: RecordOptions, format: str, target: str | None) -> None:
    """Refuses options that would do nothing, or cannot be had together.

    Raises:
        UsageError: there are such.
    """
    formats = [format]
    if target is None or is_direct(target):
        names = {
            "--features-out": options.features_out is not None,
            "--restart": options.restart,
            "--retry-errors": options.retry_errors,
        }
        for name in (name for name, given in names.items() if given):
            raise UsageError(f"{name} needs -o FILE: nothing is kept of what does not go to a file")
    elif options.features_out is not None:
        if is_dataset(target):
            raise UsageError(f"--features-out goes with a file, and {target!r} is a directory")
        if is_direct(options.features_out) or is_dataset(options.features_out):
            raise UsageError(f"--features-out takes the name of a file; received {options.features_out!r}")
        if same_output(options.features_out) == same_output(target):
            raise UsageError(f"{target!r} would be both tables; give --features-out another name")
        formats.append(format_from_name(options.features_out, FEATURES_FORMATS, "parquet"))
    if options.csv_safe and not set(GUARDED_FORMATS).intersection(formats):
        raise UsageError(f"--csv-safe is for CSV, and the table is {format}")


def recorded(target: str) -> dict[str, Any] | None:
    """What `FILE.meta.json` says of the run that made an output, or was about to give it its name; else None."""
    name = os.path.join(target, DATASET_META) if is_dataset(target) else target + META_SUFFIX
    try:
        meta = read_meta(name)
    except CheckError:
        return None
    if meta is None or not isinstance(meta.get("fingerprint"), str):
        return None
    return {"fingerprint": meta["fingerprint"], "provenance": {"batch_size": meta.get("batch_size")}}


def finished(target: str) -> dict[str, Any] | None:
    """What `recorded` says of an output that is there and was finished by a run of this tool, else None."""
    there = is_finished(target) if is_dataset(target) else is_file(target)
    return recorded(target) if there else None


def is_file(target: str) -> bool:
    """Whether there is a file or an object of that name.

    Raises:
        UsageError, OutputError: see `exists`.
    """
    return exists(target) if is_url(target) else os.path.isfile(target)


def exists(target: str) -> bool:
    """Whether there is something of the name of an output: a file, a broken link, an object.

    Raises:
        UsageError: it is a URL where nothing can be written.
        OutputError: the object store cannot be asked.
    """
    if is_url(target):
        from xcli.storage.uploads import WritableStore

        return WritableStore(target).exists()
    return os.path.lexists(target)


def remove(target: str) -> None:
    """Removes a file or an object that may be there.

    Raises:
        OutputError: it cannot be removed.
    """
    if is_url(target):
        from xcli.storage.uploads import WritableStore

        WritableStore(target).unlink("")
        return
    with write_errors(target), suppress(FileNotFoundError):
        os.unlink(target)


def same_output(target: str) -> str:
    """A text that is the same for all names of an output: its real path, or its URL."""
    return target if is_url(target) else os.path.realpath(target)


def digest_of(target: str) -> str | None:
    """The fingerprint that `recorded` finds, as `digest` gives it; None where there is none."""
    found = recorded(target)
    return None if found is None else str(found["fingerprint"])


def say_finished(target: str, options: RecordOptions) -> None:
    """Says that an output was finished by an earlier run, and writes the list of its errors where that is wanted."""
    if options.errors_out is not None:
        list_errors(options.errors_out, open_table(target).batches([PATH, STATUS]))
    stay = ", its errors stay as they are" if options.retry_errors else ""
    log.warning("%s is finished already; nothing to do%s (--overwrite computes it again)", one_line(target), stay)


def other_settings(target: str) -> OutputError:
    """The error for an output that another run has finished."""
    return OutputError(f"{one_line(target)} exists, with other settings or sources; pass --overwrite to replace it")
