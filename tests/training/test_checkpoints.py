"""What a training run leaves on the disk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from xcli.core.errors import UsageError
from xcli.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = {"seed": 1, "recipe": {"epochs": 3, "views": [1, 2]}, "data": "abc"}


def test_arrays_and_state_come_back(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, SETTINGS)
    assert kept.load() is None
    arrays = {"weight:a/kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3), "steps": np.asarray(7)}
    kept.write("last-0001.npz", arrays)
    kept.commit({"epoch": 1}, {"last-0001.npz"})
    again = Checkpoints(tmp_path, SETTINGS)
    assert again.load() == {"epoch": 1}
    found = again.arrays("last-0001.npz")
    assert {name: array.tolist() for name, array in found.items()} == {
        name: array.tolist() for name, array in arrays.items()
    }


def test_older_arrays_go_only_when_the_state_does_without(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, SETTINGS)
    for epoch in range(3):
        name = f"last-{epoch}.npz"
        kept.write(name, {"x": np.zeros(1)})
        if epoch:
            assert (tmp_path / f"last-{epoch - 1}.npz").exists()
        kept.commit({"epoch": epoch}, {name})
    assert [path.name for path in tmp_path.glob("*.npz")] == ["last-2.npz"]


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    Checkpoints(tmp_path, SETTINGS).commit({}, set())
    other = {"seed": 2, "recipe": {"epochs": 4, "views": [1, 2]}, "data": "abc", "new": None}
    with pytest.raises(UsageError, match=r"other settings \(recipe\.epochs, seed\).*--restart"):
        Checkpoints(tmp_path, other).load()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"settings": {}}', '{"settings": 1, "state": {}}'])
def test_a_damaged_state_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(UsageError, match=r"state\.json cannot be read.*--restart"):
        Checkpoints(tmp_path, SETTINGS).load()


def test_damaged_arrays_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(UsageError, match=r"x\.npz cannot be read.*--restart"):
        Checkpoints(tmp_path, SETTINGS).arrays("x.npz")


def test_pickled_objects_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.array([{"a": 1}], object))
    with pytest.raises(UsageError, match="cannot be read"):
        Checkpoints(tmp_path, SETTINGS).arrays("x.npz")


def test_the_state_is_plain_json(tmp_path: Path) -> None:
    Checkpoints(tmp_path, SETTINGS).commit({"epoch": 1}, set())
    assert json.loads((tmp_path / "state.json").read_text()) == {"settings": SETTINGS, "state": {"epoch": 1}}
