"""`-o s3://...`, from the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Invoke
    from tests.objectstore import ObjectStore

FAST = ("--weights", "none", "--image-size", "71", "--batch-size", "1")


def test_a_table_its_check_and_its_merge(invoke: Invoke, photos: Path, s3: ObjectStore) -> None:
    prefix = s3.prefix()
    target = s3.url(f"{prefix}/run.parquet")
    command = ("features", photos, *FAST, "-o", target)
    result = invoke(*command)
    assert result.code == 0, result
    names = [f"{prefix}/run.parquet{suffix}" for suffix in ("", ".meta.json", ".states")]
    assert s3.keys(prefix) == names
    result = invoke(*command)
    assert (result.code, "finished and up to date" in result.err) == (0, True), result
    result = invoke("verify", target, photos, "--json")
    assert result.code == 0, result
    verdict = json.loads(result.out)
    assert (verdict["name"], verdict["rows"], verdict["passed"]) == (target, 5, True)
    result = invoke("merge", target, "--source", photos, "-o", s3.url(f"{prefix}/merged.parquet"))
    assert result.code == 0, result
    assert s3.get(f"{prefix}/merged.parquet") == s3.get(f"{prefix}/run.parquet")
    result = invoke("merge", target, "-o", s3.url(f"{prefix}/merged.parquet"))
    assert (result.code, "merged.parquet exists; pass --overwrite" in result.err) == (5, True), result


def test_places_where_nothing_can_be_written(invoke: Invoke, photos: Path, s3: ObjectStore) -> None:
    for arguments, code, message in [
        (("features", photos, "-o", "s3://no-such-bucket/run/"), 5, "there is no such bucket"),
        (("features", photos, "-o", s3.url("run")), 2, "the name does not tell the format"),
        (("features", photos, "-o", "https://example.org/run.csv"), 2, "web servers take no files"),
        (("finetune", photos, "-o", s3.url("run")), 2, "finetune writes a directory of this machine"),
        (("evaluate", photos, "--weights", "none", "-o", s3.url("run")), 2, "evaluate writes a directory of this"),
    ]:
        result = invoke(*arguments)
        assert (result.code, message in result.err) == (code, True), result
        assert result.err.count("\n") <= 2
