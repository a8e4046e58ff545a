"""Where the network is cut."""

from __future__ import annotations

import pytest

from xcli.core.errors import UsageError
from xcli.training.freezing import PIXELS, UNFREEZE, cut_below


@pytest.mark.parametrize(
    ("unfreeze", "tap", "first"),
    [
        ("none", None, None),
        ("block14", "block13_add", "block14_sepconv1"),
        ("block13", "block12_add", "block13_residual_conv"),
        ("block2", "block1_conv2_act", "block2_residual_conv"),
        ("block1", PIXELS, "block1_conv1"),
        ("all", PIXELS, "block1_conv1"),
    ],
)
def test_the_cut_lies_below_the_first_trained_block(unfreeze: str, tap: str | None, first: str | None) -> None:
    cut = cut_below(unfreeze)
    assert cut.tap == tap
    assert next((layer.name for layer in cut.trained), None) == first


def test_what_is_trained_reads_nothing_from_below_but_the_cut() -> None:
    for unfreeze in UNFREEZE[1:]:
        cut = cut_below(unfreeze)
        known = {"input" if cut.tap == PIXELS else cut.tap}
        for layer in cut.trained:
            assert set(layer.inputs) <= known, (unfreeze, layer.name)
            known.add(layer.name)


def test_the_size_on_the_disk() -> None:
    assert cut_below("none").bytes_per_image(299) == 2048 * 4
    assert cut_below("block14").bytes_per_image(299) == 2048 * 4 + 10 * 10 * 1024 * 2
    assert cut_below("block13").bytes_per_image(299) == 2048 * 4 + 19 * 19 * 728 * 2
    assert cut_below("all").bytes_per_image(299) == 2048 * 4 + 299 * 299 * 3


def test_refuses_what_is_no_block() -> None:
    with pytest.raises(UsageError, match="received 'block15'"):
        cut_below("block15")
