"""Our client for a test's S3 server."""

from minio.credentials.providers import StaticProvider
from tests.cluster.s3 import S3Server

from nativealign_workloads.store.s3 import S3Store


def store_at(server: S3Server, prefix: str = "", retries: int = 1) -> S3Store:
    """The store under `prefix` of the server's bucket, with the server's own keys."""
    keys = StaticProvider(server.access_key, server.secret_key)
    return S3Store(server.endpoint, server.bucket, prefix, credentials=keys, region=server.region, retries=retries)
