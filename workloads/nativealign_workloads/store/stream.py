"""One object of an S3 store as a seekable stream that survives broken connections. Made by `S3Store.open`."""

import io
import random
import time
from collections.abc import Callable

import urllib3
from urllib3.response import BaseHTTPResponse

from .s3_errors import unavailable

ATTEMPTS = 6

Fetch = Callable[[int, str | None], BaseHTTPResponse]


class ObjectStream(io.RawIOBase):
    """Reads through `fetch(offset, etag)`, which answers with the object's bytes from `offset` on.

    The first request is made at once, so that a missing object is found when opening. A connection that breaks is
    replaced at the same position, at most ATTEMPTS times in a row; all further requests carry the first one's tag,
    so that two versions of an object are never mixed. `name` is for messages.
    """

    def __init__(self, fetch: Fetch, name: str) -> None:
        self._fetch, self._name, self._position = fetch, name, 0
        self._response: BaseHTTPResponse | None = fetch(0, None)
        self._size = int(self._response.headers.get("content-length", 0))
        self._etag = self._response.headers.get("etag", "").strip('"')

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if position != self._position:
            self._drop()
        self._position = max(0, position)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._position >= self._size:
            return 0
        for attempt in range(1, ATTEMPTS + 1):
            try:
                data = self._read(min(len(buffer), self._size - self._position))
                break
            except (urllib3.exceptions.HTTPError, OSError) as exc:
                self._drop()
                if attempt == ATTEMPTS:
                    raise unavailable(exc, self._name) from None
                time.sleep(random.uniform(0, 0.2 * 2**attempt))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._drop()
        super().close()

    def _read(self, count: int) -> bytes:
        """At least one byte. As stored: `Content-Encoding: gzip` describes the object, it is not ours to undo."""
        if self._response is None:
            self._response = self._fetch(self._position, self._etag)
        data = self._response.read(count, decode_content=False)
        if not data:
            raise urllib3.exceptions.ProtocolError("the connection ended early")
        return data

    def _drop(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.close()
            response.release_conn()
