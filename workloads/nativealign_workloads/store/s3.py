"""An `ObjectStore` over a bucket of any S3 server, through minio's public API.

Retries: urllib3 repeats a request on 5xx, 429 and network errors with exponential back-off and jitter; a broken
download goes on at its position (`stream.py`), a broken multipart upload starts again.
"""

import random
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import certifi
import urllib3
from minio import Minio
from minio.credentials.providers import Provider
from minio.error import S3Error
from urllib3.response import BaseHTTPResponse

from nativealign_workloads.errors import ConfigError, UnavailableError

from .base import ANSWER_SECONDS, AlreadyExists, NotFound, ObjectInfo, ObjectStore, check_key, folder_of, no_conditional_writes
from .s3_errors import BUSY, s3_errors
from .stream import ObjectStream

MIB = 1 << 20
PART_SIZE = 16 * MIB
MAX_PARTS = 10_000  # Amazon S3 User Guide, multipart upload limits
ATTEMPTS = 3
CONFLICT_ATTEMPTS = 8
CONFLICT = "ConditionalRequestConflict"  # a concurrent writer was seen and nobody has won yet: repeat
TIMEOUT = urllib3.Timeout(connect=10, read=60)  # seconds; read = longest silence, not the whole transfer


class S3Store(ObjectStore):
    """Objects under `prefix` of `bucket`; keys do not include the prefix.

    `endpoint` is a URL (`https://host:port`); `region` None means us-east-1, except at AWS, which is asked.
    `ca_bundle` is a PEM file that replaces the usual authorities. `retries` bounds the repeats of one request:
    6 of them ride out about half a minute.
    """

    def __init__(
        self,
        endpoint: str,
        bucket: str,
        prefix: str = "",
        *,
        credentials: Provider,
        region: str | None = None,
        ca_bundle: str | None = None,
        retries: int = 6,
    ) -> None:
        host, secure = _host(endpoint)
        if ca_bundle and not Path(ca_bundle).is_file():
            raise ConfigError("CaBundleMissing", f"there is no CA bundle {ca_bundle}", "mount it or correct its path")
        self.bucket, self.prefix = bucket, prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._name = f"s3://{bucket}/{self.prefix} at {endpoint}"
        self._bucket_seen = False

        def client(pool: type[urllib3.PoolManager]) -> Minio:
            return Minio(
                host,
                credentials=credentials,
                secure=secure,
                region=region or (None if host.endswith("amazonaws.com") else "us-east-1"),
                http_client=pool(
                    timeout=TIMEOUT,
                    maxsize=32,
                    cert_reqs="CERT_REQUIRED",
                    ca_certs=ca_bundle or certifi.where(),
                    retries=_retries(retries),
                ),
            )

        self._endpoint = endpoint
        self._probe = urllib3.PoolManager(timeout=ANSWER_SECONDS, retries=False, ca_certs=ca_bundle or certifi.where())
        self._client = client(urllib3.PoolManager)
        self._creator = client(_CreateOnlyPool)

    def __str__(self) -> str:
        return self._name

    def stat(self, key: str) -> ObjectInfo | None:
        name = self._key(key)
        try:
            with s3_errors(self, key):
                found = self._client.stat_object(self.bucket, name)
        except NotFound:
            self._check_bucket(key)
            return None
        return ObjectInfo(key, found.size or 0, found.etag or "", _seconds(found.last_modified))

    def open(self, key: str) -> BinaryIO:
        name = self._key(key)

        def fetch(offset: int, etag: str | None) -> BaseHTTPResponse:
            condition: dict[str, str | list[str] | tuple[str]] = {"If-Match": f'"{etag}"'} if etag else {}
            with s3_errors(self, key):
                return self._client.get_object(self.bucket, name, offset=offset, request_headers=condition)

        return BufferedReader(ObjectStream(fetch, f"{key} of {self}"), MIB)

    def write(self, key: str, data: bytes) -> None:
        name = self._key(key)
        with s3_errors(self, key):
            self._client.put_object(self.bucket, name, BytesIO(data), len(data), part_size=_part_size(len(data)))

    def create(self, key: str, data: bytes) -> None:
        name = self._key(key)
        # One PUT, however large: the condition belongs to the object, not to its parts.
        single = max(len(data), 5 * MIB)
        for _ in range(CONFLICT_ATTEMPTS):
            try:
                with s3_errors(self, key, passing=("PreconditionFailed", CONFLICT, "NotImplemented")):
                    self._creator.put_object(self.bucket, name, BytesIO(data), len(data), part_size=single)
                return
            except S3Error as exc:
                code = exc.code
            if code == "NotImplemented":
                raise no_conditional_writes(self, "it answers NotImplemented")
            if code == "PreconditionFailed" and (kept := self._kept(key)) is not None:
                if kept != data:
                    raise AlreadyExists(key)
                return  # our own, stored by a request whose reply was lost
            time.sleep(random.uniform(0, 0.2))
        raise UnavailableError("StoreUnavailable", f"{self} answers {CONFLICT} to every create of {key}", "try again")

    def upload(self, key: str, path: Path) -> None:
        name, size = self._key(key), path.stat().st_size
        for left in reversed(range(ATTEMPTS)):
            try:
                with s3_errors(self, key):
                    self._client.fput_object(self.bucket, name, str(path), part_size=_part_size(size), num_parallel_uploads=4)
                return
            except UnavailableError:
                if not left:
                    raise

    def list(self, prefix: str, *, with_etag: bool = False) -> Iterator[ObjectInfo]:
        folder_of(prefix)
        with s3_errors(self, prefix):
            for found in self._client.list_objects(self.bucket, prefix=self.prefix + prefix, recursive=True):
                key = found.object_name.removeprefix(self.prefix)
                if not key.endswith("/"):  # markers of empty folders, made by consoles
                    etag = (found.etag or "").strip('"') if with_etag else ""
                    yield ObjectInfo(key, found.size or 0, etag, _seconds(found.last_modified))

    def delete(self, key: str) -> None:
        name = self._key(key)
        with suppress(NotFound), s3_errors(self, key):
            self._client.remove_object(self.bucket, name)

    def answers(self) -> bool:
        try:
            self._probe.request("HEAD", self._endpoint)
        except urllib3.exceptions.HTTPError:
            return False
        return True

    def _key(self, key: str) -> str:
        return self.prefix + check_key(key)

    def _kept(self, key: str) -> bytes | None:
        """What a refused create ran into; None if it was removed, or is not readable yet."""
        try:
            return self.read(key)
        except NotFound:
            return None

    def _check_bucket(self, key: str) -> None:
        """The answer to HEAD has no body, so a missing bucket or an unknown access key may look like a missing object:
        once per store, ask by a request whose answer says why.
        """
        if not self._bucket_seen:
            next(self.list(key), None)
            self._bucket_seen = True


class _CreateOnlyPool(urllib3.PoolManager):
    """Adds `If-None-Match: *` to every PUT; minio's `put_object` has no argument for it."""

    def urlopen(self, method: str, url: str, redirect: bool = True, **kw: Any) -> BaseHTTPResponse:  # type: ignore[override]
        if method == "PUT":
            kw["headers"]["If-None-Match"] = "*"
        return super().urlopen(method, url, redirect, **kw)


def _retries(total: int) -> urllib3.Retry:
    """Every request of ours may be repeated; the last answer is returned, not raised, so that its code is read."""
    return urllib3.Retry(
        total=total,
        allowed_methods=None,
        status_forcelist=BUSY,
        raise_on_status=False,
        backoff_factor=0.5,
        backoff_jitter=0.5,
        backoff_max=20,
        retry_after_max=60,
    )


def _host(endpoint: str) -> tuple[str, bool]:
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https") or not url.netloc or url.path.strip("/") or url.username:
        raise ConfigError("BadEndpoint", f"{endpoint!r} is no S3 endpoint", "give a URL such as https://minio:9000")
    return url.netloc, url.scheme == "https"


def _seconds(modified: datetime | None) -> float:
    """Now where a server does not say: what is of unknown age is young."""
    return modified.timestamp() if modified else time.time()


def _part_size(size: int) -> int:
    """16 MiB, or what keeps `size` bytes within 10,000 parts, in whole MiB."""
    return max(PART_SIZE, -(-size // (MAX_PARTS * MIB)) * MIB)
