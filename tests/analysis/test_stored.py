"""Which tables of features go with which heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.analysis.featuretables import with_changes, write_features
from tests.analysis.heads import BACKBONE, MADE, head, table
from tests.objectstore import ObjectStore
from xcli.analysis.stored import check_fit, open_stored
from xcli.core.errors import ModelError, UsageError
from xcli.models.head import Head
from xcli.tables.provenance import META_SUFFIX, meta_text


def changed(**changes: dict[str, Any]) -> dict[str, Any]:
    """MADE with other members in some of its dictionaries."""
    return {key: {**value, **changes[key]} if key in changes else value for key, value in MADE.items()}


@pytest.mark.parametrize("form", ["parquet", "npy", "csv"])
def test_a_table_of_any_format_is_opened_with_what_made_it(tmp_path: Path, form: str) -> None:
    one = table(tmp_path / f"one.{form}")
    two = table(tmp_path / f"two.{form}", 7)
    stored = open_stored([one, two])
    assert (stored.backbone, stored.precision, stored.dtype) == (BACKBONE, "float32", "float32")
    assert [state.size for state in stored.states] == [Path(name).stat().st_size for name in (one, two)]
    check_fit(stored, head())


def test_float16_is_told(tmp_path: Path) -> None:
    names = [table(tmp_path / "one.parquet"), table(tmp_path / "two.npy", dtype="float16")]
    assert open_stored(names).described()["dtype"] == "float16"


def test_what_a_directory_of_parts_holds_counts_as_one_table(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for number in range(2):
        table(tmp_path / "parts" / f"part-{number:06}.parquet")
    stored = open_stored([str(tmp_path / "parts")])
    sizes = [path.stat().st_size for path in (tmp_path / "parts").glob("*.parquet")]
    assert stored.row_count == 40
    assert [state.size for state in stored.states] == [sum(sizes)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalize": True}, "unit length.* run features without --normalize"),
        ({"layer": "block4_pool"}, "is of layer block4_pool.* run features without --layer"),
        ({"pooling": "max"}, "is of --pooling max.* run features with --pooling avg"),
    ],
)
def test_other_vectors_than_the_averaged_last_map_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    name = table(tmp_path / "t.parquet", provenance=changed(options=options))
    with pytest.raises(UsageError, match=message):
        open_stored([name])


def test_features_beside_a_table_of_classify_are_averages(tmp_path: Path) -> None:
    made = {**MADE, "options": {"top": 5, "features": "avg"}}
    check_fit(open_stored([table(tmp_path / "t.parquet", provenance=made)]), head())


def test_tables_that_do_not_say_enough_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"t\.npy does not say what made it .*meta\.json is missing"):
        open_stored([table(tmp_path / "t.npy", provenance=None)])
    with pytest.raises(UsageError, match="layers before its Xception change the pixels"):
        open_stored([table(tmp_path / "u.npy", provenance=changed(model={"backbone": None}))])
    narrow = write_features(tmp_path / "n.npy", np.zeros((3, 728), np.float32), provenance=MADE)
    with pytest.raises(UsageError, match="728 values; a head takes the 2,048"):
        open_stored([narrow])


def test_tables_that_differ_are_refused_by_name(tmp_path: Path) -> None:
    one = table(tmp_path / "one.parquet")
    other = {**MADE, "precision": "bfloat16"}
    with pytest.raises(UsageError, match=r"one\.parquet and .*two\.npy differ in their precision: float32, bfloat16"):
        open_stored([one, table(tmp_path / "two.npy", provenance=other)])
    with pytest.raises(UsageError, match="differ in their backbone"):
        open_stored([one, table(tmp_path / "three.npy", provenance=changed(model={"backbone": "c" * 64}))])


def refusal(tmp_path: Path, given: Head, provenance: dict[str, Any] = MADE, precision: str = "auto") -> str:
    name = table(tmp_path / "t.npy", 2, provenance=provenance)
    with pytest.raises(ModelError) as caught:
        check_fit(open_stored([name]), given, precision)
    return str(caught.value)


def test_another_network_is_refused_by_its_digest(tmp_path: Path) -> None:
    text = refusal(tmp_path, head(backbone="a" * 64))
    assert "does not go with RUN: it was computed by imagenet" in text
    assert f"digest {'b' * 16}, and that of the bundle has {'a' * 16}" in text


@pytest.mark.parametrize(("unfreeze", "what"), [("all", "its whole network"), ("block13", "block13 of its network")])
def test_a_network_that_was_trained_too_is_refused_with_the_reason(tmp_path: Path, unfreeze: str, what: str) -> None:
    given = head(backbone="a" * 64, settings={"recipe": {"unfreeze": unfreeze}})
    text = refusal(tmp_path, given)
    assert f"{what}" in text
    assert f"was trained too (--unfreeze {unfreeze})" in text
    # If training the blocks has made it worse, the network is as it was.
    check_fit(open_stored([str(tmp_path / "t.npy")]), head(settings={**given.settings, "precision": "float32"}))


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"size": 331}, "--image-size 331"),
        ({"resize": "pad"}, "--resize pad"),
        ({"interpolation": "bilinear"}, "--interpolation bilinear"),
        ({"crop_pct": 0.95}, "--crop-pct 0.95"),
        ({"bit_depth": 12}, "--bit-depth 12"),
    ],
)
def test_images_that_were_prepared_otherwise_are_refused_by_the_option(
    tmp_path: Path, change: dict, option: str
) -> None:
    assert f"prepared with {option}, those of the bundle" in refusal(tmp_path, head(), changed(preprocessing=change))


def test_what_a_run_may_choose_for_itself_is_accepted(tmp_path: Path) -> None:
    made = changed(preprocessing={"jpeg_shrink": False, "resampler": "pillow", "bit_depth": 16})
    check_fit(open_stored([table(tmp_path / "t.npy", provenance=made)]), head())
    squashed = changed(preprocessing={"resize": "squash", "crop_pct": 0.5})
    given = head(preprocessing={**squashed["preprocessing"], "crop_pct": 0.7})
    check_fit(open_stored([table(tmp_path / "s.npy", provenance=squashed)]), given)


def test_another_precision_is_refused_unless_it_is_asked_for(tmp_path: Path) -> None:
    made = {**MADE, "precision": "bfloat16"}
    text = refusal(tmp_path, head(), made)
    assert "was computed in bfloat16, and RUN was trained in float32" in text
    assert "give --precision bfloat16 for the scores of classify --model RUN --precision bfloat16" in text
    check_fit(open_stored([str(tmp_path / "t.npy")]), head(), "bfloat16")
    assert "--precision is float32" in refusal(tmp_path, head(), made, "float32")
    assert "does not say in which precision" in refusal(tmp_path, head(settings={}), made)


def test_a_table_without_a_digest_goes_with_a_head_that_was_trained_on_its_model(tmp_path: Path) -> None:
    old = with_changes()
    model = {name: old["model"][name] for name in ("sha256", "input_range")}
    given = head(settings={"precision": "float32", "model": model, "recipe": {"unfreeze": "none"}})
    check_fit(open_stored([table(tmp_path / "t.npy", provenance=old)]), given)
    for settings in (
        {**given.settings, "recipe": {"unfreeze": "all"}},
        {**given.settings, "model": {**model, "sha256": "9" * 64}},
        {"precision": "float32"},
    ):
        assert "was written by an older version" in refusal(tmp_path, head(settings=settings), old)


def test_the_state_of_a_table_in_an_object_store_is_that_of_what_is_beside_it(tmp_path: Path, s3: ObjectStore) -> None:
    name = Path(table(tmp_path / "t.npy"))
    s3.upload(tmp_path, "stored")
    states = []
    for finished in ("1", "1", "2"):
        s3.put(f"stored/{name.name}{META_SUFFIX}", meta_text({**MADE, "finished": finished}))
        states += open_stored([s3.url(f"stored/{name.name}")]).states
    assert states[0] == states[1] != states[2]
    assert states[0].size == name.stat().st_size
