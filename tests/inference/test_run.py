"""The run: every reference one row, in order, whatever happens on the way."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import save_photos
from xcli.core.errors import ImageError, XcliError
from xcli.core.records import ImageRef, RunCounts
from xcli.core.version import versions
from xcli.inference.options import RunOptions
from xcli.inference.run import Run
from xcli.inference.tasks import FeaturesTask
from xcli.models.loader import load_model, preprocessing_for
from xcli.models.network import LoadedModel
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.storage.local import LocalFile
from xcli.tables.provenance import differences, provenance_of


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model(weights="none", include_top=False, image_size=71)


def run_over(model: LoadedModel, *sources: Path, options: RunOptions | None = None) -> tuple[Run, list[dict]]:
    listing = list_images(SourceOptions(tuple(map(str, sources)), missing_ok=True))
    run = Run(listing, model, FeaturesTask(), preprocessing_for(model), options or RunOptions())
    run.start()
    return run, [row for _, rows in run.batches() for row in rows.to_pylist()]


@pytest.mark.parametrize("batch_size", [1, 3, 7, None])
def test_one_row_a_reference_in_order(model: LoadedModel, tmp_path: Path, batch_size: int | None) -> None:
    save_photos(tmp_path, [f"{n}.jpg" for n in range(8)])
    for bad in ("2x.jpg", "5x.jpg"):
        (tmp_path / bad).write_bytes(b"")
    run, rows = run_over(model, tmp_path, options=RunOptions(batch_size=batch_size, workers=3))
    names = sorted(os.listdir(tmp_path))
    assert [Path(row["path"]).name for row in rows] == names
    assert [row["status"] for row in rows] == ["error" if "x" in name else "ok" for name in names]
    assert run.report == RunCounts(listed=10, ok=8, errors={"empty": 2}, skipped={})


@pytest.mark.parametrize(("images", "expected"), [(1, 1), (2, 2), (5, 5), (40, 16)])
def test_the_batch_fits_the_listing(model: LoadedModel, tmp_path: Path, images: int, expected: int) -> None:
    (original,) = save_photos(tmp_path / "one", ["x.jpg"])
    (tmp_path / "in").mkdir()
    for number in range(images):
        os.link(original, tmp_path / "in" / f"{number}.jpg")
    run, rows = run_over(model, tmp_path / "in", options=RunOptions(device="cpu"))
    assert run.provenance("features")["batch_size"] == expected
    assert len(rows) == images


@pytest.mark.parametrize(("images", "expected"), [(20, False), (30, True)])
def test_a_long_run_embeds_its_constants(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: int, expected: bool
) -> None:
    monkeypatch.setattr("xcli.inference.run.LONG_RUN", 25)
    (original,) = save_photos(tmp_path / "one", ["x.jpg"])
    (tmp_path / "in").mkdir()
    for number in range(images):
        os.link(original, tmp_path / "in" / f"{number}.jpg")
    asked: list[bool] = []

    class Untraced:
        """Tracing with constants embedded takes seconds, and is tested where the engine is."""

        output_shapes = ((2048,),)

        def __init__(self, forward: object, *, embedded: bool, **_: object) -> None:
            asked.append(embedded)

    monkeypatch.setattr("xcli.inference.engines.tensorflow.Engine", Untraced)
    listing = list_images(SourceOptions(sources=(str(tmp_path / "in"),)))
    Run(listing, model, FeaturesTask(), preprocessing_for(model), RunOptions(device="cpu")).start()
    assert asked == [expected]


def test_manifest_rows_that_take_much_memory_are_not_listed_early(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xcli.inference.run._MAX_EARLY_BYTES", 10_000)
    (tmp_path / "m.csv").write_text("path,note\n" + f"a.jpg,{'x' * 1000}\n" * 3000)
    listing = list_images(SourceOptions(manifest=str(tmp_path / "m.csv")))
    run = Run(listing, model, FeaturesTask(), preprocessing_for(model), RunOptions(batch_size=1, device="cpu"))
    assert run._is_long()
    assert listing.listed < 20


def test_a_list_on_standard_input_is_not_waited_for(model: LoadedModel) -> None:
    listing = list_images(SourceOptions(sources=("-",)), stdin=io.BytesIO(b"x.jpg\n" * 5000))
    run = Run(listing, model, FeaturesTask(), preprocessing_for(model), RunOptions(batch_size=1, device="cpu"))
    run.start()
    assert listing.listed == 0


def test_a_batch_of_errors_alone(model: LoadedModel, tmp_path: Path) -> None:
    run, rows = run_over(model, *(tmp_path / f"{n}.jpg" for n in range(5)), options=RunOptions(batch_size=2))
    assert [row["status"] for row in rows] == ["error"] * 5
    assert run.report.errors == {"missing": 5}


def test_a_listing_that_breaks_ends_the_run_after_the_rows_before(model: LoadedModel, tmp_path: Path) -> None:
    (photo,) = save_photos(tmp_path, ["x.jpg"])
    ref = ImageRef("x.jpg", LocalFile(str(photo)), b"x.jpg")

    class Broken:
        def __init__(self) -> None:
            self.extra_columns, self.listed, self.skipped = (), 2, dict[str, int]()
            self.options = SourceOptions(sources=("-",))

        def __iter__(self) -> Iterator[ImageRef]:
            yield ref
            yield ref
            raise OSError("the mount is gone")

    run = Run(Broken(), model, FeaturesTask(), preprocessing_for(model), RunOptions(batch_size=2))  # type: ignore[arg-type]
    run.start()
    rows = []
    with pytest.raises(OSError, match="the mount is gone"):
        rows.extend(rows for _, rows in run.batches())
    assert sum(batch.num_rows for batch in rows) in (0, 2)


def test_rows_that_do_not_add_up_are_a_bug_said_loudly(model: LoadedModel, tmp_path: Path) -> None:
    listing = list_images(SourceOptions(sources=(str(tmp_path),)))
    run = Run(listing, model, FeaturesTask(), preprocessing_for(model), RunOptions())
    run.start()
    listing.listed += 1
    with pytest.raises(XcliError, match="1 images were listed, 0 counted and 0 rows written"):
        list(run.batches())


def test_report_counts() -> None:
    report = RunCounts()
    report.count((None, ImageError("empty", "x"), ImageError("empty", "y"), ImageError("timeout", "z")))
    assert (report.ok, report.failed, report.rows) == (1, 3, 4)
    assert report.errors == {"empty": 2, "timeout": 1}


def test_versions_without_imports() -> None:
    import tensorflow as tf

    assert versions()["tensorflow"] == tf.__version__


def test_variables_that_change_results_stand_in_the_provenance(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photos(tmp_path, ["x.jpg"])
    run, _ = run_over(model, tmp_path)
    plain = run.provenance("features")
    assert "environment" not in plain
    for name in ("TF_CLI_CONFIG_FILE", "OMP_NUM_THREADS", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, "3")
    assert run.provenance("features") == plain
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    odd = run.provenance("features")
    assert odd == {**plain, "environment": {"TF_ENABLE_ONEDNN_OPTS": "0"}}
    assert provenance_of({**odd, "seconds": 1}) == odd
    assert differences(plain, odd) == [("environment.TF_ENABLE_ONEDNN_OPTS", None, "0")]
