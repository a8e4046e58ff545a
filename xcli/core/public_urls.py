"""URLs without what only their server may know: user names, passwords, and the parameters that sign a request."""

from __future__ import annotations

import re

_WEB = re.compile(r"https?://", re.IGNORECASE)
_IN_TEXT = re.compile(r"https?://[^\s'\"<>\x00-\x1f]+", re.IGNORECASE)

_PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-cos-")
_SECRET = frozenset(
    "signature sig awsaccesskeyid googleaccessid ossaccesskeyid policy key-pair-id token access_token auth_token "
    "id_token session_token refresh_token sas jwt auth authorization credential credentials api_key apikey api-key "
    "access_key secret client_secret password passwd pwd hmac hdnts".split()
)
_BESIDE_A_SIGNATURE = frozenset(
    "expires se st sp sv sr spr sip si ss srt skoid sktid skt ske sks skv hash-algorithm".split()
)


def public_url(url: str) -> str:
    """Returns a URL of a web server without user name, password and signature; any other text as it is.

    Other parameters of the query stay, in their order; a query of which none is left goes with its question mark.
    """
    found = _WEB.match(url)
    if found is None:
        return url
    scheme, rest = found[0], url[found.end() :]
    end = re.search(r"[/?#\\]", rest)
    host, rest = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    rest, hash_, fragment = rest.partition("#")
    path, _, query = rest.partition("?")
    fields = re.split(r"[&;]", query) if query else []
    names = [field.partition("=")[0].lower().replace("%2d", "-").replace("%5f", "_") for field in fields]
    signed = any(_is_secret(name) for name in names)
    kept = [
        field
        for field, name in zip(fields, names, strict=True)
        if not (_is_secret(name) or (signed and name in _BESIDE_A_SIGNATURE))
    ]
    query = query if len(kept) == len(fields) else "&".join(kept)
    return f"{scheme}{host.rpartition('@')[2]}{path}{'?' if query else ''}{query}{hash_}{fragment}"


def without_secrets(text: str) -> str:
    """Returns text in which every URL of a web server is as `public_url` gives it."""
    return _IN_TEXT.sub(lambda found: public_url(found[0]), text) if "://" in text else text


def _is_secret(name: str) -> bool:
    return name in _SECRET or name.startswith(_PREFIXES)
