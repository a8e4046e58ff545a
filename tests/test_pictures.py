"""The pictures of the documentation are those that examples/overview.py draws, of the sizes that it says, and small."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PICTURES = sorted((ROOT / "docs" / "images").iterdir())


def drawn_pages() -> dict[str, tuple[str, str, int, int]]:
    """Returns `PAGES` of the script, which is not run."""
    for node in ast.parse((ROOT / "examples" / "overview.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PAGES":
            found: dict[str, Any] = ast.literal_eval(node.value)
            return found
    raise AssertionError("examples/overview.py has no PAGES")


def test_every_picture_is_drawn_by_the_script() -> None:
    assert {picture.stem for picture in PICTURES} == {"overview", *drawn_pages()}


@pytest.mark.parametrize("picture", PICTURES, ids=lambda one: one.name)
def test_a_picture_is_small_and_shown(picture: Path) -> None:
    assert picture.stat().st_size < 150_000
    texts = [page.read_text("utf-8") for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]]
    assert any(f"images/{picture.name})" in text for text in texts)
    if picture.stem in drawn_pages():
        with Image.open(picture) as image:
            assert image.size == drawn_pages()[picture.stem][2:]


def test_the_addresses_of_pages_are_those_of_their_scripts() -> None:
    folder = ROOT / "xcli" / "reports" / "page_files"
    scripts, templates = ("".join(one.read_text("utf-8") for one in folder.glob(kind)) for kind in ("*.js", "*.html"))
    for page, *_ in drawn_pages().values():
        name, is_filter, _ = page.partition("#")[2].partition("=")
        assert not name or (f'"{name}"' in scripts if is_filter else f'id="{name}"' in templates)
