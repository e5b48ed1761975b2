"""From a location and a secret folder to a store. Called once per store by every step and by the local runner."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from nativealign_workloads.errors import UsageError

from .base import ObjectStore
from .local import LocalStore

AWS_ENDPOINT = "https://s3.amazonaws.com"


def open_store(
    location: str, *, endpoint: str | None, region: str | None, ca_bundle: str | None, secrets_dir: Path | None
) -> ObjectStore:
    """The store at `location`, a folder's path or `s3://bucket/prefix`; the other arguments concern S3 only.

    `endpoint` is a URL (None: AWS), `ca_bundle` a PEM file, `secrets_dir` a mounted secret (see credentials.py).
    Opens no connection yet. Raises UsageError for a location of another kind, ConfigError without credentials.
    """
    url = urlsplit(location)
    if "://" not in location:
        return LocalStore(Path(location))
    if url.scheme != "s3" or not url.netloc:
        raise UsageError("BadLocation", f"cannot open {location!r}", "give a folder or s3://bucket/prefix")
    from .credentials import credentials_from
    from .s3 import S3Store  # a folder needs no S3 client, whose import is slow

    return S3Store(
        endpoint=endpoint or AWS_ENDPOINT,
        bucket=url.netloc,
        prefix=location.removeprefix(f"s3://{url.netloc}").strip("/"),
        credentials=credentials_from(os.environ, secrets_dir, endpoint or AWS_ENDPOINT, ca_bundle),
        region=region,
        ca_bundle=ca_bundle,
    )
