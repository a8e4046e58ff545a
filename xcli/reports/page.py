"""Puts together the one file of a report: a template, a style and a script, and the data as JSON.

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
    from collections.abc import Mapping

_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def embedded_json(value: Any) -> str:
    """Returns JSON in which nothing can end the element of a page that holds it, nor begin another one."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False).translate(_ESCAPES)


def page(data: Mapping[str, Any], facts: Mapping[str, Any]) -> bytes:
    """Returns the page.

    Args:
        data: for the script.
        facts: for the template `report.html`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    # The digests are of exactly what stands between the tags.
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    environment = Environment(
        loader=PackageLoader("xcli.reports", "page_files"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = environment.get_template("report.html").render(
        **facts,
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


def _source(text: str) -> str:
    """Returns the digest of a script or a style, as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
