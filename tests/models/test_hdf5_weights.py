"""Weight files: what is read, and everything that is refused."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from tests.networks import CLASSES, ordered, write_legacy
from xcli.core.errors import ExitCode, ModelError, WeightsError
from xcli.models import hdf5_checks
from xcli.models.architecture import FEATURE_WIDTH, weighted_layers
from xcli.models.hdf5_checks import check_tree
from xcli.models.hdf5_weights import BIAS, KERNEL, assign, random_weights, read_weights, values_problem

if TYPE_CHECKING:
    from pathlib import Path

    from xcli.models.hdf5_weights import Weights

LAYER = "block6_sepconv2"
LEGACY = f"{LAYER}/{LAYER}/pointwise_kernel:0"
KERAS3 = "layers/separable_conv2d_14/vars/1"
"""The pointwise kernel of one layer in the middle, in the two layouts."""


def legacy_name(name: str) -> str:
    layer, _, variable = name.partition("/")
    return f"{layer}/{layer}/{variable}:0"


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def without_top(weights: Weights) -> Weights:
    return {name: array for name, array in weights.items() if name not in (KERNEL, BIAS)}


# What is read


def test_reads_the_layout_of_keras_3(keras_weights_file: str, weights: Weights) -> None:
    assert same(read_weights(keras_weights_file, include_top=False), without_top(weights))


def test_reads_the_older_layout(legacy_weights_file: str, weights: Weights) -> None:
    assert same(read_weights(legacy_weights_file, include_top=True), weights)
    assert same(read_weights(legacy_weights_file, include_top=True, classes=CLASSES), weights)


HEAD = {"dense": ((FEATURE_WIDTH, 64), (64,)), "batch_normalization": ((64,),) * 4, "dense_1": ((64, 5), (5,))}
"""Shapes of the weights of a head with a hidden layer, by the names that Keras 3 gives the layers."""


def in_a_model(source: str, path: Path, container: str) -> str:
    """The weights of a model around an Xception that is nested in it, or, without a container, flat."""
    shutil.copy(source, path)
    with h5py.File(path, "r+") as file:
        head = dict(HEAD)
        if container:
            file.move("layers", "backbone")
            file.create_group(os.path.dirname(container))
            file.move("backbone", container)
        else:  # numbered after those of the Xception
            head["batch_normalization_40"] = head.pop("batch_normalization")
        for name, shapes in head.items():
            for number, shape in enumerate(shapes):
                file[f"layers/{name}/vars/{number}"] = np.ones(shape, np.float32)
    return str(path)


@pytest.mark.parametrize("container", ["", "layers/functional/layers", "layers/functional_1/layers/xception/layers"])
def test_finds_the_xception_in_a_checkpoint(
    keras_weights_file: str, weights: Weights, scratch: Path, container: str
) -> None:
    path = in_a_model(keras_weights_file, scratch / "model.weights.h5", container)
    assert same(read_weights(path, include_top=False), without_top(weights))
    with pytest.raises(WeightsError, match=r"save the whole model, model.save\('model.keras'\), then --model"):
        read_weights(path, include_top=True)


def test_two_of_them_are_refused(keras_weights_file: str, scratch: Path) -> None:
    path = in_a_model(keras_weights_file, scratch / "model.weights.h5", "layers/functional/layers")
    with h5py.File(path, "r+") as file:
        file["layers/functional_1"] = file["layers/functional"]
    with pytest.raises(WeightsError, match="it holds 2 of them"):
        read_weights(path, include_top=False)


def as_keras_2_nests_it(weights: Weights, path: Path) -> str:
    """A model around an Xception in the older layout: one group with all weights of it, those that train first."""
    layers = {layer.name: list(dict(layer.weights)) for layer in weighted_layers()}
    names = {layer: layer for layer in layers}
    counts = {"conv2d": 4, "batch_normalization": 4}
    for layer in layers:
        if "_residual_" in layer:
            kind = "batch_normalization" if len(layers[layer]) == 4 else "conv2d"
            names[layer] = f"{kind}_{counts[kind]}"
            counts[kind] += 1
    moving = ("moving_mean", "moving_variance")
    order = [(layer, one) for layer, found in layers.items() for one in found if one not in moving]
    order += [(layer, one) for layer, found in layers.items() for one in found if one in moving]
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"input_1", b"rescaling", b"xception", b"batch_normalization_9", b"dense"]
        for name in ("input_1", "rescaling"):
            file.create_group(name).attrs["weight_names"] = np.array([], "S1")
        group = file.create_group("xception")
        group.attrs["weight_names"] = [f"{names[layer]}/{one}:0".encode() for layer, one in order]
        for layer, one in order:
            group[f"{names[layer]}/{one}:0"] = weights[f"{layer}/{one}"]
        for name, ones in (("batch_normalization_9", ("gamma", "beta", *moving)), ("dense", ("kernel", "bias"))):
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{one}:0".encode() for one in ones]
            for one in ones:
                group[f"{name}/{one}:0"] = np.ones(3, np.float32)
    return str(path)


def test_finds_the_xception_in_a_checkpoint_of_keras_2(weights: Weights, scratch: Path) -> None:
    path = as_keras_2_nests_it(weights, scratch / "model.h5")
    assert same(read_weights(path, include_top=False), without_top(weights))
    with pytest.raises(WeightsError, match="`xception features` can use the Xception in it"):
        read_weights(path, include_top=True)


@pytest.mark.parametrize("name", ["model", "model.index", "model.data-00000-of-00001"])
def test_a_checkpoint_of_tensorflow_is_named(tmp_path: Path, name: str) -> None:
    for one in ("model.index", "model.data-00000-of-00001"):
        (tmp_path / one).write_bytes(b"x")
    with pytest.raises(WeightsError, match="is a checkpoint of TensorFlow; load it into its model"):
        read_weights(tmp_path / name, include_top=False)


def test_passes_over_a_top_that_is_not_wanted(legacy_weights_file: str, weights: Weights) -> None:
    assert same(read_weights(legacy_weights_file, include_top=False), without_top(weights))


def test_reads_names_that_are_text_instead_of_bytes(legacy_weights_file: str, weights: Weights, scratch: Path) -> None:
    path = changed(scratch, legacy_weights_file, _names_as(_text_names))
    assert same(read_weights(path, include_top=False), without_top(weights))


def _text_names(file: Any) -> Any:
    return np.array([name.decode() for name in file.attrs["layer_names"]], dtype=h5py.string_dtype())


def test_reads_half_and_double_precision_as_float32(legacy_weights_file: str, weights: Weights, scratch: Path) -> None:
    def change(file: Any) -> None:
        replace(file, LEGACY, weights[f"{LAYER}/pointwise_kernel"].astype(np.float64))
        replace(file, legacy_name("block1_conv1/kernel"), weights["block1_conv1/kernel"].astype(np.float16))

    found = read_weights(changed(scratch, legacy_weights_file, change), include_top=False)
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}
    assert np.array_equal(found[f"{LAYER}/pointwise_kernel"], weights[f"{LAYER}/pointwise_kernel"])
    assert np.abs(found["block1_conv1/kernel"] - weights["block1_conv1/kernel"]).max() < 1e-3


def test_reads_the_real_weights(real_weights: str) -> None:
    found = read_weights(real_weights, include_top=False)
    assert sum(array.size for array in found.values()) == 20_861_480
    assert {name: array.shape for name, array in found.items()} == {
        f"{layer.name}/{variable}": shape for layer in weighted_layers() for variable, shape in layer.weights
    }


def test_assigns_what_it_reads(ours: Any, weights: Weights) -> None:
    from xcli.models.xception import Xception

    model = Xception(weights=None, include_top=False)
    assign(model, without_top(weights))
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), ours.get_weights(), strict=True))


# What is refused


def changed(folder: Path, original: str, change: Callable[[Any], None]) -> str:
    path = str(folder / "changed.h5")
    shutil.copyfile(original, path)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def replace(file: Any, name: str, value: Any = None, **creation: Any) -> None:
    del file[name]
    if value is None:
        file.create_dataset(name, **creation)
    else:
        file[name] = value


def refused(path: str, match: str, **options: Any) -> None:
    with pytest.raises(WeightsError, match=match) as caught:
        read_weights(path, **{"include_top": False, **options})
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code is ExitCode.MODEL


def _to_int(file: Any) -> None:
    replace(file, LEGACY, np.zeros((1, 1, 728, 728), np.int32))


def _to_text(file: Any) -> None:
    replace(file, LEGACY, np.full((1, 1, 728, 728), b"x"))


def _to_external_storage(file: Any) -> None:
    raw = [("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
    replace(file, LEGACY, shape=(1, 1, 728, 728), dtype="f4", external=raw)


def _to_virtual(file: Any) -> None:
    del file[LEGACY]
    layout = h5py.VirtualLayout((1, 1, 728, 728), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "data", (1, 1, 728, 728))
    file.create_virtual_dataset(LEGACY, layout)


def _to_link(link: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[LEGACY]
        file[LEGACY] = link

    return change


def _group_to_link(file: Any) -> None:
    del file[LAYER]
    file[LAYER] = h5py.ExternalLink("other.h5", "/layer")


def _listed_twice(file: Any) -> None:
    names = list(file.attrs["layer_names"])
    file.attrs["layer_names"] = np.array([*names, b"conv2d_1"])


def _names_as(value: Callable[[Any], Any]) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        names = value(file)
        del file.attrs["layer_names"]
        file.attrs.create("layer_names", names)

    return change


def _not_finite(value: float) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        file[LEGACY][0, 0, 5, 5] = value

    return change


def _too_large_for_float32(file: Any) -> None:
    replace(file, LEGACY, np.full((1, 1, 728, 728), 1e300))


def _negative_variance(file: Any) -> None:
    name = legacy_name(f"{LAYER}_bn/moving_variance")
    file[name][3] = -0.5


REFUSALS: dict[str, tuple[Callable[[Any], None], str]] = {
    "whole model": (lambda file: file.attrs.create("model_config", b"{}"), "whole model.*can carry code.*convert it"),
    "whole model, by its group": (lambda file: file.create_group("model_weights"), "whole model"),
    "layer missing": (lambda file: file.__delitem__(LAYER), f"'{LAYER}' is listed but missing"),
    "array missing": (lambda file: file.__delitem__(LEGACY), "pointwise_kernel:0' is missing"),
    "a group for an array": (lambda file: replace_by_group(file, LEGACY), "pointwise_kernel:0' is missing"),
    "another shape": (
        lambda file: replace(file, LEGACY, np.zeros((1, 1, 728, 700), np.float32)),
        r"has shape \(1, 1, 728, 700\), expected \(1, 1, 728, 728\)",
    ),
    "no weights in a layer": (
        lambda file: file[LAYER].attrs.__delitem__("weight_names"),
        f"layer '{LAYER}' has 0 weights, expected 2",
    ),
    "integers": (_to_int, "has type int32, expected floating point"),
    "text": (_to_text, "expected floating point"),
    "external storage": (_to_external_storage, "keeps its data in another file"),
    "virtual dataset": (_to_virtual, "keeps its data in another file"),
    "external link": (_to_link(h5py.ExternalLink("/etc/other.h5", "/x")), "is a link to elsewhere"),
    "soft link": (_to_link(h5py.SoftLink("/block1_conv1/block1_conv1/kernel:0")), "is a link to elsewhere"),
    "external link for a layer": (_group_to_link, "is a link to elsewhere"),
    "a shortcut too many": (_listed_twice, "expected 4 shortcut layers of kind 'conv', found 5"),
    "names as a number": (_names_as(lambda _: 7), r"'layer_names' has shape \(\), expected a list of names"),
    "names as nothing": (_names_as(lambda _: h5py.Empty("f4")), "'layer_names' has shape None"),
    "names as numbers": (_names_as(lambda _: np.arange(3.0)), "'layer_names' has type float64, expected names"),
    "names as references": (
        _names_as(lambda file: np.array([file[LAYER].ref], dtype=h5py.ref_dtype)),
        "'layer_names' has type object, expected names",
    ),
    "one reference": (_names_as(lambda file: file[LAYER].ref), r"'layer_names' has shape \(\)"),
    "no names": (_names_as(lambda _: np.array([], "S1")), "shortcut layers of kind 'conv', found 0"),
    "not a number": (_not_finite(float("nan")), f"'{LAYER}/pointwise_kernel' holds values that are not finite"),
    "infinite": (_not_finite(float("inf")), "not finite"),
    "beyond float32": (_too_large_for_float32, "not finite"),
    "negative variance": (_negative_variance, f"'{LAYER}_bn/moving_variance' holds a negative variance"),
}


def replace_by_group(file: Any, name: str) -> None:
    del file[name]
    file.create_group(name)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("name", REFUSALS)
def test_refuses(name: str, legacy_weights_file: str, scratch: Path) -> None:
    change, match = REFUSALS[name]
    refused(changed(scratch, legacy_weights_file, change), match)


def test_refuses_a_layer_that_is_missing_in_the_layout_of_keras_3(keras_weights_file: str, scratch: Path) -> None:
    refused(changed(scratch, keras_weights_file, lambda file: file.__delitem__(KERAS3)), f"'{KERAS3}' is missing")


def test_refuses_links_in_the_layout_of_keras_3(keras_weights_file: str, scratch: Path) -> None:
    def change(file: Any) -> None:
        del file[KERAS3]
        file[KERAS3] = h5py.ExternalLink("other.h5", "/x")

    refused(changed(scratch, keras_weights_file, change), "is a link to elsewhere")


def test_refuses_a_whole_model_that_keras_saved(keras: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "model.h5")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(path)
    refused(path, "whole model in Keras' old HDF5 format")


def test_refuses_weights_of_another_network(keras: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "small.weights.h5")
    keras.Sequential([keras.Input((9, 9, 3)), keras.layers.Conv2D(32, 3)]).save_weights(path)
    refused(path, r"'layers/conv2d/vars/0' has shape|is missing")


def test_refuses_a_file_without_the_top_that_is_wanted(
    keras_weights_file: str, scratch: Path, weights: Weights
) -> None:
    refused(keras_weights_file, "no classifier on top.*xception features", include_top=True)
    path = str(scratch / "legacy.h5")
    write_legacy(path, weights, top=False)
    refused(path, "no classifier on top", include_top=True)


def test_refuses_another_number_of_classes(legacy_weights_file: str) -> None:
    refused(legacy_weights_file, "has 1000 classes, but 10 were asked for", include_top=True, classes=10)


@pytest.mark.parametrize(
    ("kernel", "bias", "match"),
    [
        ((FEATURE_WIDTH,), (5,), r"shape \(2048,\), expected \(2048, classes\)"),
        ((1024, 5), (5,), r"shape \(1024, 5\), expected \(2048, classes\)"),
        ((FEATURE_WIDTH, 0), (0,), r"shape \(2048, 0\)"),
        ((FEATURE_WIDTH, 5), (6,), r"shape \(6,\), expected \(5,\)"),
    ],
)
def test_refuses_a_strange_top(
    kernel: tuple[int, ...], bias: tuple[int, ...], match: str, legacy_weights_file: str, scratch: Path
) -> None:
    def change(file: Any) -> None:
        replace(file, legacy_name("predictions/kernel"), np.zeros(kernel, np.float32))
        replace(file, legacy_name("predictions/bias"), np.zeros(bias, np.float32))

    refused(changed(scratch, legacy_weights_file, change), match, include_top=True)


@pytest.mark.parametrize("chunks", [None, (64, 64)])
@pytest.mark.parametrize("classes", [500_000, 1 << 50])
def test_a_shape_that_the_file_does_not_hold_takes_no_memory(
    chunks: tuple[int, int] | None, classes: int, legacy_weights_file: str, scratch: Path
) -> None:
    def change(file: Any) -> None:
        name = legacy_name("predictions/kernel")
        replace(file, name, shape=(FEATURE_WIDTH, classes), dtype="f4", chunks=chunks)

    path = changed(scratch, legacy_weights_file, change)
    tracemalloc.start()
    try:
        refused(path, "declares|expected", include_top=True)
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()


def test_refuses_a_huge_list_of_names(tmp_path: Path) -> None:
    names = np.full(hdf5_checks.MAX_NAMES + 1, b"x")

    path = str(tmp_path / "names.h5")
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs.create("layer_names", names)
    refused(path, r"'layer_names' has shape \(50001,\)")


@pytest.mark.parametrize(
    ("content", "match"),
    [(b"", "not an HDF5 file"), (b"no weights" * 99, "not an HDF5 file"), (b"\x89HDF\r\n\x1a\n", "")],
)
def test_refuses_what_is_not_hdf5(content: bytes, match: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    path.write_bytes(content)
    refused(str(path), f"cannot read weights.*{match}")


@pytest.mark.parametrize("part", [0.001, 0.5, 0.999])
def test_refuses_a_file_that_ends_early(part: float, legacy_weights_file: str, scratch: Path) -> None:
    path = str(scratch / "cut.h5")
    shutil.copyfile(legacy_weights_file, path)
    os.truncate(path, int(os.path.getsize(path) * part))
    refused(path, "not an HDF5 file, or a damaged one", include_top=True)


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(str(tmp_path / "missing.h5"), "cannot read weights from .*: No such file or directory")
    refused(str(tmp_path), "Is a directory")
    refused(str(tmp_path / "pipe"), "not a regular file")
    refused("/dev/null", "not a regular file")


def test_names_the_reason_when_a_file_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.h5"
    path.write_bytes(b"")

    def denied(*_: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(hdf5_checks.os, "open", denied)
    refused(str(path), "Permission denied")


def test_damage_anywhere_in_the_first_pages_is_an_error_of_the_file(keras_weights_file: str, scratch: Path) -> None:
    """Bytes of the file's own structure are overwritten: it loads unharmed or is refused, and nothing else."""
    with open(keras_weights_file, "rb") as file:
        head = file.read(1 << 16)
    random = np.random.default_rng(5)
    path = str(scratch / "damaged.h5")
    shutil.copyfile(keras_weights_file, path)
    refusals: list[str] = []
    for _ in range(30):
        at = int(random.integers(8, 1024))
        with open(path, "r+b") as file:
            file.write(head)
            file.seek(at)
            file.write(random.bytes(4))
        try:
            read_weights(path, include_top=False)
        except WeightsError as error:
            refusals.append(str(error))
    assert len(refusals) > 2
    assert all(path in text and "\n" not in text for text in refusals)


# Files that another reader is going to open


def tree(folder: Path, change: Callable[[Any], None]) -> str:
    path = str(folder / "tree.h5")
    with h5py.File(path, "w") as file:
        file["a/b/data"] = np.zeros((4, 4), np.float32)
        file["a/state"] = np.zeros(2, np.uint32)
        change(file)
    return path


def test_a_tree_of_numbers_passes(tmp_path: Path) -> None:
    check_tree(tree(tmp_path, lambda file: None))


def test_a_tree_that_goes_round_passes(tmp_path: Path) -> None:
    def change(file: Any) -> None:
        file["a/b/round"] = file["a"]

    check_tree(tree(tmp_path, change))


def _external_data(file: Any) -> None:
    file.create_dataset("a/b/raw", shape=(4,), dtype="f4", external=[("/etc/passwd", 0, 16)])


def _references(file: Any) -> None:
    data = file.create_dataset("a/b/references", (1,), dtype=h5py.ref_dtype)
    data[0] = file["a"].ref


def _regions(file: Any) -> None:
    data = file.create_dataset("a/b/regions", (1,), dtype=h5py.regionref_dtype)
    data[0] = file["a/b/data"].regionref[:2]


def _references_within(file: Any) -> None:
    file.create_dataset("a/b/records", (1,), dtype=np.dtype([("number", "f4"), ("to", h5py.ref_dtype)]))


def _virtual_data(file: Any) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "data", (4,))
    file.create_virtual_dataset("a/b/virtual", layout)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda file: file.__setitem__("a/b/out", h5py.ExternalLink("other.h5", "/x")), "'out' is a link"),
        (lambda file: file.__setitem__("a/b/in", h5py.SoftLink("/a")), "'in' is a link"),
        (lambda file: file.__setitem__("a/text", "words"), "'text' does not hold numbers"),
        (lambda file: file.create_dataset("a/big", shape=(1 << 40,), dtype="f4"), "'big' declares"),
        (_references, "'references' does not hold numbers"),
        (_regions, "'regions' does not hold numbers"),
        (_references_within, "'records' does not hold numbers"),
        (_external_data, "'raw' keeps its data in another file"),
        (_virtual_data, "'virtual' keeps its data in another file"),
    ],
)
def test_a_tree_that_reaches_out_is_refused(change: Callable[[Any], None], match: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=match):
        check_tree(tree(tmp_path, change))


def test_a_tree_that_is_not_hdf5_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="not an HDF5 file"):
        check_tree(path)


def test_a_tree_above_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_checks, "_SMALL_BYTES", 64)
    with pytest.raises(ModelError, match="would take 72 bytes, far more than the file has"):
        check_tree(tree(tmp_path, lambda file: None), stored=0)


# Random weights


def test_random_weights_are_seeded_and_of_the_right_shapes(theirs: Any) -> None:
    first = random_weights(include_top=True, classes=7, seed=4)
    assert same(first, random_weights(include_top=True, classes=7, seed=4))
    other = random_weights(include_top=True, classes=7, seed=5)
    assert not np.array_equal(first["block1_conv1/kernel"], other["block1_conv1/kernel"])
    assert first[KERNEL].shape == (FEATURE_WIDTH, 7)
    assert first[BIAS].shape == (7,)
    assert {array.dtype for array in first.values()} == {np.dtype(np.float32)}
    shapes = [tuple(variable.shape) for variable in theirs.weights]
    assert [array.shape for array in ordered(first, top=False)] == shapes
    assert KERNEL not in random_weights(include_top=False, classes=7, seed=4)


def test_random_weights_are_spread_as_keras_spreads_them(keras: Any) -> None:
    found = random_weights(include_top=True, classes=50, seed=4)
    reference = keras.applications.Xception(weights=None, classes=50)
    for name, variable in zip(found, reference.weights, strict=True):
        expected = np.asarray(variable).std()
        assert found[name].std() == pytest.approx(expected, rel=0.2, abs=1e-9), name
        assert found[name].mean() == pytest.approx(np.asarray(variable).mean(), abs=0.1), name


def test_values_that_no_network_can_have() -> None:
    good = random_weights(include_top=False, classes=1, seed=0)
    assert values_problem(good) is None
    name = "block4_sepconv1_bn/moving_variance"
    assert values_problem({**good, name: good[name] * 0}) is None
    assert values_problem({**good, name: good[name] * -1}) == f"'{name}' holds a negative variance"
