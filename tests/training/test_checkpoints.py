"""Checkpoints: arrays and the state, of which nothing that is damaged is believed."""

from __future__ import annotations

import errno
import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.memory import frugality
from xcli.core.errors import OutputError, UsageError
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
    with pytest.raises(OutputError, match=r"state\.json cannot be read.*--restart"):
        Checkpoints(tmp_path, SETTINGS).load()


def test_damaged_arrays_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(OutputError, match=r"x\.npz cannot be read.*--restart"):
        Checkpoints(tmp_path, SETTINGS).arrays("x.npz")


def test_pickled_objects_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.array([{"a": 1}], object))
    with pytest.raises(OutputError, match="cannot be read"):
        Checkpoints(tmp_path, SETTINGS).arrays("x.npz")


def test_the_state_is_plain_json(tmp_path: Path) -> None:
    Checkpoints(tmp_path, SETTINGS).commit({"epoch": 1}, set())
    found = json.loads((tmp_path / "state.json").read_text())
    assert found.pop("digest")
    assert found == {"settings": SETTINGS, "state": {"epoch": 1}}
    (tmp_path / "state.json").write_text(json.dumps(found))
    assert Checkpoints(tmp_path, SETTINGS).load() == {"epoch": 1}, "an older version did not write the digest"


def test_a_digit_that_has_changed_is_damage(tmp_path: Path) -> None:
    Checkpoints(tmp_path, SETTINGS).commit({"epoch": 1, "rows": [0.25, None]}, set())
    path = tmp_path / "state.json"
    path.write_text(path.read_text().replace("0.25", "0.75"))
    with pytest.raises(OutputError, match=r"state\.json cannot be read.*--restart"):
        Checkpoints(tmp_path, SETTINGS).load()


def test_what_cannot_be_read_now_is_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Checkpoints(tmp_path, SETTINGS)
    kept.write("head-last-0001.npz", {"x": np.zeros(1)})
    kept.commit({"epoch": 1}, {"head-last-0001.npz"})

    def fail(path: object, most: int = -1) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("xcli.training.checkpoints.disk.read_file", fail)
    for read in (kept.load, lambda: kept.arrays("head-last-0001.npz")):
        with pytest.raises(OutputError, match="Input/output error; the same command continues"):
            read()


def test_arrays_without_a_state_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Checkpoints(tmp_path, SETTINGS).write("head-last-0001.npz", {"x": np.zeros(1)})
    assert Checkpoints(tmp_path, SETTINGS).load() is None
    assert "has no state.json: the training begins again" in caplog.text


def saved(arrays: dict[str, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays, **options)
    return file.getvalue()


def bomb() -> bytes:
    """An array of the right name that says it has 8 GiB, and unpacks to 1 GiB."""
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (1 << 31,)})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as target:
        target.write(member.getvalue())
        for _ in range(64):
            target.write(bytes(1 << 20))
    return file.getvalue()


LIKE = {"x": np.zeros((2, 3), np.float32), "steps": np.asarray(7)}


@pytest.mark.parametrize(
    "content",
    [
        saved({"x": LIKE["x"]}),
        saved({**LIKE, "y": LIKE["x"]}),
        saved({**LIKE, "x": np.zeros((3, 2), np.float32)}),
        saved({**LIKE, "x": np.zeros((2, 3), np.float64)}),
        saved({**LIKE, "x": np.full((2, 3), "weight")}),
        saved({**LIKE, "x": np.array([[None] * 3] * 2, object)}),
        bomb(),
        bytes(4 << 20),
        b"",
    ],
)
def test_other_arrays_than_those_of_the_training_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with frugality(), pytest.raises(OutputError, match=r"x\.npz cannot be read.*--restart"):
        Checkpoints(tmp_path, SETTINGS).arrays("x.npz", LIKE)


def test_some_of_the_arrays_may_be_absent(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, SETTINGS)
    kept.write("x.npz", {"x": LIKE["x"]})
    assert list(kept.arrays("x.npz", LIKE, ["x"])) == ["x"]
    with pytest.raises(OutputError, match="cannot be read"):
        kept.arrays("x.npz", LIKE, ["steps"])
