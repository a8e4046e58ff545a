"""Opens untrusted `.keras` files: checks that every object in them is known and harmless, and finds the Xception.

Only JSON and the table of contents of the zip are read, without Keras. Keras never reads the file itself, only a copy
(`Archive.unpack`) of what was checked: the configuration and the weights.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import zipfile
import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ModelError
from xcli.core.text import short_text
from xcli.models.hdf5_checks import MAX_FILE_BYTES, check_tree, is_inflated, require_file
from xcli.models.keras2 import upgrade_keras2_config
from xcli.models.keras_graph import MAX_STEPS, MODELS, Graph, effort_problem, find_backbones, read_graph
from xcli.storage import disk

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MAX_CONFIG_BYTES = 8 << 20
MAX_MODEL_BYTES = MAX_FILE_BYTES
_MAX_CONTENTS_BYTES, _ZIP_END_BYTES = 1 << 20, (64 << 10) + 22 + 76
_MAX_VALUES, _MAX_DEPTH, _MAX_NAME = 1 << 20, 100, 512
"""Of a configuration. Names of models stand in those of all their variables."""

MAX_PADDING = 2
"""How many times as long as wide, or as wide as long, a Resizing may make images by padding them."""

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

_LAYERS = """
    InputLayer Dense EinsumDense Dropout SpatialDropout2D AlphaDropout GaussianDropout GaussianNoise
    ActivityRegularization Activation ReLU LeakyReLU PReLU ELU Softmax Identity Flatten Reshape Permute RepeatVector
    Add Subtract Multiply Average Maximum Minimum Concatenate Dot
    Conv1D Conv2D Conv2DTranspose DepthwiseConv1D DepthwiseConv2D SeparableConv1D SeparableConv2D
    MaxPooling1D MaxPooling2D AveragePooling1D AveragePooling2D
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalMaxPooling1D GlobalMaxPooling2D
    ZeroPadding2D Cropping2D UpSampling2D Resizing CenterCrop Rescaling Normalization
    BatchNormalization LayerNormalization GroupNormalization UnitNormalization RMSNormalization
    Attention AdditiveAttention MultiHeadAttention
    RandomFlip RandomRotation RandomZoom RandomTranslation RandomContrast RandomBrightness RandomCrop RandomHue
    RandomSaturation RandomColorJitter RandomColorDegeneration RandomSharpness RandomShear RandomGrayscale RandomInvert
    RandomPosterization RandomErasing RandomGaussianBlur RandomPerspective RandomElasticTransform AutoContrast
    Equalization Solarization
""".split()
_OTHERS = {
    "keras.initializers": """
        Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer LecunNormal LecunUniform
        Ones Orthogonal OrthogonalInitializer RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros
    """,
    "keras.regularizers": "L1 L2 L1L2 OrthogonalRegularizer",
    "keras.constraints": "MaxNorm MinMaxNorm NonNeg UnitNorm",
    "keras": "DTypePolicy",
    "keras.dtype_policies": "DTypePolicy FloatDTypePolicy QuantizedDTypePolicy",
    "keras.src.ops.core": "Cast",
    "keras.src.ops.nn": "Relu Relu6 Sigmoid Softmax LogSoftmax Softplus Silu Gelu Elu Selu LeakyRelu Tanh",
    "keras.src.ops.numpy": """
        Abs Absolute Add Subtract Multiply Divide TrueDivide Negative Maximum Minimum Power Square Sqrt Exp Log Tanh
        Clip Mean Max Min Sum Reshape Squeeze ExpandDims Transpose Concatenate Stack Flip GetItem Ravel Amax Amin
    """,
}
_FUNCTIONS = """
    linear relu relu6 leaky_relu elu selu gelu silu swish mish softplus softsign sigmoid log_sigmoid hard_sigmoid
    hard_silu hard_swish tanh exponential softmax log_softmax
""".split()
_MODEL_MODULE = re.compile(r"(tf_)?keras(\.models|(\.src)?\.(models|engine)\.(functional|sequential|training|model))?")
_VALUES = ("__keras_tensor__", "__tensor__", "__numpy__", "__slice__", "__ellipsis__")
_NUMBERS = re.compile(r"bool|bfloat16|u?int(8|16|32|64)|float(16|32|64)")


@dataclass(frozen=True, slots=True)
class Archive:
    """A `.keras` file whose configuration has been checked; exactly one graph in it has a `backbone`."""

    path: str
    graph: Graph
    _config: Mapping[str, Any]

    def unpack(self, folder: str) -> int:
        """Writes what Keras may load into an empty directory, in Keras' own layout; returns how many numbers it holds.

        Raises:
            ModelError: the weights refer to other files, declare more than they hold, or cannot be written.
        """
        weights = os.path.join(folder, WEIGHTS)
        try:
            with disk.create(os.path.join(folder, CONFIG)) as file:
                file.write(json.dumps(self._config).encode())
            with zipfile.ZipFile(self.path) as archive, archive.open(WEIGHTS) as source, disk.create(weights) as target:
                shutil.copyfileobj(source, target, 4 << 20)
        except OSError as error:
            raise ModelError(f"cannot unpack {self.path} to {folder}: {error.strerror or error}") from error
        except _DAMAGE as error:
            raise ModelError(f"{self.path} is damaged: {short_text(error)}") from error
        try:
            return check_tree(weights, os.path.getsize(self.path))
        except ModelError as error:
            raise ModelError(f"the weights in {self.path} are refused: {error}") from error


_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, RuntimeError)
"""Raised by zipfile and json for damaged or malicious files."""


def open_archive(path: str) -> Archive:
    """Reads and checks the configuration in a `.keras` file, and finds the Xception in it.

    Raises:
        ModelError: it is not a `.keras` file, names an unknown object, or has not one Xception, input and output.
    """
    config = _safe(_read_config(path), path)
    try:
        upgrade_keras2_config(config)
        graph, steps = read_graph(config), [MAX_STEPS]
        if problem := effort_problem(graph):
            raise ModelError(f"{path} {problem}")
        backbones = [(one, names) for one in graph.walk() for names in find_backbones(one, steps)]
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:
        raise ModelError(f"{path} has a configuration that Keras does not write ({short_text(error)})") from error
    found = len(backbones)
    for one, names in backbones:
        one.backbone.update(names)
    if found != 1:
        inner = max(graph.walk(), key=lambda one: len(one.nodes))
        raise ModelError(
            f"{path} holds {found} Xception networks; a model with exactly one is needed"
            if found
            else f"{path} holds {short_text(inner.name)!r} ({len(inner.nodes)} layers), which is not an Xception; "
            "only models with an Xception backbone can be used"
        )
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ModelError(
            f"{path} has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; "
            "a model with one of each is needed"
        )
    return Archive(path, graph, config)


def _read_config(path: str) -> Any:
    try:
        require_file(path)
        with open(path, "rb") as file:
            if file.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC:
                raise ModelError(
                    f"{path} is HDF5, not a .keras model: if it holds weights alone, use --weights {path}; a whole "
                    "model in that format can carry code and is not loaded, so convert it where you trust it: "
                    "keras.models.load_model(FILE).save('model.keras')"
                )
        _check_contents(path)
        with zipfile.ZipFile(path) as archive:
            _check_sizes(archive, path)
            archive.getinfo(WEIGHTS)
            content = archive.read(CONFIG)
            if sum(map(content.count, (b",", b"[", b"{"))) > _MAX_VALUES:
                raise ModelError(f"{path} has a configuration of more than {_MAX_VALUES:,} values and is not loaded")
            return json.loads(content)
    except FileNotFoundError as error:
        raise ModelError(f"no such model: {path}") from error
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror or short_text(error)}") from error
    except _DAMAGE as error:
        raise ModelError(
            f"{path} is not a .keras model (a zip of {CONFIG} and {WEIGHTS}): {short_text(error)}"
        ) from error


def _check_contents(path: str) -> None:
    """Refuses a long table of contents, which zipfile would read whole."""
    with open(path, "rb") as file:
        file.seek(-min(os.path.getsize(path), _ZIP_END_BYTES), os.SEEK_END)
        tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 22:
        return  # zipfile says that it is no zip
    (size,) = struct.unpack_from("<I", tail, end + 12)
    large = end - 76  # with more than 4 GiB
    if large >= 0 and tail[large : large + 4] == b"PK\x06\x06":
        size = struct.unpack_from("<Q", tail, large + 40)[0]
    if size > _MAX_CONTENTS_BYTES:
        raise ModelError(f"{path} has a table of contents above {_MAX_CONTENTS_BYTES >> 20} MiB and is not loaded")


def _check_sizes(archive: zipfile.ZipFile, path: str) -> None:
    members = archive.infolist()
    if sum(member.file_size for member in members) > MAX_MODEL_BYTES:
        raise ModelError(f"{path} would unpack to more than {MAX_MODEL_BYTES >> 30} GiB and is not loaded")
    for member in members:
        if is_inflated(member.file_size, member.compress_size):
            raise ModelError(
                f"{path}: {short_text(member.filename)!r} would unpack to far more than a model, so not loaded"
            )
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ModelError(f"{path}: {short_text(member.filename)!r} is compressed in a way that Keras does not use")
    # As zipfile itself says from Python 3.11.8 on.
    spans = sorted((one.header_offset, one.header_offset + 30 + one.compress_size) for one in members)
    if any(start < end for (_, end), (start, _) in pairwise(spans)):
        raise ModelError(f"{path} has members whose data overlap and is not loaded")
    if archive.getinfo(CONFIG).file_size > MAX_CONFIG_BYTES:
        raise ModelError(f"{path} has a configuration above {MAX_CONFIG_BYTES >> 20} MiB and is not loaded")


def _safe(config: Any, path: str) -> dict[str, Any]:
    """Checks every object that a configuration names, at any depth; drops optimizers, losses and metrics."""
    if not isinstance(config, dict):
        raise ModelError(f"{path} has a configuration that Keras does not write (no object)")
    kind = config.get("class_name")
    if not isinstance(kind, str) or kind not in MODELS:
        raise ModelError(f"{path} holds {short_text(kind)!r}, which is neither a functional nor a sequential model")
    level: list[Any] = [config]
    for _ in range(_MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                if "class_name" in item:
                    item.pop("compile_config", None)
                    _check_object(item, path)
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        level = inner
    if level:
        raise ModelError(f"{path} has a configuration that Keras does not write (more than {_MAX_DEPTH} levels)")
    return config


def _check_object(item: dict[str, Any], path: str) -> None:
    name, module, config = item["class_name"], item.get("module"), item.get("config")
    known = False
    if isinstance(config, dict) and len(str(config.get("name"))) > _MAX_NAME:
        raise ModelError(f"{path} has a layer with a name of more than {_MAX_NAME} characters and is not loaded")
    if name == "Resizing" and isinstance(config, dict) and config.get("pad_to_aspect_ratio"):
        height, width = (side if isinstance(side, int) else 0 for side in (config.get("height"), config.get("width")))
        if min(height, width) < 1 or not height <= MAX_PADDING * width <= MAX_PADDING**2 * height:
            shown = short_text(f"{height}x{width}")
            raise ModelError(f"{path} pads images to {shown}; one side may be {MAX_PADDING} times the other at most")
    if not isinstance(name, str) or not isinstance(module, (str, type(None))):
        pass
    elif name in _VALUES:
        numbers = config.get("dtype", "float32") if isinstance(config, dict) else None
        known = isinstance(numbers, str) and _NUMBERS.fullmatch(numbers) is not None
    elif name == "function":
        known = module == "builtins" and isinstance(config, str) and config in _FUNCTIONS
    elif name in MODELS and module is not None and _MODEL_MODULE.fullmatch(module):
        # Files of Keras 2 name modules that no longer exist.
        item["module"] = "keras.src.models.functional" if name == "Functional" else "keras"
        known = True
    elif module == "keras.layers":
        known = name in _LAYERS
    elif module is not None:
        known = name in _OTHERS.get(module, "").split()
    if not known or item.get("registered_name") not in (None, name, config if name == "function" else None):
        what = f"{module}.{name}" if module else str(name)
        extra = f" {short_text(config)!r}" if name == "function" else ""
        raise ModelError(
            f"{path} contains {short_text(what)!r}{extra}, which is not among the layers that may be loaded; "
            "nothing of the file was executed"
        )
