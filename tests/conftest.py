"""What several tests need and takes long to make: once a session."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from tests.networks import CLASSES, SIZE, calibrated_weights, set_weights, write_legacy
from tests.objectstore import WebServer, forget, serving
from tests.thorough import SLOW

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from tests.objectstore import ObjectStore
    from xcli.models.hdf5_weights import Weights

ROOT = Path(__file__).resolve().parents[1]

# A machine that is busy with other things makes no test fail.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has put the tests into the background; the programs that they interrupt would ignore it too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


LIGHT = ("core", "storage", "sources", "tables", "checks", "analysis", "reports")
"""Rooms whose tests run without TensorFlow, and first: a failure there shows within the first minute."""


def room_of(path: Path) -> str:
    """The room whose tests a file holds; of other files an empty text."""
    folder = path.relative_to(ROOT / "tests").parts
    return folder[0] if folder[1:] else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of the light rooms before all others, and leaves out the slow ones unless they are asked for."""
    for item in items:
        if not SLOW and item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="takes long: make test-slow"))
    items.sort(key=lambda item: LIGHT.index(room) if (room := room_of(item.path)) in LIGHT else len(LIGHT))


@pytest.fixture(autouse=True)
def without_tensorflow(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test of a light room that imports TensorFlow into this process."""
    there = "tensorflow" in sys.modules
    yield
    light = room_of(request.path) in LIGHT
    assert there or not light or "tensorflow" not in sys.modules, "the tests of this room run without TensorFlow"


@pytest.fixture(scope="session", autouse=True)
def _own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test finds what an earlier version of the program has kept for this user, or leaves anything there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("caches")))
        yield


@pytest.fixture(scope="session")
def keras() -> Any:
    """Keras, as the program loads it."""
    from xcli.core.tensorflow import load_keras

    return load_keras()


@pytest.fixture(scope="session")
def weights(keras: Any) -> Weights:
    """Weights of an Xception with its top, whose batch norms are far from the identity."""
    return calibrated_weights(keras)


@pytest.fixture(scope="session")
def theirs(keras: Any, weights: Weights) -> Any:
    """Keras' own Xception without its top, for any image size, with `weights`. Not to be changed."""
    model = keras.applications.Xception(weights=None, include_top=False, input_shape=(None, None, 3))
    set_weights(model, weights)
    return model


@pytest.fixture(scope="session")
def theirs_with_top(keras: Any, weights: Weights) -> Any:
    """Keras' own Xception with its top, with `weights`. Not to be changed."""
    model = keras.applications.Xception(weights=None, classes=CLASSES)
    set_weights(model, weights)
    return model


@pytest.fixture(scope="session")
def ours(weights: Weights) -> Any:
    """Our Keras model without its top, with `weights`. Not to be changed."""
    from xcli.models.xception import Xception

    model = Xception(weights=None, include_top=False)
    set_weights(model, weights)
    return model


@pytest.fixture(scope="session")
def pixels() -> NDArray[np.uint8]:
    """Eight images: noise on slopes of colour, black, white."""
    import numpy as np

    random = np.random.default_rng(7)
    slopes = random.uniform(0, 255, (8, 1, 1, 3)) + np.linspace(-90, 90, SIZE)[:, None, None]
    images = np.clip(slopes + random.normal(0, 40, (8, SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
    images[6], images[7] = 0, 255
    return images


@pytest.fixture(scope="session")
def large_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory for the session's large files; pytest would keep them for several sessions."""
    folder = tmp_path_factory.mktemp("large")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A directory for one test's large files."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="session")
def keras_weights_file(theirs: Any, large_files: Path) -> str:
    """`weights` without the top, as Keras saves them."""
    path = str(large_files / "keras.weights.h5")
    theirs.save_weights(path)
    return path


@pytest.fixture(scope="session")
def legacy_weights_file(weights: Weights, large_files: Path) -> str:
    """`weights` with the top, in Keras' older layout."""
    path = str(large_files / "legacy.h5")
    write_legacy(path, weights, top=True)
    return path


@pytest.fixture(scope="session")
def data() -> Path:
    """The directory of real data; tests that need it are skipped where it is not."""
    folder = Path(os.environ.get("XCEPTION_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set XCEPTION_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def real_weights(data: Path) -> str:
    """The ImageNet weights without top, in Keras' older layout."""
    path = data / "weights" / "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"
    if not path.is_file():
        pytest.skip(f"no weights at {path}")
    return str(path)


@pytest.fixture(scope="session")
def nested_file(keras: Any, theirs: Any, large_files: Path) -> str:
    """A `.keras` file as most notebooks end in: the backbone as one layer, pooling, dropout, softmax."""
    layers = keras.layers
    start = keras.Input((SIZE, SIZE, 3), name="photo")
    x = layers.GlobalAveragePooling2D(name="pooled")(theirs(start, training=False))
    x = layers.Dropout(0.3, name="dropped")(x)
    model = keras.Model(start, layers.Dense(5, activation="softmax", name="kinds")(x), name="notebook")
    path = str(large_files / "nested.keras")
    model.save(path)
    return path


@pytest.fixture(scope="session")
def s3() -> Iterator[ObjectStore]:
    """An S3 server on loopback with one bucket, for which this process and its children are set up."""
    with serving() as store:
        yield store


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """A web server on loopback, which this process takes for one of the internet."""
    pytest.importorskip("aiohttp")
    pytest.importorskip("fsspec")
    monkeypatch.setattr("xcli.storage.object_store.web_client.is_public", lambda address: True)
    server = WebServer()
    yield server
    forget()
    server.close()
