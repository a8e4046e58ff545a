"""The program: `xception`, or `python -m xcli`."""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # Python looks for modules in the current directory first. That is where images lie, which may be anybody's: no file
    # there may be imported in place of a library.
    del sys.path[0]

import os
from contextlib import suppress
from typing import NoReturn


def main() -> NoReturn:
    """Runs the program; Ctrl-C is answered even while its modules are imported, and at its very end."""
    try:
        from xcli.cli.main import main as command

        command()
    except KeyboardInterrupt:
        with suppress(OSError, ValueError, AttributeError):  # standard error may be closed
            print("xception: error: interrupted (SIGINT)", file=sys.stderr, flush=True)
        os._exit(130)


if __name__ == "__main__":
    main()
