"""`python -m xcli`."""

from xcli.cli import main

main()
