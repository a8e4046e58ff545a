"""Names of folders to classes of a model."""

from __future__ import annotations

import pytest

from xcli.core.errors import SourceError
from xcli.models.labels import Labels, default_labels, imagenet_labels
from xcli.models.naming import match_labels


def test_by_name_never_by_position():
    labels = Labels(("zebra", "ant", "moth"), source="x.txt")
    assert match_labels(["ant", "moth", "zebra"], labels) == {"ant": 1, "moth": 2, "zebra": 0}


def test_case_first_as_written_then_any():
    labels = Labels(("Polish", "polish", "Great_White Shark"), source="x.txt")
    assert match_labels(["polish", "Polish", "great white_shark"], labels) == {
        "polish": 1,
        "Polish": 0,
        "great white_shark": 2,
    }
    with pytest.raises(SourceError, match=r"POLISH means several .* Polish \(0\), polish \(1\)"):
        match_labels(["POLISH"], labels)


def test_imagenet_by_wnid_and_by_name():
    labels = imagenet_labels()
    assert labels.wnids is not None
    every = match_labels(labels.wnids, labels)
    assert list(every.values()) == list(range(1000))
    assert match_labels(["n01440764", "tench", "Great White Shark", "N01443537"], labels) == {
        "n01440764": 0,
        "tench": 0,
        "Great White Shark": 2,
        "N01443537": 1,
    }
    unique = [name for name in labels.names if labels.names.count(name) == 1]
    assert [labels.names[index] for index in match_labels(unique, labels).values()] == unique


@pytest.mark.parametrize("name", ["crane", "maillot", "Crane"])
def test_names_that_imagenet_has_twice(name):
    labels = imagenet_labels()
    with pytest.raises(SourceError, match=r"use the wnid instead: n\d{8} \(class \d+\) or n\d{8}"):
        match_labels([name], labels)


def test_all_unknown_names_are_listed():
    names = [f"thing {number}" for number in range(50)]
    with pytest.raises(SourceError) as raised:
        match_labels(["tench", *names], imagenet_labels())
    assert ", ".join(names) in str(raised.value)
    assert "tench, thing" not in str(raised.value)
    with pytest.raises(SourceError, match=r"dog is no class of the model; .* names of its 2 classes \(a, b, \.\.\.\)"):
        match_labels(["dog"], Labels(("a", "b"), source="x.txt"))


def test_a_model_without_names():
    assert match_labels(["1"], default_labels(3)) == {"1": 1}
    with pytest.raises(SourceError, match="give them with --labels FILE"):
        match_labels(["dog"], default_labels(3))
