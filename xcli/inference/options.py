"""How a run uses the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.core.errors import UsageError
from xcli.tables.provenance import ENGINE

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_TIMEOUT = 60.0
"""Seconds that one image may take to be read and decoded."""

MAX_BATCH, MAX_WORKERS, MAX_TIMEOUT = 4096, 1024, 86_400
ENGINES = AUTO, TENSORFLOW, OPENVINO = "auto", "tensorflow", "openvino"
BATCH_SIZES = range(1, MAX_BATCH + 1)

INT8 = "int8"
DEFAULT_CALIBRATION, MAX_CALIBRATION = 300, 10_000
"""Images that int8 is calibrated on, and as many on which its loss is measured."""

DEFAULT_AGREEMENT = 0.98

LONG_RUN = 5000
"""Number of images from which an engine that starts three seconds later and runs 2 to 3 % faster pays off."""


class Pinned(NamedTuple):
    """What an unfinished or finished run of an output has chosen, for options that leave it open.

    Attributes:
        batch_size: images in a batch; None if there is no such run, or it has no record.
        calibration: of `int8`, what the provenance says of it.
    """

    batch_size: int | None = None
    calibration: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run uses the machine.

    Attributes:
        batch_size: images in a batch; None chooses by device, free memory and number of images.
        precision: `auto`, `float32`, `tf32`, `bfloat16`, `float16`, or, with OpenVINO, `int8`.
        device: `auto`, `cpu`, `gpu` or `gpu:I`.
        engine: `tensorflow`, `openvino`, which computes on the processors, or `auto`, which is TensorFlow.
        workers: decodes at a time; None is one a processor.
        image_timeout: seconds that one image may take to be read and decoded.
        calibration: of `int8`, number of images of the listing to calibrate on.
        calibration_model: a file that keeps the calibration; made if it is not there.
        min_agreement: share of the images on which `int8` must agree with float32.
    """

    batch_size: int | None = None
    precision: str = "auto"
    device: str = "auto"
    workers: int | None = None
    image_timeout: float = DEFAULT_TIMEOUT
    engine: str = AUTO
    calibration: int = DEFAULT_CALIBRATION
    calibration_model: str | None = None
    min_agreement: float = DEFAULT_AGREEMENT

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size not in BATCH_SIZES:
            raise UsageError(f"the batch size is from 1 to {MAX_BATCH}; received {self.batch_size}")
        if self.workers is not None and not 1 <= self.workers <= MAX_WORKERS:
            raise UsageError(f"the number of workers is from 1 to {MAX_WORKERS}; received {self.workers}")
        if not 0 < self.image_timeout <= MAX_TIMEOUT:
            raise UsageError(f"the image timeout is up to {MAX_TIMEOUT} s; received {self.image_timeout:g} s")
        if self.engine not in ENGINES:
            raise UsageError(f"--engine takes one of {', '.join(ENGINES)}; received {self.engine!r}")
        if self.in_integers and not self.on_openvino:
            raise UsageError("--precision int8 is computed by OpenVINO only: add --engine openvino")
        for option, given in (
            ("--calibration", self.calibration != DEFAULT_CALIBRATION),
            ("--calibration-model", self.calibration_model is not None),
            ("--min-agreement", self.min_agreement != DEFAULT_AGREEMENT),
        ):
            if given and not self.in_integers:
                raise UsageError(f"{option} is for --precision int8, and this is --precision {self.precision}")
        if not 1 <= self.calibration <= MAX_CALIBRATION:
            raise UsageError(f"--calibration is from 1 to {MAX_CALIBRATION}; received {self.calibration}")
        if not 0 <= self.min_agreement <= 1:
            raise UsageError(f"--min-agreement is from 0 to 1; received {self.min_agreement:g}")

    @property
    def on_openvino(self) -> bool:
        return self.engine == OPENVINO

    @property
    def in_integers(self) -> bool:
        return self.precision == INT8

    def named_engine(self) -> dict[str, str]:
        """Returns the engine as records have it: not at all, where it is TensorFlow."""
        return {ENGINE: self.engine} if self.on_openvino else {}
