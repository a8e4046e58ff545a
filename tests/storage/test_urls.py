"""URLs; no server is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from xcli.core.errors import UsageError
from xcli.storage.urls import is_url, open_url, scheme_of


@pytest.mark.parametrize("url", ["s3://b/a.jpg", "S3://b", "gs://b/x/", "gcs://b/x", "http://h/x", "https://h/x.jpg"])
def test_urls(url: str) -> None:
    assert is_url(url)


@pytest.mark.parametrize(
    "path", ["", "-", "a.jpg", "s3:/b/a.jpg", "/data/s3://b", "file:///a.jpg", "ftp://h/x", "C://a", "s3", "://b"]
)
def test_paths_of_this_machine(path: str) -> None:
    assert not is_url(path)


def test_kinds_of_stores() -> None:
    assert [scheme_of(f"{name}://b/k") for name in ("s3", "S3", "gs", "gcs", "http", "https")] == [
        "s3",
        "s3",
        "gs",
        "gs",
        "http",
        "http",
    ]


@pytest.mark.parametrize(("url", "what"), [("s3://", "bucket"), ("s3:///", "bucket"), ("https://", "host")])
def test_a_url_of_nothing_is_refused(url: str, what: str) -> None:
    with pytest.raises(UsageError, match=f"names no {what}"):
        open_url(url)


def test_without_the_extra_a_url_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['fsspec'] = None\n"
        "from xcli.core.errors import UsageError\n"
        "from xcli.sources.listing import SourceOptions, list_images\n"
        "try: list_images(SourceOptions(('s3://b/photos/',)))\n"
        "except UsageError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == (
        "'s3://b/photos/' needs the packages for object stores; install them with: pip install s3fs gcsfs\n"
    )


def test_listing_without_urls_imports_no_package_for_stores(tmp_path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    code = (
        "import sys\n"
        "from xcli.sources.listing import SourceOptions, list_images\n"
        "assert len(list(list_images(SourceOptions((sys.argv[1],))))) == 1\n"
        "print(sorted({'fsspec', 's3fs', 'aiohttp', 'botocore', 'numpy', 'PIL'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
