"""Web servers: single files to read; there are no listings and no writing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xcli.storage.object_store.base import ObjectStore
from xcli.storage.object_store.errors import ATTEMPTS, StoreError
from xcli.storage.object_store.state import ByteRange, Content, ListedObject, object_state, too_large, total_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xcli.core.records import FileState

_CHUNK = 1 << 20


class WebStore(ObjectStore):
    """A file of a web server, read through aiohttp with one request where fsspec would make two."""

    def pages(self, prefix: str = "", attempts: int = ATTEMPTS) -> Iterator[list[ListedObject]]:
        raise StoreError("unreadable", "web servers have no listing; name the files one by one, or in a list")

    def _state(self) -> FileState | None:
        async def ask() -> FileState | None:
            session = await self.fs.set_session()
            async with session.head(self._address(), allow_redirects=True, **self._options({})) as answer:
                self._check(answer)
                return _state_of(answer, answer.content_length)

        return self._run(ask)

    def _get(self, limit: int, part: ByteRange | None) -> Content:
        async def read() -> Content:
            session = await self.fs.set_session()
            options = self._options({"Range": part.header} if part else {})
            async with session.get(self._address(), **options) as answer:
                self._check(answer)
                whole = part is not None and answer.status != 206
                announced = answer.content_length
                if announced is not None and announced > limit:
                    raise too_large(announced, limit)
                chunks, size = [], 0
                async for chunk in answer.content.iter_chunked(_CHUNK):
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > limit:
                        raise too_large(size, limit)
                total = total_size(answer.headers.get("Content-Range"), announced)
                return Content(b"".join(chunks), _state_of(answer, total), whole)

        return self._run(read)

    def _options(self, headers: dict[str, str]) -> dict[str, Any]:
        given = dict(self.fs.kwargs)
        # Without compression, so that the announced length is that of the object.
        return {**given, "headers": {**(given.get("headers") or {}), "Accept-Encoding": "identity", **headers}}

    def _address(self) -> Any:
        try:
            return self.fs.encode_url(self.url)
        except ValueError as error:
            raise FileNotFoundError(self.url) from error

    def _check(self, answer: Any) -> None:
        if answer.status in (404, 410):
            raise FileNotFoundError(self.url)
        answer.raise_for_status()


def _state_of(answer: Any, size: int | None) -> FileState | None:
    return object_state(size, answer.headers.get("Last-Modified"), answer.headers.get("ETag"))
