"""What the program does, written down, so that a change of its structure can be shown to change nothing else.

    python -m tests.record OUT.json                          runs every command, and writes the record
    python -m tests.record OUT.json --checkout DIR           of another checkout of the program, with this script
    python -m tests.record OUT.json --only '^(help|usage)'   some of the cases, by a regular expression
    python -m tests.record --compare BEFORE.json AFTER.json  what differs, command by command; exit 1 if anything does
                                                             (--ignore err: but for messages, as where texts change)
    python -m tests.record --keep-state DIR --checkout OLD   runs that OLD left unfinished, and what they are to become
    python -m tests.record --continue-state DIR              goes on with them; exit 1 if anything differs or is refused

A record holds, for each command, its exit code, both of its streams, and the digests of the files that it leaves;
times, speeds, process numbers and temporary paths are masked (`tests.record.masks` says what, and why). The inputs are
made on the spot, the same each time. Nothing here imports the program: it is run as `python -m xcli`.
"""
