"""`--update` and the look at a finished output, from the command line, with a real network."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Invoke


def test_look_and_update(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "t.parquet"
    command = ("features", photos, "--weights", "none", "--image-size", "71", "--batch-size", "4", "-o", target)
    result = invoke(*command, "--json")
    assert (result.code, json.loads(result.out)["computed"]) == (0, 5), result
    first, second, *_ = sorted(photos.rglob("[!.]*.jpg"))
    shutil.copy(first, photos / "zzz.jpg")
    second.unlink()
    result = invoke(*command, "--json")
    found = json.loads(result.out)
    assert (result.code, found["up_to_date"], found["new"], found["gone"]) == (5, False, 1, 1), result
    assert "--update brings it up to date" in result.err
    result = invoke(*command, "--update", "--json")
    found = json.loads(result.out)
    assert (result.code, found["up_to_date"], found["computed"], found["new"]) == (0, True, 1, 1), result
