"""Messages that name files: whatever the name, one line that drives no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.imagefiles import encode, gradient
from tests.test_security import HOSTILE, NOT_SHOWN

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Invoke


def test_messages_that_name_files(invoke: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / HOSTILE
    folder.mkdir()
    (folder / "picture.png").write_bytes(encode(gradient(), "PNG"))
    for arguments in (
        ("classify", folder / "absent*.jpg"),
        ("classify", folder, "--model", folder / "absent.keras"),
        ("classify", folder, "--weights", folder / "absent.h5"),
        ("classify", folder, "--weights", "none", "--labels", folder / "absent.txt"),
        ("classify", "--manifest", folder / "absent.csv"),
        ("classify", folder, "--weights", "none", "-o", folder / "absent" / "out.csv"),
    ):
        result = invoke(*arguments)
        assert result.code in (2, 3, 5), result
        # TensorFlow may speak too; in this process nothing captures it. A name with a line end must not begin a line.
        assert len([line for line in result.err.splitlines() if line.startswith("xception: error: ")]) == 1, result
        assert "owned" in result.err
        assert not NOT_SHOWN.search(result.err), result
