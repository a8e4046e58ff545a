"""What a training run leaves on the disk after every epoch, so that another process can go on from there.

Two kinds of file in one directory: arrays (`*.npz`, named by their epoch) and `state.json`, which names them. The state
is replaced last, and atomically: at any moment it names files that are whole. No file holds code or pickled objects.
"""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcli.core.errors import OutputError, UsageError
from xcli.core.text import one_line
from xcli.storage.atomic import write_atomically
from xcli.storage.streams import write_errors
from xcli.tables.provenance import differences

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

STATE = "state.json"


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: the directory; it must exist.
        settings: everything that the result depends on, in JSON's types; a run goes on only under the same.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))

    def load(self) -> dict[str, Any] | None:
        """The state of an earlier process, or None where there is none.

        Raises:
            UsageError: the state is of a run with other settings; the message names them.
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
                f"{one_line(str(self.folder))} holds a run begun with other settings ({', '.join(different)}): give "
                "the same to go on with it, or --restart to start over"
            )
        return state

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """The arrays that a state names.

        Raises:
            UsageError: they cannot be read.
        """
        import numpy as np

        path = self.folder / name
        try:
            with np.load(path, allow_pickle=False) as file:
                return {key: file[key] for key in file.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise self._damaged(path, error) from error

    def write(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Writes arrays; they count for nothing until a state names them.

        Raises:
            OutputError: they cannot be written.
        """
        import numpy as np

        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        self._put(name, buffer.getbuffer())

    def commit(self, state: Mapping[str, Any], keep: set[str]) -> None:
        """Makes a state the one to go on from, and removes arrays that it does not need.

        Args:
            state: in JSON's types.
            keep: names of arrays that the state needs.

        Raises:
            OutputError: it cannot be written.
        """
        text = json.dumps({"settings": self.settings, "state": state}, indent=1)
        self._put(STATE, text.encode())
        for path in self.folder.glob("*.npz"):
            if path.name not in keep:
                with suppress(OSError):
                    path.unlink()

    def _put(self, name: str, data: bytes | memoryview) -> None:
        write_atomically(str(self.folder / name), data, overwrite=True)

    def _damaged(self, path: Path, error: Exception) -> UsageError:
        return UsageError(
            f"{one_line(str(path))} cannot be read ({type(error).__name__}): --restart starts the training over"
        )


def prepare_folder(path: str | Path, restart: bool) -> Path:
    """The directory for a run's checkpoints: made, or emptied of an older run's.

    Args:
        path: its name.
        restart: remove what is there.

    Raises:
        OutputError: it cannot be made.
    """
    import shutil

    folder = Path(path)
    with write_errors(str(path)):
        if restart and folder.is_dir():
            shutil.rmtree(folder)
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{one_line(str(path))} is a file, where a directory for checkpoints is needed: move it")
        folder.mkdir(exist_ok=True)
    return folder
