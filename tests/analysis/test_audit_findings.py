"""Tables of findings, and what is left out for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.colournet import save_folders
from xcli.analysis.audit_findings import (
    EXCLUDED,
    Finding,
    excluded_paths,
    findings_batch,
    findings_schema,
    in_order,
    leave_out,
    parse_kinds,
)
from xcli.core.errors import SourceError, UsageError
from xcli.sources.labelled import read_labelled
from xcli.tables.formats import create_table

FINDINGS = [
    Finding("a.png", "x", "tiny", 0.5, "30x20 pixels"),
    Finding("b\\\\c.png", "x", "wrong-label", 0.2, "=1", "y", "a.png"),
    Finding(None, "z", "small-class", 0.9, "2 images"),
    Finding("d\n.png", None, "wrong-label", 0.9, "text"),
]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_images_of_findings_are_read_by_kind(tmp_path: Path, form: str) -> None:
    target = str(tmp_path / f"f.{form}")
    with create_table(form, target, findings_schema(), {}, False) as table:
        table.write(findings_batch(FINDINGS))
    assert excluded_paths(target) == {"a.png", "b\\\\c.png", "d\n.png"}
    assert excluded_paths(target, ("tiny", "small-class")) == {"a.png"}
    assert excluded_paths(target, ("blank",)) == set()


def test_the_order_is_that_of_kinds_then_of_severity() -> None:
    assert [one.path for one in in_order(FINDINGS)] == ["d\n.png", "b\\\\c.png", "a.png", None]
    assert findings_batch([]).num_rows == 0


def test_kinds_are_read(tmp_path: Path) -> None:
    assert parse_kinds("tiny, blank") == ("tiny", "blank")
    with pytest.raises(UsageError, match="'tine' is no kind"):
        parse_kinds("tiny,tine")
    (tmp_path / "f.csv").write_text("path,issue\na.png,strange\n")
    with pytest.raises(SourceError, match="strange"):
        excluded_paths(str(tmp_path / "f.csv"))


def test_images_are_left_out(tmp_path: Path) -> None:
    data = read_labelled(str(save_folders(tmp_path / "data", 2)))
    first = data.samples[0].ref.path
    (tmp_path / "f.csv").write_text(f"path\n{first}\nelsewhere.png\n")
    found = leave_out(data, str(tmp_path / "f.csv"))
    assert [one.ref.path for one in found.samples] == [one.ref.path for one in data.samples[1:]]
    assert found.skipped[EXCLUDED] == 1
    (tmp_path / "f.csv").write_text("path\nelsewhere.png\n")
    with pytest.raises(SourceError, match="paths have to be the same"):
        leave_out(data, str(tmp_path / "f.csv"))
    (tmp_path / "f.csv").write_text("path\n" + "\n".join(one.ref.path for one in data.samples if one.label == "red"))
    with pytest.raises(SourceError, match="leaves no image of the class 'red'"):
        leave_out(data, str(tmp_path / "f.csv"))
