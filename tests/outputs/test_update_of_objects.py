"""Tables of images in object stores, compared with their sources and brought up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.stubrun import StubRun
from xcli.core.errors import OutputError, SourceError
from xcli.outputs.comparison import StaleOutputError
from xcli.outputs.options import Output, SaveOptions
from xcli.outputs.save import save
from xcli.outputs.target import parse_target

if TYPE_CHECKING:
    from pathlib import Path

    from tests.objectstore import ObjectStore

NAMES = [f"{number:02}.jpg" for number in range(20)]


def run(target: Path, **options: Any) -> list[str]:
    """Runs over the objects of a prefix, or of a manifest; returns the names of the images that were computed."""
    sources: dict[str, Any] = {name: options.pop(name) for name in ("manifest",) if name in options}
    stub: Any = StubRun(options.pop("sources", []), "features", **sources)
    computed: list[str] = []
    output = Output("features", parse_target(str(target)), target.suffix[1:], options.pop("overwrite", False))
    save(
        stub,
        output,
        SaveOptions(**options),
        on_batch=lambda batch: computed.extend(ref.path.rpartition("/")[2] for ref in batch.refs),
    )
    return computed


@pytest.fixture
def prefix(s3: ObjectStore) -> str:
    prefix = s3.prefix()
    for name in NAMES:
        s3.put(f"{prefix}/{name}", name.encode())
    return prefix


@pytest.mark.parametrize("form", ["csv", "parquet", "npy"])
@pytest.mark.parametrize("listed", [True, False])
def test_new_changed_and_gone_objects(s3: ObjectStore, prefix: str, tmp_path: Path, form: str, listed: bool) -> None:
    target, manifest = tmp_path / f"t.{form}", tmp_path / "list.csv"

    def sources() -> dict[str, Any]:
        if listed:
            return {"sources": [s3.url(f"{prefix}/")]}
        manifest.write_text("path\n" + "".join(f"{s3.url(key)}\n" for key in s3.keys(f"{prefix}/")))
        return {"manifest": str(manifest)}

    assert run(target, **sources()) == NAMES
    assert run(target, **sources()) == []
    s3.put(f"{prefix}/005.jpg", b"new")
    s3.put(f"{prefix}/07.jpg", b"other!")  # of the same size, so that its ETag alone tells it within a second
    s3.delete(f"{prefix}/11.jpg")
    before = target.read_bytes()
    with pytest.raises(StaleOutputError, match="1 image is new, 1 has changed, 1 is gone"):
        run(target, **sources())
    assert target.read_bytes() == before
    assert run(target, update=True, **sources()) == ["005.jpg", "07.jpg"]
    updated = [target.read_bytes(), (tmp_path / f"t.{form}.states").read_bytes()]
    run(target, overwrite=True, **sources())
    assert updated == [target.read_bytes(), (tmp_path / f"t.{form}.states").read_bytes()]


def test_objects_that_are_gone_or_cannot_be_listed_lose_no_row(s3: ObjectStore, prefix: str, tmp_path: Path) -> None:
    target, url = tmp_path / "t.csv", s3.url(f"{prefix}/")
    run(target, sources=[url])
    before = target.read_bytes()
    for name in NAMES[1:]:
        s3.delete(f"{prefix}/{name}")
    with pytest.raises(OutputError, match=r"19 of its 20 rows .* --drop-missing"):
        run(target, sources=[url], update=True)
    s3.delete(f"{prefix}/{NAMES[0]}")
    with pytest.raises(SourceError, match="no such object, and none below it"):
        run(target, sources=[url], update=True)
    with pytest.raises(SourceError, match="cannot list 's3://no-such-bucket/"):
        run(target, sources=[f"s3://no-such-bucket/{prefix}/"], update=True)
    assert target.read_bytes() == before
