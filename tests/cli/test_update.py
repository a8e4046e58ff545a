"""`--update` and the look at a finished output, from the command line, with a real network."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import code_and_imports
from tests.thorough import slow

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Invoke


def test_look_and_update(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    photos = shutil.copytree(photos, tmp_path / "in")
    target = tmp_path / "t.parquet"
    command = ("features", photos, "--weights", "none", "--image-size", "71", "--batch-size", "4", "-o", target)
    result = invoke(*command, "--json")
    assert (result.code, json.loads(result.out)["computed"]) == (0, 5), result
    assert invoke(*command, "--normalize").code == 5, "other settings"
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


@pytest.mark.parametrize(
    ("more", "code", "loads"),
    [
        ((), 0, False),
        (("--device", "cpu", "--precision", "float32"), 0, False),
        # Other settings, which the network has to tell apart.
        pytest.param(("--normalize",), 5, True, marks=slow),
        pytest.param(("--batch-size", "7"), 5, True, marks=slow),
    ],
)
def test_a_finished_output_is_compared_without_tensorflow(
    invoke: Invoke, photos: Path, tmp_path: Path, more: tuple[str, ...], code: int, loads: bool
) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,kind\n" + "".join(f"{one},x\n" for one in sorted(photos.rglob("[!.]*.jpg"))))
    target = tmp_path / "t.csv"
    command = ("features", "--manifest", manifest, "--weights", "none", "--image-size", "71", "-o", target)
    assert invoke(*command).code == 0
    found = code_and_imports([*map(str, command), *more])
    assert found.startswith(f"IMPORTED {code} ")
    assert ("'tensorflow'" in found) == loads
