"""Checkpoints: what a training writes to disk after every epoch, so that another process can continue it.

A directory holds arrays (`*.npz`, named by epoch) and `state.json`, from which their names follow. The state is
replaced last, and atomically, so that the files it needs are always complete. No file holds code or pickled objects.
"""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcli.core.errors import UsageError
from xcli.core.text import one_line
from xcli.storage.atomic import write_atomically
from xcli.tables.provenance import differences
from xcli.training.callbacks import EpochMetrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

STATE = "state.json"


@dataclass(slots=True)
class TrainingState:
    """How far a training has come; `state.json` holds it.

    Attributes:
        phase: number of the current phase.
        epoch: number of its epochs that are done.
        best_epoch: the best of them, from 1; 0 before the first.
        best: accuracy and negative loss of the best epoch.
        rows: the history.
        temperature: divisor of the logits of the finished weights; 1 before the end.
    """

    phase: int = 0
    epoch: int = 0
    best_epoch: int = 0
    best: tuple[float, float] = (-1.0, 0.0)
    rows: list[EpochMetrics] = field(default_factory=list)
    temperature: float = 1.0

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> TrainingState:
        """Makes a state from the dictionary that `dataclasses.asdict` returned and JSON has kept."""
        rows = [EpochMetrics(**row) for row in value["rows"]]
        return cls(**{**value, "rows": rows, "best": tuple(value["best"])})


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: the directory; it must exist.
        settings: everything that the result depends on, in JSON's types; only a run with the same settings continues.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))

    def load(self) -> dict[str, Any] | None:
        """Returns the state that an earlier process has written, or None if there is none.

        Raises:
            UsageError: it cannot be read, or is that of a run with other settings, which the message names.
        """
        path = self.folder / STATE
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            found, state = dict(value["settings"]), dict(value["state"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(path, error) from error
        different = [name for name, _, _ in differences(found, self.settings)]
        if different:
            raise UsageError(
                f"{one_line(str(self.folder))} has an unfinished run with other settings ({', '.join(different)}): "
                "give the same settings to continue it, or --restart to discard it"
            )
        return state

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """Reads arrays by name from a file that the state needs; raises UsageError if they cannot be read."""
        import numpy as np

        path = self.folder / name
        try:
            with np.load(path, allow_pickle=False) as file:
                return {key: file[key] for key in file.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise self._damaged(path, error) from error

    def write(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Writes arrays into a file, which is not used until a state that needs it is committed.

        Raises:
            OutputError: they cannot be written.
        """
        import numpy as np

        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        write_atomically(str(self.folder / name), buffer.getbuffer(), overwrite=True)

    def commit(self, state: Mapping[str, Any], keep: set[str]) -> None:
        """Replaces the state, which is in JSON's types, and removes the files of arrays that are not in `keep`.

        Raises:
            OutputError: it cannot be written.
        """
        text = json.dumps({"settings": self.settings, "state": state}, indent=1)
        write_atomically(str(self.folder / STATE), text.encode(), overwrite=True)
        for path in set(self.folder.glob("*.npz")) - {self.folder / name for name in keep}:
            with suppress(OSError):
                path.unlink()

    def _damaged(self, path: Path, error: Exception) -> UsageError:
        return UsageError(
            f"{one_line(str(path))} cannot be read ({type(error).__name__}); --restart starts the training again"
        )
