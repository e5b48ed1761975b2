"""From a location and a secret folder to a store. Called once per store by every step and by the local runner."""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from nativealign_workloads.errors import ConfigError, PermissionDenied, UsageError

from .base import ObjectStore
from .local import LocalStore

ACCESS_KEY = "AWS_ACCESS_KEY_ID"
SECRET_KEY = "AWS_SECRET_ACCESS_KEY"
AWS_ENDPOINT = "https://s3.amazonaws.com"


def open_store(
    location: str, *, endpoint: str | None, region: str | None, ca_bundle: str | None, secrets_dir: Path | None
) -> ObjectStore:
    """The store at `location`, a folder's path or `s3://bucket/prefix`; the other arguments concern S3 only.

    `endpoint` is a URL (None: AWS), `ca_bundle` a PEM file, `secrets_dir` a mounted secret (see `credentials_from`).
    Opens no connection yet. Raises UsageError for a location of another kind, ConfigError without credentials.
    """
    url = urlsplit(location)
    if "://" not in location:
        return LocalStore(Path(location))
    if url.scheme != "s3" or not url.netloc:
        raise UsageError("BadLocation", f"cannot open {location!r}", "give a folder or s3://bucket/prefix")
    from .s3 import S3Store  # a folder needs no S3 client, whose import is slow

    access_key, secret_key = credentials_from(os.environ, secrets_dir)
    return S3Store(
        endpoint=endpoint or AWS_ENDPOINT,
        bucket=url.netloc,
        prefix=location.removeprefix(f"s3://{url.netloc}").strip("/"),
        access_key=access_key,
        secret_key=secret_key,
        region=region,
        ca_bundle=ca_bundle,
    )


def credentials_from(env: Mapping[str, str], secrets_dir: Path | None) -> tuple[str, str]:
    """(access key, secret key) from the files AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in `secrets_dir`, which
    belongs to this one store, or else from the environment. Raises ConfigError `CredentialsMissing`.
    """
    pair = [_secret(name, env, secrets_dir) for name in (ACCESS_KEY, SECRET_KEY)]
    missing = [name for name, value in zip((ACCESS_KEY, SECRET_KEY), pair, strict=True) if not value]
    if missing:
        where = f"as files in {secrets_dir} or " if secrets_dir else ""
        raise ConfigError("CredentialsMissing", f"no {' and no '.join(missing)}", f"set them {where}in the environment")
    return pair[0], pair[1]


def _secret(name: str, env: Mapping[str, str], secrets_dir: Path | None) -> str:
    path = secrets_dir / name if secrets_dir else None
    try:
        if path and path.is_file():
            return path.read_text().strip()
    except PermissionError:
        raise PermissionDenied("SecretUnreadable", f"cannot read {path}", "check the mounted secret's mode") from None
    return env.get(name, "").strip()
