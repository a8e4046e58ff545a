"""Class names: the formats they come in, the ImageNet index, and which class the name of a folder means."""

from __future__ import annotations

import json
import os
import unicodedata
from typing import TYPE_CHECKING, Any

import pytest

from xcli.core.errors import ExitCode, LabelsError, SourceError
from xcli.models.labels import Labels, default_labels, fit_labels, imagenet_labels, match_labels, read_labels

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("cup", "fork", "wine glass", "Löffel", "crane", "crane")
WNIDS = tuple(f"n{number:08d}" for number in range(6))
PAIRED = "".join(f"{wnid}\t{name}\n" for wnid, name in zip(WNIDS, NAMES, strict=True))


def write(folder: Path, content: str | bytes) -> str:
    path = folder / "labels.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def refused(path: str, match: str) -> None:
    with pytest.raises(LabelsError, match=match) as caught:
        read_labels(path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code is ExitCode.MODEL


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(NAMES),
        "\n".join(NAMES) + "\n",
        "\r\n".join(NAMES) + "\r\n",
        "\r".join(NAMES),
        "\ufeff" + "\n".join(NAMES),
        "\n\n" + "\n \n".join(f"  {name} " for name in NAMES) + "\n\n",
        json.dumps(NAMES),
        " \n" + json.dumps(NAMES, indent=2, ensure_ascii=False),
        "\ufeff" + json.dumps(NAMES),
        json.dumps({str(index): name for index, name in enumerate(NAMES)}),
        json.dumps({str(index): NAMES[index] for index in (3, 1, 5, 0, 4, 2)}),
        json.dumps({"labels": NAMES}),
        json.dumps({"labels": NAMES, "version": 1}),
    ],
)
def test_reads_names(content: str, tmp_path: Path) -> None:
    path = write(tmp_path, content)
    assert read_labels(path) == Labels(NAMES, None, path)


@pytest.mark.parametrize(
    "content",
    [
        PAIRED,
        PAIRED.replace("\n", "\r\n"),
        "\ufeff" + PAIRED,
        json.dumps([list(pair) for pair in zip(WNIDS, NAMES, strict=True)]),
        json.dumps({str(index): [WNIDS[index], NAMES[index]] for index in (5, 0, 1, 2, 4, 3)}),
        json.dumps({"labels": [[wnid, name] for wnid, name in zip(WNIDS, NAMES, strict=True)]}),
    ],
)
def test_reads_names_with_wnids(content: str, tmp_path: Path) -> None:
    path = write(tmp_path, content)
    assert read_labels(path) == Labels(NAMES, WNIDS, path)


def test_reads_the_class_indices_of_keras_generators(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps({"dress": 2, "hat": 0, "7": 1}))
    assert read_labels(path).names == ("hat", "7", "dress")


def test_a_name_may_hold_what_unicode_takes_for_a_line_end(tmp_path: Path) -> None:
    names = ("a\x0bb", "c\u2028d", "e\x85f", "g\x1ch")
    assert read_labels(write(tmp_path, "\n".join(names))).names == names


def test_only_the_first_tab_parts(tmp_path: Path) -> None:
    found = read_labels(write(tmp_path, "n1\tone\ttwo\nn2\tthree\n"))
    assert (found.names, found.wnids) == (("one\ttwo", "three"), ("n1", "n2"))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "holds no labels"),
        ("\n \n", "holds no labels"),
        ("[]", "holds no labels"),
        ("{}", "holds no labels"),
        ("n1\tone\ntwo\n", "label 2 is not written like the first"),
        ("one\nn2\ttwo\n", "label 2 is not written like the first"),
        ('["one", ["n2", "two"]]', "label 2 is not written like the first"),
        ('["one", " "]', "label 2 is empty"),
        ("n1\t\n", "label 1 is empty"),
        ('["one", 2]', "received '2'"),
        ('["one", ["n1", "two", "three"]]', "a label must be a name or"),
        ('["one", null]', "received 'None'"),
        ('{"0": "a", "2": "b"}', "indices are not 0 to 1"),
        ('{"1": "a", "2": "b"}', "indices are not 0 to 1"),
        ('{"0": "a", "00": "b"}', "indices are not 0 to 1"),
        ('{"-1": "a", "0": "b"}', "indices are not 0 to 1"),
        ('{"a": "b"}', "indices are not 0 to 0"),
        ('{"a": 0, "b": 2}', "indices are not 0 to 1"),
        ('{"a": 0, "b": 0}', "indices are not 0 to 1"),
        ('{"a": true, "b": false}', "indices are not 0 to 1"),
        ('{"0": 0.5}', "received '0.5'"),
        ('["one", ', "is not a label file"),
        ("[" * 100_000, "is not a label file"),
        ("{1: 2}", "is not a label file"),
        (b"caf\xe9\n", "is not UTF-8 text"),
        (b"\xff\xfeh\x00a\x00t\x00", "is not UTF-8 text"),
    ],
)
def test_refuses_what_is_no_label_file(content: str | bytes, match: str, tmp_path: Path) -> None:
    refused(write(tmp_path, content), match)


def test_names_the_reason_when_a_file_cannot_be_read(tmp_path: Path) -> None:
    refused(str(tmp_path / "missing.txt"), "cannot read labels from .*: No such file or directory")
    refused(str(tmp_path), "Is a directory")


def test_labels_may_come_through_a_pipe(tmp_path: Path) -> None:
    read, write_ = os.pipe()
    os.write(write_, b"one\ntwo\n")
    os.close(write_)
    try:
        assert read_labels(f"/dev/fd/{read}").names == ("one", "two")
    finally:
        os.close(read)


def test_the_number_of_labels_must_fit(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, "\n".join(NAMES)))
    assert fit_labels(labels, 6) is labels
    with pytest.raises(LabelsError, match="has 6 labels, but the model has 5 classes"):
        fit_labels(labels, 5)


def test_without_a_file_the_label_is_the_index(tmp_path: Path) -> None:
    assert fit_labels(None, 3) == Labels(("0", "1", "2"), None, "index")
    assert default_labels(1000) is imagenet_labels()
    assert default_labels(999).names[-1] == "998"


def test_the_imagenet_index() -> None:
    labels = imagenet_labels()
    assert labels.wnids is not None
    assert len(labels.names) == len(labels.wnids) == 1000
    assert (labels.wnids[0], labels.names[0]) == ("n01440764", "tench")
    assert (labels.wnids[999], labels.names[999]) == ("n15075141", "toilet_tissue")
    assert labels.names[134] == labels.names[517] == "crane"
    assert len(set(labels.wnids)) == 1000
    assert len(set(labels.names)) == 998  # crane and maillot stand twice
    assert all(name and name == name.strip() for name in labels.names)
    assert all(wnid[0] == "n" and wnid[1:].isdecimal() and len(wnid) == 9 for wnid in labels.wnids)
    assert list(labels.wnids) == sorted(labels.wnids)


def test_the_imagenet_index_is_that_of_keras(data: Path) -> None:
    path = data / "imagenet_class_index.json"
    if not path.is_file():
        pytest.skip(f"no class index at {path}")
    theirs: Any = read_labels(str(path))
    ours = imagenet_labels()
    assert theirs.wnids == ours.wnids
    assert [name.replace("_", " ") for name in theirs.names] == [name.replace("_", " ") for name in ours.names]


def test_the_digest_is_of_names_and_wnids() -> None:
    labels = Labels(("a", "b"), None, "x")
    assert labels.digest == Labels(("a", "b"), None, "y").digest
    assert len({labels.digest, Labels(("b", "a")).digest, Labels(("a", "b"), ("c", "d")).digest}) == 3


def test_by_name_never_by_position() -> None:
    labels = Labels(("zebra", "ant", "moth"), source="x.txt")
    assert match_labels(["ant", "moth", "zebra"], labels) == {"ant": 1, "moth": 2, "zebra": 0}


def test_case_first_as_written_then_any() -> None:
    labels = Labels(("Polish", "polish", "Great_White Shark"), source="x.txt")
    assert match_labels(["polish", "Polish", "great white_shark"], labels) == {
        "polish": 1,
        "Polish": 0,
        "great white_shark": 2,
    }
    with pytest.raises(SourceError, match=r"POLISH means several .* Polish \(0\), polish \(1\)"):
        match_labels(["POLISH"], labels)


def test_imagenet_by_wnid_and_by_name() -> None:
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
def test_names_that_imagenet_has_twice(name: str) -> None:
    labels = imagenet_labels()
    with pytest.raises(SourceError, match=r"use the wnid instead: n\d{8} \(class \d+\) or n\d{8}"):
        match_labels([name], labels)


def test_all_unknown_names_are_listed() -> None:
    names = [f"thing {number}" for number in range(50)]
    with pytest.raises(SourceError) as raised:
        match_labels(["tench", *names], imagenet_labels())
    assert ", ".join(names) in str(raised.value)
    assert "tench, thing" not in str(raised.value)
    with pytest.raises(SourceError, match=r"dog is no class of the model; .* names of its 2 classes \(a, b, \.\.\.\)"):
        match_labels(["dog"], Labels(("a", "b"), source="x.txt"))


def test_a_model_without_names() -> None:
    assert match_labels(["1"], default_labels(3)) == {"1": 1}
    with pytest.raises(SourceError, match="give them with --labels FILE"):
        match_labels(["dog"], default_labels(3))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_match_composed_or_not(form: str) -> None:
    labels = Labels((unicodedata.normalize(form, "Crème brûlée"), "Café"))
    for other in ("NFC", "NFD"):
        names = [unicodedata.normalize(other, name) for name in ("crème_brûlée", "CAFÉ")]
        assert list(match_labels(names, labels).values()) == [0, 1]
