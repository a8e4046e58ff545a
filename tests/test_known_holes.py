"""The check of versions with known holes."""

from __future__ import annotations

from tools import known_holes


def test_this_repository_has_none() -> None:
    assert known_holes.main() == 0


def test_what_is_too_old_is_named() -> None:
    safe = [f"{name}>={version}" for name, (version, _) in known_holes.FIRST_SAFE.items()]
    assert known_holes.too_old(safe, "click==8.10.0 \\\n") == []
    rest = [one for one in safe if not one.startswith(("click>", "ray>"))]
    found = known_holes.too_old([*rest, "click[x]>=8.3.9"], "urllib3==2.6.2 \\\n")
    assert [text.partition(",")[0] for text in found] == [
        "pyproject.toml allows click[x]>=8.3.9",
        "pyproject.toml sets no floor for ray",
        "requirements-dev.lock has urllib3 2.6.2",
    ]
