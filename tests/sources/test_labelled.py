"""Class folders, splits and manifests to labelled images."""

from __future__ import annotations

import logging
import os
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xcli.core.errors import SourceError
from xcli.sources.class_folders import NO_CLASS
from xcli.sources.labelled import read_labelled
from xcli.sources.splits import split_of_name


@pytest.fixture
def make(tmp_path):
    """Makes empty files, whose content nothing here looks at; returns the directory above them."""

    def make(*names):
        for name in names:
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return str(tmp_path / "data")

    return make


@pytest.fixture
def warnings(caplog, monkeypatch):
    """What was warned of; the program's logger may have been cut off from pytest's by an earlier test."""
    logger = logging.getLogger("xcli")
    monkeypatch.setattr(logger, "propagate", False)
    logger.addHandler(caplog.handler)
    yield lambda: [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    logger.removeHandler(caplog.handler)


def listed(images, top):
    return [(os.path.relpath(one.ref.path, top), one.label, one.split) for one in images.samples]


def test_class_folders_in_byte_order(make, warnings):
    top = make("b/2.jpg", "b/1.png", "a b/deep/er/3.jpg", "B/4.webp", "b/.hidden.jpg", "b/notes.txt", "readme.md")
    images = read_labelled(top)
    assert listed(images, top) == [
        ("B/4.webp", "B", None),
        ("a b/deep/er/3.jpg", "a b", None),
        ("b/1.png", "b", None),
        ("b/2.jpg", "b", None),
    ]
    assert images.labels == ("B", "a b", "b")
    assert images.skipped == {"not an image": 2, "hidden": 1}
    assert (images.empty, images.splits) == ((), ())
    assert images.part(None) == images.samples
    assert images.part("train") == ()
    assert ["'a b' is taken for a class, but looks unlike" in text for text in warnings()] == [True]


def test_paths_and_keys_are_those_of_the_directory(make):
    top = make("a/1.jpg", "b/1.jpg")
    one, other = (sample.ref for sample in read_labelled(top + "/").samples)
    assert (one.path, other.path) == (f"{top}/a/1.jpg", f"{top}/b/1.jpg")
    assert (one.key, other.key) == (b"a/1.jpg", b"b/1.jpg")
    assert one.location.path == one.path


@pytest.mark.parametrize("validation", ["validation", "val", "Val"])
def test_splits(make, warnings, validation):
    top = make("train/a/1.jpg", "train/b/2.jpg", f"{validation}/a/3.jpg", f"{validation}/b/4.jpg", "test/b/5.jpg")
    images = read_labelled(top)
    assert listed(images, top) == [
        ("train/a/1.jpg", "a", "train"),
        ("train/b/2.jpg", "b", "train"),
        (f"{validation}/a/3.jpg", "a", "validation"),
        (f"{validation}/b/4.jpg", "b", "validation"),
        ("test/b/5.jpg", "b", "test"),
    ]
    assert images.splits == ("train", "validation", "test")
    assert [one.label for one in images.part("validation")] == ["a", "b"]
    assert not any("no image of" in text for text in warnings())


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train", "Training", "TRAIN_SET", "trainset", "train2017", "images_train")),
        *((name, "validation") for name in ("valid", "val", "Validation", "dev", "eval", "val-split", "validation_1")),
        *((name, "test") for name in ("test", "testing", "Holdout", "hold_out", "test set", "TEST-DATA")),
        *((name, None) for name in ("trains", "trainer", "eva", "testicle", "1", "set", "", "contest", "train/x")),
    ],
)
def test_names_of_splits(name, split):
    assert split_of_name(name) == split


def test_a_downloaded_data_set_with_train_and_valid(make):
    top = make("train/cat/1.jpg", "train/dog/2.jpg", "valid/cat/3.jpg", "valid/dog/4.jpg", "README.txt")
    images = read_labelled(top)
    assert (images.labels, images.splits) == (("cat", "dog"), ("train", "validation"))


def test_split_values_of_a_manifest(tmp_path):
    rows = ["a.jpg,x,Training", "b.jpg,y,train_1", "c.jpg,x,valid", "d.jpg,y,dev", "e.jpg,y,holdout"]
    images = read_labelled(manifest(tmp_path, "\n".join(["path,label,split", *rows])))
    assert [one.split for one in images.samples] == ["train", "train", "validation", "validation", "test"]


@pytest.mark.parametrize(
    "names",
    [
        ("lab_a/cat/1.jpg", "lab_a/dog/2.jpg", "lab_b/cat/3.jpg", "lab_b/dog/4.jpg"),
        ("fold1/cat/1.jpg", "fold1/dog/2.jpg", "fold2/cat/3.jpg", "fold2/dog/4.jpg", "fold2/owl/5.jpg"),
        ("cat/train/1.jpg", "cat/val/2.jpg", "dog/train/3.jpg", "dog/val/4.jpg"),
        ("images/train/1.jpg", "images/val/2.jpg", "labels/train/1.txt", "labels/val/2.txt"),
        ("train/a/cat/1.jpg", "train/a/dog/1.jpg", "train/b/cat/1.jpg", "train/b/dog/1.jpg", "val/a/cat/1.jpg"),
    ],
)
def test_folders_that_all_hold_the_same_folders_are_no_classes(make, names):
    with pytest.raises(SourceError, match=r"are no classes, because each holds the same folders: .*give a manifest"):
        read_labelled(make(*names))


@pytest.mark.parametrize(
    "names", [("cat/images/1.jpg", "dog/images/2.jpg"), ("cat/a/1.jpg", "cat/b/1.jpg", "dog/a/1.jpg", "dog/2.jpg")]
)
def test_folders_in_classes_that_are_no_reason_to_refuse(make, names):
    assert read_labelled(make(*names)).labels == ("cat", "dog")


@pytest.mark.parametrize("names", [("test/5.jpg", "test/6.jpg"), ("test/all/5.jpg", "test/all/6.jpg")])
def test_a_test_part_without_classes_is_left_out_and_said(make, warnings, names):
    top = make("train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg", "val/b/4.jpg", *names)
    images = read_labelled(top)
    assert (images.splits, len(images.samples)) == (("train", "validation"), 4)
    assert images.skipped == {"test image without a class": 2}
    assert ["have no class, and are left out: 2" in text for text in warnings()] == [True]


def test_a_test_part_with_one_unknown_class_among_known_ones_is_refused(make):
    with pytest.raises(SourceError, match="training split lacks: owl"):
        read_labelled(make("train/a/1.jpg", "train/b/2.jpg", "test/a/3.jpg", "test/owl/4.jpg"))


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ("runs/detect/exp/1.jpg", "'runs'"),
        ("runs/1.png", "'runs'"),
        ("raw/a/1.jpg", "'raw'"),
        ("train/1.jpg", "'train'"),
    ],
)
def test_a_folder_unlike_the_others_is_named(make, warnings, extra, named):
    images = read_labelled(make("cat/1.jpg", "dog/2.jpg", "owl/3.jpg", extra))
    assert len(images.labels) == 4
    assert [named in text and "taken for a class" in text for text in warnings()] == [True]


@pytest.mark.parametrize("other", ["runs/detect/1.jpg", "raw/1.jpg", "notes/a.txt"])
def test_one_split_beside_other_folders_is_refused(make, other):
    with pytest.raises(SourceError, match=r"'train' with folders in it, and '\w+' besides: move those away"):
        read_labelled(make("train/cat/1.jpg", "train/dog/2.jpg", other))


def test_system_folders_are_no_classes_and_their_images_are_in_none(make):
    top = make("cat/1.jpg", "cat/@eaDir/1.jpg", "dog/2.jpg", "@eaDir/3.jpg", "#recycle/4.jpg", "__MACOSX/cat/5.jpg")
    images = read_labelled(top)
    assert listed(images, top) == [("cat/1.jpg", "cat", None), ("dog/2.jpg", "dog", None)]
    assert images.skipped == {"system folder": 4}
    every = read_labelled(top, include_system=True)
    assert (len(every.samples), len(every.labels)) == (6, 5)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_that_look_alike_are_one_class_across_splits_and_manifests(make, tmp_path, form):
    name = unicodedata.normalize(form, "Café")
    images = read_labelled(make("train/Café/1.jpg", "train/x/2.jpg", f"val/{name}/3.jpg", "val/x/4.jpg"))
    assert images.labels == ("Café", "x")
    assert read_labelled(manifest(tmp_path, f"path,label\na,Café\nb,{name}\nc,x\n")).labels == ("Café", "x")


def test_folders_that_look_alike_are_refused(make):
    with pytest.raises(SourceError, match="the same class, but for white space or the normal form of Unicode"):
        read_labelled(make("Café/1.jpg", unicodedata.normalize("NFD", "Café") + "/2.jpg"))


def test_names_that_differ_only_in_case_are_refused_but_not_letters(make, tmp_path):
    with pytest.raises(SourceError, match=r"'Cat', 'cat' differ only in upper and lower case"):
        read_labelled(make("Cat/1.jpg", "cat/2.jpg"))
    with pytest.raises(SourceError, match=r"'Straße', 'strasse' differ only"):
        read_labelled(manifest(tmp_path, "path,label\na,Straße\nb,strasse\n"))
    assert read_labelled(manifest(tmp_path, "path,label\na,a\nb,A\n")).labels == ("A", "a")


def test_a_split_alone(make):
    top = make("test/a/1.jpg", "test/b/2.jpg")
    assert read_labelled(top).labels == ("a", "b")


def test_a_class_may_be_called_train(make):
    top = make("train/1.jpg", "car/2.jpg", "bus/3.jpg")
    assert read_labelled(top).labels == ("bus", "car", "train")


def test_splits_beside_classes_are_refused(make):
    top = make("train/a/1.jpg", "val/a/1.jpg", "raw/1.jpg")
    with pytest.raises(SourceError, match=r"'raw'.*move those away"):
        read_labelled(top)


def test_one_split_twice_is_refused(make):
    top = make("train/a/1.jpg", "val/a/1.jpg", "validation/a/1.jpg")
    with pytest.raises(SourceError, match=r"'val', 'validation'.*same split twice"):
        read_labelled(top)


@pytest.mark.parametrize("name", ["1.jpg", "notes.txt"])
def test_no_class_folders(make, name):
    top = make(name, "2.png")
    with pytest.raises(SourceError, match=r"no class folders, and \d images? without a class"):
        read_labelled(top)


def test_a_split_without_class_folders(make):
    top = make("train/a/1.jpg", "validation/2.jpg")
    with pytest.raises(SourceError, match=r"validation' has no class folders, and 1 image without a class"):
        read_labelled(top)


def test_images_beside_class_folders_are_counted(make, warnings):
    images = read_labelled(make("a/1.jpg", "2.jpg", "3.PNG"))
    assert len(images.samples) == 1
    assert images.skipped == {NO_CLASS: 2}
    assert ["2 of them" in text for text in warnings()] == [True]


def test_empty_class_folders(make, warnings, tmp_path):
    top = make("a/1.jpg", "b/notes.txt")
    (tmp_path / "data" / "c").mkdir()
    images = read_labelled(top)
    assert images.empty == ("b", "c")
    assert images.labels == ("a",)
    assert ["b, c" in text for text in warnings()] == [True]


def test_nothing_but_empty_class_folders(make):
    images = read_labelled(make("a/notes.txt"))
    assert (images.samples, images.labels, images.empty) == ((), (), ("a",))


def test_a_class_that_validation_lacks(make, warnings):
    images = read_labelled(make("train/a/1.jpg", "train/b/2.jpg", "validation/a/3.jpg", "validation/b/notes.txt"))
    assert images.empty == ()
    assert ["no image of b" in text for text in warnings()] == [True]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_class_that_training_lacks(make, split):
    top = make("train/a/1.jpg", f"{split}/a/2.jpg", f"{split}/dog/3.jpg", f"{split}/cat/3.jpg")
    with pytest.raises(SourceError, match=f"the {split} split .* training split lacks: cat, dog"):
        read_labelled(top)


def test_a_class_whose_training_folder_is_empty(make):
    top = make("train/a/1.jpg", "train/b/notes.txt", "validation/b/2.jpg")
    with pytest.raises(SourceError, match=r"lacks \(its folder there is empty\): b"):
        read_labelled(top)


def test_names_that_are_no_text(make, tmp_path):
    top = make("a/1.jpg")
    folder = os.path.join(os.fsencode(top), b"caf\xe9")
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("this file system takes only names that are UTF-8")
    with open(os.path.join(folder, b"2.jpg"), "wb"):
        pass
    images = read_labelled(top)
    assert images.labels == ("a", "caf\\xe9")
    assert images.samples[1].ref.path == f"{top}/caf\\xe9/2.jpg"
    assert os.path.exists(images.samples[1].ref.location)


def test_white_space_around_names(make):
    with pytest.raises(SourceError, match=r"'a', 'a '.* are the same class"):
        read_labelled(make("a/1.jpg", "a /1.jpg"))


def test_links_are_followed(make, tmp_path):
    top = make("a/1.jpg")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "2.jpg").touch()
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "c").symlink_to(tmp_path / "nowhere")
    (tmp_path / "data" / "a" / "3.jpg").symlink_to(tmp_path / "nowhere.jpg")
    images = read_labelled(top)
    assert [(one.label, one.ref.error and one.ref.error.reason) for one in images.samples] == [
        ("a", None),
        ("a", "missing"),
        ("b", None),
    ]
    assert images.skipped == {"broken symlink": 1}


@pytest.mark.parametrize("name", ["", "nothing/here", "photos.tar"])
def test_what_is_no_data(make, name, tmp_path, monkeypatch):
    make("a/1.jpg")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos.tar").touch()
    with pytest.raises(SourceError, match="manifest"):
        read_labelled(name)


def manifest(tmp_path, text, name="m.csv"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_csv_manifest(tmp_path):
    images = read_labelled(manifest(tmp_path, "note,path,label\nx,b.jpg, dog \ny,a.jpg,cat\nz,c.jpg,7\n"))
    assert [(one.ref.path, one.label, one.split) for one in images.samples] == [
        ("b.jpg", "dog", None),
        ("a.jpg", "cat", None),
        ("c.jpg", "7", None),
    ]
    assert images.labels == ("7", "cat", "dog")
    assert images.samples[0].ref.extra == ()


def test_parquet_manifest_with_splits_and_other_columns(tmp_path, warnings):
    table = {
        "file": ["a.jpg", "b.jpg", "c.jpg"],
        "class": pa.array([3, 5, 3]),
        "split": pa.array(["train", "Train", "val"]).dictionary_encode(),
    }
    pq.write_table(pa.table(table), tmp_path / "m.bin")
    images = read_labelled(str(tmp_path / "m.bin"), path_column="file", label_column="class")
    assert [(one.label, one.split) for one in images.samples] == [
        ("3", "train"),
        ("5", "train"),
        ("3", "validation"),
    ]
    assert ["do not exist" in text for text in warnings()] == [True, False]
    assert "no image of 5" in warnings()[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,kind\na.jpg,x\n", "no column 'label', only 'kind'; name it with --label-column"),
        ("path\na.jpg\n", "no column 'label', only no column but"),
        ("path,label\n", "lists no images"),
        ("path,label\na.jpg,\n", "image 1 .a.jpg.: the label is empty"),
        ("path,label\na.jpg,x\nb.jpg,  \n", "image 2 .b.jpg.: the label is empty"),
        ("path,label\na.jpg\n", "image 1 .a.jpg.: the label is empty"),
        ("path,label\na.jpg,x,y\n", "cannot be used: .* has 3 fields"),
        ('path,label\na.jpg,"x\n', "cannot be used"),
        ("path,label,split\na.jpg,x,fold\n", "image 1 .a.jpg.: the split is 'fold'"),
        ("path,label,split\na.jpg,x,\n", "the split is nothing"),
        ("path,label,split\na.jpg,x,train\nb.jpg,y,test\n", "the test split .* lacks: y"),
        ("", "empty"),
    ],
)
def test_manifests_that_cannot_be_used(tmp_path, text, message):
    with pytest.raises(SourceError, match=message):
        read_labelled(manifest(tmp_path, text))


def test_labels_that_are_no_names(tmp_path):
    pq.write_table(pa.table({"path": ["a.jpg"], "label": [0.5]}), tmp_path / "m.parquet")
    with pytest.raises(SourceError, match=r"holds 0\.5, which is no class name"):
        read_labelled(str(tmp_path / "m.parquet"))


def test_a_row_without_a_path_is_a_sample_with_an_error(tmp_path):
    images = read_labelled(manifest(tmp_path, "path,label\na.jpg,x\n,x\n"))
    assert [one.ref.error and one.ref.error.reason for one in images.samples] == [None, "missing"]


def test_an_image_with_two_labels_is_warned_of(tmp_path, warnings):
    images = read_labelled(manifest(tmp_path, "path,label\na.jpg,x\nb.jpg,x\na.jpg,y\n"))
    assert len(images.samples) == 3
    assert ["for 1 of its paths, a.jpg first" in text for text in warnings()] == [False, True]


def test_a_manifest_in_an_object_store(s3, tmp_path):
    photo = s3.put("labelled/a.jpg", b"x")
    (tmp_path / "m.csv").write_text(f"path,label\n{photo},cat\nlocal.jpg,dog\n")
    url = s3.put("labelled/m.csv", (tmp_path / "m.csv").read_bytes())
    for source in (url, str(tmp_path / "m.csv")):
        images = read_labelled(source)
        assert [(one.ref.path, one.label) for one in images.samples] == [(photo, "cat"), ("local.jpg", "dog")]
        assert images.samples[0].ref.location.read(10) == b"x"


def test_class_folders_in_an_object_store_are_refused():
    with pytest.raises(SourceError, match="'s3://b/train/': class folders are read on this machine only; copy them"):
        read_labelled("s3://b/train/")
