"""A finished output compared with its sources: which images are new, have changed or are gone since it was written."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from xcli.core.errors import CheckError, OutputError, OutputExistsError
from xcli.core.records import PATH, STATUS
from xcli.core.text import one_line
from xcli.outputs.base_rows import BaseRows, OutputRows, base_rows
from xcli.outputs.error_list import list_errors
from xcli.outputs.resume import PASSING, RowOrder
from xcli.outputs.target import Directory
from xcli.tables.formats import open_table
from xcli.tables.schema import carries

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from xcli.core.records import ImageRef
    from xcli.outputs.options import SaveOptions
    from xcli.outputs.target import KeptTarget
    from xcli.sources.manifests import ExtraColumn


log = logging.getLogger("xcli")


class StaleOutputError(OutputExistsError):
    """A finished output is not what the command would write now; `comparison` says why."""

    def __init__(self, message: str, comparison: Comparison) -> None:
        super().__init__(message)
        self.comparison = comparison


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison has found.

    Attributes:
        rows: of the output.
        new: images without a row.
        changed: images whose file is another than the one that their row was made of.
        gone: rows without an image.
        carried: rows whose values from the manifest have changed.
        reordered: whether the images come in another order, or another number of times.
        known: whether the states of the files were recorded, without which no changed file is noticed.
        errors: valid error rows by reason.
        retryable: those among them whose reason may have passed.
    """

    rows: int
    new: int
    changed: int
    gone: int
    carried: int
    reordered: bool
    known: bool
    errors: dict[str, int]
    retryable: int

    @property
    def stale(self) -> bool:
        """Whether a run would write another table."""
        return bool(self.new or self.changed or self.gone or self.carried or self.reordered)

    def as_dict(self) -> dict[str, Any]:
        """Returns it as a JSON object."""
        return {"up_to_date": not self.stale, **asdict(self)}

    def findings(self) -> str:
        """Returns the differences as a phrase."""
        found = [
            _phrase(self.new, "is new", "are new"),
            _phrase(self.changed, "has changed", "have changed"),
            _phrase(self.gone, "is gone", "are gone"),
            _phrase(self.carried, "has other values in the manifest", "have other values in the manifest"),
        ]
        phrases = [phrase for phrase in found if phrase]
        if not phrases:
            return "the images come in another order"
        first, *rest = phrases
        number, _, verb = first.partition(" ")
        return ", ".join([f"{number} image{'' if number == '1' else 's'} {verb}", *rest])


def _phrase(count: int, one: str, several: str) -> str:
    return "" if not count else f"{count:,} {one if count == 1 else several}"


def compare(target: KeptTarget, refs: Iterable[ImageRef], *, carried: bool) -> tuple[Comparison, RowOrder]:
    """Compares a finished output with its sources.

    Args:
        target: the output.
        refs: the sources.
        carried: whether they may carry values of a manifest.

    Raises:
        OutputError: a directory or an archive could not be listed, so that nothing is known of its images; or the
            states of files were not recorded, and the table cannot be read.
    """
    try:
        base = base_rows(target, trust=True)
    except CheckError as error:
        raise OutputError(
            f"{one_line(target.name)} is finished, but cannot be compared with its sources: {error}. --overwrite "
            "computes it again"
        ) from error
    order = RowOrder(OutputRows(base), carried=carried)
    for _ in order.rest(iter(refs)):
        pass
    order.check_sources(keep=True)
    return comparison_of(target, base, order), order


def recorded_columns(target: KeptTarget, command: str, extra: Sequence[ExtraColumn], pair: bool) -> list[str] | None:
    """Returns the columns of a finished output, as its fingerprint has them.

    Args:
        target: the output.
        command: which wrote it.
        extra: the columns that the manifest has now.
        pair: whether it is one of two tables of one pass.

    Returns:
        None: they are not recorded, or others were carried over from the manifest.
    """
    try:
        states = base_rows(target).states
    except CheckError:
        return None
    columns = ((states and states.fingerprint) or {}).get("schema")
    if not isinstance(columns, list) or not all(isinstance(one, str) for one in columns):
        return None
    of_features = command == "features"
    return columns if carries(columns, extra, of_features=of_features, with_features=pair) else None


def comparison_of(target: KeptTarget, base: BaseRows, order: RowOrder) -> Comparison:
    """Returns what listing the sources has found; all of them have been taken by `order`."""
    gone, rows = order.gone(), len(base.table)
    others = order.new or order.changed or gone
    in_order = order.images == rows if isinstance(target, Directory) else order.is_identity(rows)
    return Comparison(
        rows=rows,
        new=order.new,
        changed=order.changed,
        gone=gone,
        carried=order.recarried,
        reordered=not others and not in_order,
        known=base.states is not None,
        errors=dict(order.errors),
        retryable=sum(order.errors.get(reason, 0) for reason in PASSING),
    )


def updated(comparison: Comparison, retried: int) -> str:
    """Returns what an update has found, for a message."""
    found = comparison.findings() if comparison.stale else ""
    again = _phrase(retried, "error row was tried again", "error rows were tried again")
    return ", ".join(filter(None, [found, again])) or "what is recorded of its files is renewed"


def stale_output(target: KeptTarget, comparison: Comparison, remedy: str) -> StaleOutputError:
    """Returns the error for a finished output that is not what the command would write now."""
    shown = one_line(target.name)
    return StaleOutputError(f"{shown} is finished, but since then {comparison.findings()}: {remedy}", comparison)


def say_finished(target: KeptTarget, options: SaveOptions, comparison: Comparison) -> None:
    """Says what a finished output lacks, and writes the list of its errors if that is wanted.

    Raises:
        StaleOutputError: it is not what the command would write now.
    """
    if options.errors_out is not None:
        list_errors(options.errors_out, open_table(target.name).batches([PATH, STATUS]))
    shown = one_line(target.name)
    if not comparison.known:
        log.warning("%s does not record the states of its files, so that changed files are not noticed", shown)
    if comparison.stale:
        raise stale_output(target, comparison, options.how_to_update(target))
    stay = ""
    if failed := sum(comparison.errors.values()):
        stay = f"; {failed:,} error row{'s' if failed > 1 else ''} remain{'s' if failed == 1 else ''}"
        if comparison.retryable:
            stay += f", {comparison.retryable:,} of them for reasons that may have passed"
        if not options.update and (options.retry_errors or comparison.retryable):
            stay += f" ({options.how_to_retry(target)})"
    log.info("%s is finished and up to date%s", shown, stay)
