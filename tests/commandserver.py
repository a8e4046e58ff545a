"""Runs `xception` and Python code in forks of a process that has imported TensorFlow: a second instead of six.

    python -m tests.commandserver SOCKET WEIGHTS

A client connects, sends one line of JSON with the three standard streams, and gets a line for every answer:

    {"arguments": [...], "cwd": ..., "environment": {...}}    runs the command; the answer is its exit code
    {"cwd": ..., "environment": {...}}    then a line of JSON for each piece of code, all of which run in one namespace;
                                          an answer is a traceback, or an empty text

The digest of the official ImageNet weights is replaced by that of WEIGHTS, so that XCEPTION_WEIGHTS_DIR can name a
directory that holds this file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

CLIENT = """\
#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = {{"arguments": sys.argv[1:], "cwd": os.getcwd(), "environment": dict(os.environ)}}
    # The streams go with the first byte.
    socket.send_fds(server, [b" "], [0, 1, 2])
    server.sendall(json.dumps(request).encode() + b"\\n")
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    os._exit(int(server.makefile().readline() or 1))
"""
"""The program that stands for `xception` on the PATH."""


def main() -> None:
    """Imports what is slow, then serves for ever."""
    address, weights = sys.argv[1:]
    _trust(weights)
    from xcli.core.tensorflow import load_keras, load_tensorflow

    load_tensorflow()
    load_keras()
    import xcli.cli.main  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _serve(connection)
            connection.close()


def _trust(weights: str) -> None:
    from xcli.models import imagenet_weights as module

    data = Path(weights).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    module.IMAGENET_TOP = dataclasses.replace(module.IMAGENET_TOP, size=len(data), sha256=digest)


def _serve(connection: socket.socket) -> None:
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    file = connection.makefile("rw", encoding="utf-8")
    request: dict[str, Any] = json.loads(file.readline())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["environment"])
        if "arguments" in request:
            _command(request["arguments"])
        _code(file)
        os._exit(0)
    for stream in streams:
        os.close(stream)
    _, status = os.waitpid(child, 0)
    if "arguments" in request:
        file.write(f"{os.waitstatus_to_exitcode(status)}\n")
        file.flush()
    os._exit(0)


def _command(arguments: list[str]) -> None:
    from xcli.cli.main import main as command

    sys.argv = ["xception", *arguments]
    command()


def _code(file: Any) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for line in file:
        answer = ""
        try:
            exec(compile(json.loads(line), "example", "exec"), namespace)
        except BaseException:  # noqa: BLE001 - whatever it is, the answer says so
            answer = traceback.format_exc()
        sys.stdout.flush()
        file.write(json.dumps(answer) + "\n")
        file.flush()


if __name__ == "__main__":
    main()
