"""Takes the place of `xcli.inference.decoder_process` where decoding is to take a given time and no processor."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from xcli.inference import decoder_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def sleeping(module: str, function: str, arguments: dict[str, Any]) -> Callable[..., NDArray[np.uint8]]:
    """Returns a decoder that sleeps for `seconds`, if given, and returns grey."""
    seconds = arguments.get("seconds", 0)

    def decode(location: Any, preprocessing: Any) -> NDArray[np.uint8]:
        if seconds:
            time.sleep(seconds)
        return np.full((preprocessing.size, preprocessing.size, 3), 7, np.uint8)

    return decode


def main() -> None:
    decoder_process.find_decoder = sleeping
    decoder_process.main()
