"""The digest by which caches and fingerprints tell one set of facts from another."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def json_digest(facts: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of facts as JSON, in hexadecimal, whatever the order of their names."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
