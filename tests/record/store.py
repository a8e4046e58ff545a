"""Servers on loopback, in threads of this process: an S3 bucket (moto's), and a web server over the inputs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.record.masks import Masks, describe_content

BUCKET = "photographs"
KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Store:
    """A bucket, seen past the program.

    Attributes:
        env: environment variables with which a command finds it, and the web server as `WEB`.
    """

    def __init__(self, endpoint: str, web: str) -> None:
        import boto3

        self.env = {**KEYS, "AWS_ENDPOINT_URL": endpoint, "WEB": web}
        self.env |= {f"XCEPTION_{name}_ALLOW_PRIVATE_HOSTS": "1" for name in ("CLASSIFY", "FEATURES", "INFO")}
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            region_name=KEYS["AWS_DEFAULT_REGION"],
        )
        self._client.create_bucket(Bucket=BUCKET)

    def fill(self, inputs: Path) -> None:
        """Puts the inputs that are sound files into the bucket."""
        for folder in ("photos", "archives", "tables"):
            for path in sorted((inputs / folder).rglob("*")):
                if path.is_file():
                    key = f"in/{path.relative_to(inputs).as_posix()}"
                    self._client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())

    def describe(self, prefix: str, masks: Masks) -> dict[str, Any]:
        """Every object whose key begins so, as `describe_files` does it; and uploads that were left open."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        keys = sorted(item["Key"] for page in pages for item in page.get("Contents", ()))
        found = {}
        for key in keys:
            data = self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            found[f"s3://{BUCKET}/{masks.text(key)}"] = describe_content(key, data, masks)
        uploads = self._client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())
        if open_ones := sorted(item["Key"] for item in uploads if item["Key"].startswith(prefix)):
            found["uploads left open"] = {"keys": open_ones}
        return found


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """Nothing."""


@contextmanager
def serving(inputs: Path) -> Iterator[Store]:
    """Starts both servers."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    bucket = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    bucket.start()
    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(inputs)))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        host, port = bucket.get_host_and_port()
        store = Store(f"http://{host}:{port}", f"http://127.0.0.1:{web.server_port}")
        store.fill(inputs)
        yield store
    finally:
        web.shutdown()
        web.server_close()
        bucket.stop()
