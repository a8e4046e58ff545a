"""What Keras finds out of a `.keras` file that passes its checks, kept in the cache for later runs.

    KerasNetwork --Keras--> KerasFacts <--> cache on disk

With these, and the graph, a run whose engine has the compiled model in its cache does not import Keras. Of a file that
is refused nothing is kept: it is refused again in the same way.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import NoneType
from typing import TYPE_CHECKING

from xcli.core.digests import json_digest
from xcli.core.version import __version__, versions
from xcli.models.backbone import backbone_digest
from xcli.storage.model_cache import CacheEntry, ModelCache, user_folder

if TYPE_CHECKING:
    from xcli.core.checked_json import Schema
    from xcli.models.keras_network import KerasNetwork

_FORM = 1
"""Of the facts; to be raised when they, or the checks of the files, change, so that older ones are not used."""

_CACHE_BYTES = 4 << 20
"""Of all facts together: of some ten thousand files."""

_SCHEMA: dict[str, Schema] = {
    "size": int | NoneType,
    "units": int | NoneType,
    "parameters": int,
    "backbone": str | NoneType,
}


@dataclass(frozen=True, slots=True)
class KerasFacts:
    """What is known of a file only after Keras has loaded it.

    Attributes:
        size: side of the input in pixels; None where it is open.
        units: number of units of the classifier; None where there is none.
        parameters: number of parameters of the whole model.
        backbone: what tells which network computes features; see `backbone_digest`.
    """

    size: int | None
    units: int | None
    parameters: int
    backbone: str | None


def find_facts(network: KerasNetwork, input_range: str) -> KerasFacts:
    """Returns the facts of a model whose pixels are scaled to `input_range`: kept ones, or those that Keras tells.

    Raises:
        ModelError: there are no kept ones, and the file cannot be taken; see `KerasNetwork`.
    """
    cache = ModelCache(user_folder("models"), "model record", _CACHE_BYTES, quiet=True)
    description = {
        "form": _FORM,
        "program": __version__,
        "versions": versions("h5py"),
        "file": network.digest,
        "input_range": input_range,
    }
    key = json_digest(description)
    if found := cache.find(key, _SCHEMA):
        return KerasFacts(**{name: found.facts[name] for name in _SCHEMA})
    network.load()
    backbone = backbone_digest(network.weights, input_range, network.graph)
    facts = KerasFacts(network.size, network.units, network.parameters, backbone)
    cache.keep(key, CacheEntry(b"", asdict(facts)))
    return facts
