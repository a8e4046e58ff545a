"""Servers on loopback for the tests of object stores, in threads of the testing process: S3 (moto's), and web."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

BUCKET = "photographs"

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class ObjectStore:
    """The server, seen past the program: what is put here was put by somebody else.

    Attributes:
        endpoint: its address.
        bucket: name of the bucket that is there from the start.
    """

    def __init__(self, endpoint: str) -> None:
        import boto3
        from botocore.config import Config

        self.endpoint = endpoint
        self.bucket = BUCKET
        self._numbers = itertools.count()
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
            region_name=ENVIRONMENT["AWS_DEFAULT_REGION"],
            config=Config(retries={"max_attempts": 0}, max_pool_connections=4),
        )
        self.client.create_bucket(Bucket=BUCKET)

    def prefix(self) -> str:
        """A prefix, without a slash at the end, that no other test has used."""
        return f"test-{os.getpid()}-{next(self._numbers)}"

    def url(self, key: str = "") -> str:
        """The address of an object or prefix of the bucket."""
        return f"s3://{self.bucket}/{key}"

    def put(self, key: str, data: bytes) -> str:
        """Stores an object; gives its address."""
        self.client.put_object(Bucket=self.bucket, Key=key, Body=data)
        return self.url(key)

    def get(self, key: str) -> bytes:
        """The bytes of an object."""
        data: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return data

    def delete(self, key: str) -> None:
        """Removes an object."""
        self.client.delete_object(Bucket=self.bucket, Key=key)

    def keys(self, prefix: str = "") -> list[str]:
        """The keys that begin so, sorted; all pages."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", ()))

    def uploads(self) -> list[str]:
        """Keys of the multipart uploads that were begun and neither completed nor aborted."""
        found = self.client.list_multipart_uploads(Bucket=self.bucket)
        return sorted(item["Key"] for item in found.get("Uploads", ()))

    def upload(self, directory: Path, prefix: str) -> str:
        """Stores every file below a directory; gives the address of the prefix, with a slash at the end."""
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(directory).as_posix()}", path.read_bytes())
        return self.url(prefix + "/")


@contextmanager
def serving() -> Iterator[ObjectStore]:
    """Starts the server on a free port, and sets the environment of this process and its children for it.

    Skips the test where the packages are not installed.
    """
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint}.items():
            patch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        forget()
        try:
            yield ObjectStore(endpoint)
        finally:
            forget()
            server.stop()


def forget() -> None:
    """Drops the file systems that are open, so that the next looks at the environment again."""
    import fsspec

    from xcli.storage import urls as cloud

    cloud._opened.clear()
    for known in ("s3", "http"):
        with suppress(ImportError):
            fsspec.get_filesystem_class(known).clear_instance_cache()


class WebServer:
    """A web server on loopback over a dictionary of files; counts what it is asked.

    Attributes:
        address: its URL, without a slash at the end.
        files: content by path, which begins with a slash.
        failures: how many more times each request is answered with 503.
        ranges: whether it gives parts of files.
        seen: method, path and `Range` header of the requests.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.failures = 0
        self.ranges = True
        self.seen: list[tuple[str, str, str | None]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        """Stops it."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, web: WebServer, *arguments: Any) -> None:
        self.web = web
        super().__init__(*arguments)

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        span = self.headers.get("Range")
        self.web.seen.append((self.command, self.path, span))
        data = self.web.files.get(self.path)
        status = 200 if data is not None else 404
        if self.web.failures > 0:
            self.web.failures -= 1
            status, data = 503, None
        self.send_response(206 if data is not None and span and self.web.ranges else status)
        if data is not None:
            self.send_header("ETag", f'"{zlib.crc32(data):08x}"')
            self.send_header("Last-Modified", "Mon, 02 Nov 2026 10:00:00 GMT")
            if span and self.web.ranges:
                first, last = (int(number) for number in span.removeprefix("bytes=").split("-"))
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
                data = data[first : last + 1]
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        if body and data:
            self.wfile.write(data)
