"""`python -m xcli`."""

import sys

if not sys.flags.safe_path:
    # Python looks for modules in the current directory first. That is where images lie, which may be anybody's: no file
    # there may be imported in place of a library.
    del sys.path[0]

from xcli.cli.main import main

main()
