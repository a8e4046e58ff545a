"""What several tests need and takes long to make: once a session."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.networks import CLASSES, SIZE, calibrated_weights, set_weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xcli.h5weights import Weights

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def keras() -> Any:
    """Keras, as the program loads it."""
    from xcli.runtime import load_keras

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
    from xcli.architecture import Xception

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
def keras_weights_file(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """`weights` without the top, as Keras saves them."""
    path = str(tmp_path_factory.mktemp("weights") / "keras.weights.h5")
    theirs.save_weights(path)
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
