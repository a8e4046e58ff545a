"""Deterministic simulation of faults: `make faults`, or python -m tests.faults.simulation --help.

The real command line runs with a stub instead of a network, in forked children of one warm process, on a directory in
memory. `xcli.storage.disk.system` is replaced, so that each call that touches the disk is recorded, fails, or is the
last one of its process.

    tree       what a directory holds, as a value: read, written anew, compared
    system     the calls of `disk.System`: recorded, failed, interrupted, stopped
    stubs      the stub instead of TensorFlow; clock, process ids and random names that repeat
    process    one run of a command in a child
    jobs       the commands, and the states in which they begin
    judges     what must hold after each run, whatever happened in it
    calls      class of cases: each call x each fault
    power      class of cases: a power cut after each call, with unsynced changes lost
    damage     class of cases: flipped bits, exchanged and missing files
    pairs      class of cases: a process stops at each call while another one runs
    report     the table of cases; `__main__` is the program
"""
