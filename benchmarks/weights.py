"""Weights that every contestant uses: random ones whose batch norms fit them, and any weights in timm's form.

With random weights and batch norms at identity activations grow or vanish on their way through the network, down to
denormal numbers, which processors compute many times slower. The statistics are therefore those of photographs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from benchmarks.settings import Settings
    from benchmarks.timing import Data, Save
    from xcli.models.hdf5_weights import Weights

SEED = 20_170_411
_CALIBRATION = 8


def write_random(settings: Settings, save: Save, path: str) -> Data:
    """Writes random weights of Xception without its top; for a child process.

    Args:
        settings: its photographs are what the batch norms are fitted to.
        save: not used; nothing is worth keeping of half of it.
        path: of the file, which ends in `.weights.h5`.
    """
    make_random(settings.photographs, path)
    return {"path": path}


def make_random(directory: str, path: str, size: str | int = 299) -> None:
    """Writes random weights of Xception without its top.

    Args:
        directory: of the photographs that the batch norms are fitted to.
        path: of the file, which ends in `.weights.h5`.
        size: of the network's input.
    """
    import numpy as np

    from benchmarks.photographs import find
    from xcli.core.tensorflow import load_keras
    from xcli.images.preprocessing import Preprocessing, load_image
    from xcli.models.xception import Xception
    from xcli.storage.local import LocalFile

    keras = load_keras()
    keras.utils.set_random_seed(SEED)
    model = Xception(include_top=False, weights=None, input_shape=(int(size), int(size), 3))
    files = find(directory)[:_CALIBRATION]
    wanted = Preprocessing(size=int(size))
    pixels = np.stack([load_image(LocalFile(str(file)), wanted) for file in files]).astype(np.float32)
    calibrate(keras, model, pixels / 127.5 - 1)
    model.save_weights(path)


def calibrate(keras: Any, model: Any, images: Any) -> None:
    """Gives the batch norms random scales and the statistics of images.

    Args:
        keras: the package.
        model: Xception; changed.
        images: float32[b, size, size, 3] in [-1, 1].
    """
    import numpy as np

    random = np.random.default_rng(SEED)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.gamma.assign(random.uniform(0.5, 1.5, norm.gamma.shape))
        norm.beta.assign(random.normal(0, 0.3, norm.beta.shape))
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(images, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        # A channel that is the same everywhere in so few images would be divided by next to nothing.
        norm.moving_variance.assign(np.maximum(norm.moving_variance.numpy(), 1e-3))


def convert_for_timm(settings: Settings, save: Save, path: str) -> Data:
    """Writes the weights as a checkpoint of timm's `legacy_xception`; for a child process.

    Args:
        settings: its weights.
        save: not used.
        path: of the file.
    """
    import torch

    from benchmarks.peers.torchvision_shim import import_timm
    from xcli.models.hdf5_weights import read_weights

    timm = import_timm()
    arrays = read_weights(settings.weights, include_top=False)
    model = timm.create_model("legacy_xception", num_classes=0)
    epsilon = next(layer.eps for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d))
    state = model.state_dict()
    names = [name for name in state if not name.endswith("num_batches_tracked")]
    for name, array in zip(names, _in_timms_order(arrays, epsilon), strict=True):
        if state[name].shape != array.shape:
            raise ValueError(f"{name} has shape {tuple(state[name].shape)} in timm, {array.shape} here")
        state[name] = torch.from_numpy(array.copy())
    torch.save(state, path)
    return {"path": path}


def _in_timms_order(arrays: Weights, epsilon: float) -> list[NDArray[np.float32]]:
    """Arrays in PyTorch's layout, in the order of timm's state, which is that of our layers.

    Args:
        arrays: by our names.
        epsilon: of timm's batch norms; the variances make up for the difference to ours.
    """
    from xcli.models.architecture import BN_EPSILON, layers

    ordered = []
    for layer in layers():
        for variable, _ in layer.weights:
            array = arrays[f"{layer.name}/{variable}"]
            if variable == "moving_variance":
                array = (array + (BN_EPSILON - epsilon)).astype(array.dtype)
            elif variable == "depthwise_kernel":
                array = array.transpose(2, 3, 0, 1)
            elif array.ndim == 4:
                array = array.transpose(3, 2, 0, 1)
            ordered.append(array)
    return ordered
