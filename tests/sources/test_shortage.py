"""A listing for which the machine has no descriptors: it waits, then the run ends; nothing of that becomes a row."""

from __future__ import annotations

import errno
import os
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from xcli.core import shortage
from xcli.core.errors import MachineError
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("call", "name"), [("scandir", "in"), ("scandir", "deeper"), ("open", "a.tar"), ("stat", "a.jpg")]
)
@pytest.mark.parametrize("times", [2, 3])
def test_a_want_of_descriptors_is_no_row(
    call: str, name: str, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    (tmp_path / "in" / "deeper" / "a.jpg").write_bytes(b"x")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "in" / "deeper" / "a.jpg", "b.jpg")
    monkeypatch.setattr(shortage, "PAUSES", (0.001, 0.001))
    original, refused = getattr(os, call), []

    def refuse(path: Any, *arguments: Any, **options: Any) -> Any:
        if os.path.basename(os.fsdecode(path)) == name and len(refused) < times:
            refused.append(path)
            raise OSError(errno.ENOMEM if call == "stat" else errno.EMFILE, "refused")
        return original(path, *arguments, **options)

    sources = (f"{tmp_path}/in/deeper/a.jpg", f"{tmp_path}/in", f"{tmp_path}/a.tar")
    with list_images(SourceOptions(sources=sources)) as listing:
        monkeypatch.setattr(os, call, refuse)
        if times > len(shortage.PAUSES):
            with pytest.raises(MachineError):
                list(listing)
        else:
            assert [ref.error for ref in listing] == [None] * 3
    assert len(refused) == times
