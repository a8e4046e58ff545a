"""A run written to a file: the rows, and beside them `FILE.meta.json` with what made them."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from xcli.sinks import METADATA_KEY, open_sink, write_meta

if TYPE_CHECKING:
    from collections.abc import Callable

    from xcli.inference import Run
    from xcli.records import ImageBatch


def record(
    run: Run,
    command: str,
    format: str,
    target: str | None,
    *,
    overwrite: bool,
    command_line: str | None = None,
    on_batch: Callable[[ImageBatch], None] | None = None,
) -> float:
    """Runs to the end and writes every row.

    Args:
        run: set up, not started.
        command: `classify` or `features`, for the provenance.
        format: a key of `SINKS`.
        target: a file; None or `-` is standard output, which gets no `FILE.meta.json`.
        overwrite: whether existing files may be replaced.
        command_line: for `FILE.meta.json`.
        on_batch: called after each batch has been written.

    Returns:
        Seconds from the first batch asked for to the last row written.

    Raises:
        XcliError: what ends the run; then nothing stands under the final name.
    """
    started = datetime.now(UTC)
    schema = run.start()
    provenance = run.provenance(command)
    metadata = {METADATA_KEY: json.dumps(provenance, sort_keys=True, ensure_ascii=False)}
    begin = time.monotonic()
    with open_sink(format, target, schema, metadata, overwrite) as sink:
        for batch, rows in run.batches():
            sink.write(rows)
            if on_batch is not None:
                on_batch(batch)
    run.published = True
    seconds = time.monotonic() - begin
    times = {
        "command_line": command_line,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "profile": run.profile.as_dict(),
    }
    write_meta(target, provenance | times | {"images": run.report.as_dict()})
    return seconds
