"""The client of web servers: it connects to public addresses only, and follows no redirect from https to http."""

from __future__ import annotations

import ipaddress
from typing import Any

from xcli.core.public_urls import public_url
from xcli.storage.object_store.errors import StoreError

# IPv4 addresses behind NAT64, and as they were written in the first years.
_EMBEDDED = ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96")

_allowed = False


def allow_private_hosts(allowed: bool) -> None:
    """Says for this process whether URLs may lead to addresses that are not public."""
    global _allowed
    _allowed = allowed


def is_public(host: str) -> bool:
    """Says whether an address, as text, belongs to the internet rather than to this machine or its network."""
    address: Any = ipaddress.ip_address(host.partition("%")[0])
    if address.version == 6:
        inner = address.ipv4_mapped or address.sixtofour
        if any(address in network for network in _EMBEDDED):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        address = inner or address
    return bool(address.is_global and not address.is_multicast)


async def new_client(**settings: Any) -> Any:
    """Returns the session of aiohttp that fsspec uses."""
    import aiohttp

    class Connector(aiohttp.TCPConnector):
        """Looks at every address before it is connected to: what a name resolved to, and those that are given."""

        async def _resolve_host(self, host: str, *arguments: Any, **options: Any) -> Any:
            found = await super()._resolve_host(host, *arguments, **options)
            # A proxy of the environment is trusted; the address behind it is looked at in `_check`.
            if host.lower() not in _proxies():
                for one in found:
                    _refuse(host, one["host"])
            return found

    async def begin(session: Any, context: Any, request: Any) -> None:
        _check(request.url)

    async def redirect(session: Any, context: Any, request: Any) -> None:
        old, headers = request.response.url, request.response.headers
        new = old.join(_url(headers.get("Location") or headers.get("URI", "")))
        if old.scheme == "https" and new.scheme != "https":
            raise StoreError("unreadable", f"the server redirects from https to {public_url(str(new))}")
        _check(new)

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(begin)
    trace.on_request_redirect.append(redirect)
    traces = [*settings.pop("trace_configs", ()), trace]
    return aiohttp.ClientSession(connector=Connector(), trace_configs=traces, **settings)


def _url(text: str) -> Any:
    import yarl

    return yarl.URL(text)


def _proxies() -> set[str]:
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    return {(urlsplit(one).hostname or "") for one in getproxies().values() if "://" in one}


def _check(url: Any) -> None:
    """Raises StoreError for a URL whose host is an address, or this machine, and not public; names: see `Connector`."""
    host = url.host or ""
    if host.rstrip(".").lower() == "localhost":
        _refuse(host, "127.0.0.1")
        return
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return
    _refuse(host, host)


def _refuse(host: str, address: str) -> None:
    if not _allowed and not is_public(address):
        shown = host if host == address else f"{host} ({address})"
        raise StoreError(
            "unreadable", f"{shown} is not a public address; --allow-private-hosts allows those of your own network"
        )
