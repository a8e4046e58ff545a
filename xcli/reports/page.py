"""Puts together the one file of a report: templates, a style and scripts, and the data as JSON.

Whatever comes from the table is data: the template escapes it, the script sets it as text, and the policy of the page
lets nothing run or load but the script and the style that are named in it by their digests.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from xcli.core.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xcli.reports.parts import Part
    from xcli.reports.thumbnails import Thumbnails

_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def embedded_json(value: Any) -> str:
    """Returns JSON in which nothing can end the element of a page that holds it, nor begin another one."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False).translate(_ESCAPES)


def thumbnail_room(max_size: float, markup: int, parts: Sequence[Part], images: int) -> int:
    """Returns how many bytes thumbnails may take of a page.

    Args:
        max_size: of the page, in MB.
        markup: bytes for its templates, scripts and style.
        parts: that share it.
        images: number of those that may have a thumbnail, each of which costs some ten bytes beside its text: quotes,
            a comma and its number.
    """
    data = sum(len(embedded_json(part.data)) for part in parts)
    return int(max_size * 1_000_000) - markup - data - 10 * images


def page(parts: Sequence[Part], thumbnails: Thumbnails, facts: Mapping[str, Any]) -> bytes:
    """Returns the page.

    Args:
        parts: in their order.
        facts: for the template `base.html`, beside the facts of the parts.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    # The digests are of exactly what stands between the tags.
    style = "".join(
        map(_asset, ["report.css", *(f"{part.name}.css" for part in parts if _has_asset(f"{part.name}.css"))])
    )
    script = "".join(map(_asset, ["common.js", *(f"{part.name}.js" for part in parts)]))
    data = {part.name: part.data for part in parts} | {"thumbnails": list(thumbnails.made.values())}
    environment = Environment(
        loader=PackageLoader("xcli.reports", "page_files"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = environment.get_template("base.html").render(
        **facts,
        parts=[{"name": part.name, **part.facts()} for part in parts],
        thumbnails=thumbnails,
        version=__version__,
        policy=f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        # All three are ours, or were escaped above: nothing of the table is in them as it stands.
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        data=Markup(embedded_json(data)),  # noqa: S704
    )
    return text.encode("utf-8", "backslashreplace")


def _asset(name: str) -> str:
    return (files("xcli.reports") / "page_files" / name).read_text("utf-8")


def _has_asset(name: str) -> bool:
    return (files("xcli.reports") / "page_files" / name).is_file()


def _source(text: str) -> str:
    """Returns the digest of a script or a style, as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
