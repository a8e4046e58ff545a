"""The real command with a network of no cost: python -m tests.faults.stub [--no-decode] LOG ARGS...

What comes out of the engine is the mean of the pixels and 2,047 zeros. LOG gets a line of "rows, resident MiB" for
every thousand rows.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from benchmarks.stub_engine import StubEngine


def resident() -> float:
    """Resident memory of this process in MiB."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Puts the stubs in place and runs the command."""
    import xcli.inference.engines.tensorflow
    import xcli.inference.predictor
    import xcli.outputs.save
    from tests.inference.decoders import decoder
    from xcli.inference import decoder_server
    from xcli.inference.pipeline import PixelPipeline

    arguments = sys.argv[1:]
    if arguments[0] == "--no-decode":
        del arguments[0]
        decoder_server.MODULE = "tests.inference.decoders"
        xcli.inference.predictor.PixelPipeline = functools.partial(  # type: ignore[misc,assignment]
            PixelPipeline, decoder=decoder("constant", value=7)
        )
    xcli.inference.engines.tensorflow.Engine = StubEngine  # type: ignore[misc,assignment]
    log = open(arguments.pop(0), "w", encoding="ascii")  # noqa: SIM115 - for as long as the process lives
    rows = 0
    done = xcli.outputs.save._Saver._count

    def count(self: Any, batch: Any) -> None:
        nonlocal rows
        before, rows = rows, rows + len(batch.refs)
        if before // 1000 != rows // 1000:
            log.write(f"{rows} {resident():.1f}\n")
            log.flush()
        done(self, batch)

    xcli.outputs.save._Saver._count = count  # type: ignore[method-assign]
    sys.argv = ["xception", *arguments]
    from xcli.cli.main import main as command

    sys.exit(command())


if __name__ == "__main__":
    main()
