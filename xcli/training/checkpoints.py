"""Checkpoints of a fine-tuning, from which another process can continue after every epoch.

The directory (`xcli.training.run_directory`) holds arrays (`*.npz`, named by epoch) and `state.json`, from which their
names follow. The state is replaced last, and atomically, so that the files it needs are always complete. No file holds
code or pickled objects.
"""

from __future__ import annotations

import io
import json
import logging
import math
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcli.core.checked_json import MAX_BYTES, Schema, parse_object
from xcli.core.errors import OutputError, UsageError
from xcli.core.text import one_line
from xcli.storage import disk
from xcli.storage.atomic import write_atomically
from xcli.tables.provenance import differences, digest
from xcli.training.callbacks import EpochMetrics

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

STATE = "state.json"

_COUNT, _NUMBER = range(1_000_000), float | int
_EPOCH: Schema = {one.name: _NUMBER | None for one in fields(EpochMetrics)} | {"phase": str, "epoch": _COUNT}
_SCHEMA: Schema = {
    "settings": dict,
    "state": {
        **dict.fromkeys(("phase", "epoch", "best_epoch", "kept"), _COUNT),
        "best": [_NUMBER],
        "rows": [_EPOCH],
        "temperature": _NUMBER,
    },
}

_SPARE_BYTES = 1 << 20  # of headers and tables of contents

log = logging.getLogger("xcli")


@dataclass(slots=True)
class TrainingState:
    """How far a training has come; `state.json` holds it.

    Attributes:
        phase: number of the current phase.
        epoch: number of its epochs that are done.
        best_epoch: the best of them, from 1; 0 before the first.
        best: its `EpochMetrics.rank`.
        rows: the history.
        temperature: divisor of the logits of the finished weights; 1 before the end.
        kept: number among `rows`, from 1, of the best epoch of the finished phases; 0 before the end of the first.
    """

    phase: int = 0
    epoch: int = 0
    best_epoch: int = 0
    best: tuple[float, float] = (-1.0, 0.0)
    rows: list[EpochMetrics] = field(default_factory=list)
    temperature: float = 1.0
    kept: int = 0

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> TrainingState:
        """Makes a state from the dictionary that `dataclasses.asdict` returned and JSON has kept.

        Raises:
            ValueError, TypeError, KeyError: no training has such a state.
        """
        rows = [EpochMetrics(**row) for row in value["rows"]]
        first, second = value["best"]
        state = cls(**{**value, "rows": rows, "best": (first, second)})
        if not (state.best_epoch <= state.epoch <= len(rows) >= state.kept and 0 < state.temperature < math.inf):
            raise ValueError("its numbers contradict one another")
        return state

    @property
    def kept_epoch(self) -> EpochMetrics | None:
        """The epoch that `kept` is the number of."""
        return self.rows[self.kept - 1] if self.kept else None

    @property
    def start(self) -> str:
        """The file of the weights that the current phase starts from; after the last phase, of the finished weights."""
        return f"start-{self.phase}.npz"

    def end_phase(self) -> bool:
        """Goes on to the next phase, and tells whether the best epoch of this one is better than those before it.

        Without validation, the last epoch is the best.
        """
        found = len(self.rows) - self.epoch + self.best_epoch
        rank, before = self.rows[found - 1].rank, self.kept_epoch.rank if self.kept_epoch else None
        better = rank is None or before is None or rank > before
        self.kept = found if better else self.kept
        self.phase, self.epoch, self.best_epoch, self.best = self.phase + 1, 0, 0, (-1.0, 0.0)
        return better


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: the directory; it must exist.
        settings: everything that the result depends on, in JSON's types; only a run with the same settings continues.
        start: arrays of the shapes and dtypes that the files of weights may have; None accepts any.
    """

    def __init__(
        self, folder: str | Path, settings: Mapping[str, Any], start: Mapping[str, NDArray[Any]] | None = None
    ) -> None:
        self.folder, self.start = Path(folder), start
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))

    def load(self) -> dict[str, Any] | None:
        """Returns the state that an earlier process has written, or None if there is none.

        Raises:
            UsageError: it is that of a run with other settings, which the message names.
            OutputError: it is damaged, or cannot be read now.
        """
        path = self.folder / STATE
        try:
            value = parse_object(disk.read_file(path, MAX_BYTES + 1), _SCHEMA)
            found, state = dict(value["settings"]), dict(value["state"])
            # An earlier version did not write the digest.
            if value.get("digest") not in (None, digest({"settings": found, "state": state})):
                raise ValueError("its digest is not that of its content")
        except FileNotFoundError:
            if any(self.folder.glob("*.npz")):
                log.warning("%s has no %s: the training begins again", one_line(str(self.folder)), STATE)
            return None
        except OSError as error:
            raise self._unreadable(path, error) from error
        except (ValueError, KeyError) as error:
            raise self._damaged(path, error) from error
        different = [name for name, _, _ in differences(found, self.settings)]
        if different:
            raise UsageError(
                f"{one_line(str(self.folder))} has an unfinished run with other settings ({', '.join(different)}): "
                "give the same settings to continue it, or --restart to discard it"
            )
        return state

    def training_state(self) -> TrainingState | None:
        """Returns what `load` returns as a state; raises OutputError, too, where no training has it."""
        value = self.load()
        try:
            return None if value is None else TrainingState.from_dict(value)
        except (ValueError, TypeError, KeyError) as error:
            raise self._damaged(self.folder / STATE, error) from error

    def arrays(
        self, name: str, like: Mapping[str, NDArray[Any]] | None = None, needed: Collection[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Reads arrays by name from a file that the state needs.

        Args:
            name: of the file.
            like: arrays of the shapes and dtypes that the file may have, by name; None accepts any numbers.
            needed: the names among them that it must have; None stands for all.

        Raises:
            OutputError: it is damaged, missing, or holds something else.
        """
        import numpy as np

        path = self.folder / name
        try:
            if like is not None:
                _check_arrays(path, like, like if needed is None else needed)
            with np.load(io.BytesIO(disk.read_file(path)), allow_pickle=False) as file:
                return {key: file[key] for key in file.files}
        except FileNotFoundError as error:
            raise self._damaged(path, error) from error
        except OSError as error:
            raise self._unreadable(path, error) from error
        except (ValueError, EOFError, KeyError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
            raise self._damaged(path, error) from error

    def write(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Writes arrays into a file, which is not used until a state that needs it is committed.

        Raises:
            OutputError: they cannot be written.
        """
        import numpy as np

        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        write_atomically(str(self.folder / name), buffer.getbuffer())

    def commit(self, state: Mapping[str, Any], keep: set[str]) -> None:
        """Replaces the state, which is in JSON's types, and removes the files of arrays that are not in `keep`.

        Raises:
            OutputError: it cannot be written.
        """
        value = {"settings": self.settings, "state": state}
        text = json.dumps({**value, "digest": digest(value)}, indent=1)
        write_atomically(str(self.folder / STATE), text.encode())
        for path in set(self.folder.glob("*.npz")) - {self.folder / name for name in keep}:
            with suppress(OSError):
                disk.unlink(path)

    def _unreadable(self, path: Path, error: OSError) -> OutputError:
        return OutputError(f"cannot read {one_line(str(path))}: {error.strerror}; the same command continues from it")

    def _damaged(self, path: Path, error: Exception) -> OutputError:
        return OutputError(
            f"{one_line(str(path))} cannot be read ({type(error).__name__}); --restart starts the training again"
        )


def _check_arrays(path: Path, like: Mapping[str, NDArray[Any]], needed: Collection[str]) -> None:
    """Raises ValueError unless a file holds such arrays, by its size, its table of contents and their headers."""
    import numpy as np

    if path.stat().st_size > sum(array.nbytes for array in like.values()) + _SPARE_BYTES:
        raise ValueError("it is larger than its arrays")
    with zipfile.ZipFile(path) as file:
        members = {member.filename.removesuffix(".npy"): member for member in file.infolist()}
        if not set(needed) <= members.keys() <= like.keys() or len(members) != len(file.infolist()):
            raise ValueError("it holds other arrays than those of this training")
        for name, member in members.items():
            if member.file_size > like[name].nbytes + _SPARE_BYTES:
                raise ValueError(f"{name} is larger than its array")
            with file.open(member) as content:
                version = np.lib.format.read_magic(content)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(content)
            if (shape, dtype) != (like[name].shape, like[name].dtype):
                raise ValueError(f"{name} is {dtype}{list(shape)}")
