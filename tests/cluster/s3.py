"""A real S3 server (versitygw over a folder) for the time of a test."""

import os
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from minio import Minio

from .build import binary
from .servers import Server

START_SECONDS = 30
STARTS = 3


@dataclass(frozen=True)
class S3Server:
    """Where the server listens and what it lets in; `bucket` exists and is empty."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    bucket: str = "test"
    region: str = "us-east-1"
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    """For tests in which it stops."""


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Start versitygw over `folder` (made if missing) on a free loopback port; stop it at the end."""
    access_key, secret_key = secrets.token_hex(8), secrets.token_hex(16)
    started, address = _start(folder, access_key, secret_key)
    try:
        server = S3Server(f"http://{address}", access_key, secret_key, process=started.process)
        Minio(address, access_key, secret_key, secure=False, region=server.region).make_bucket(server.bucket)
        yield server
    finally:
        started.stop()


def _start(folder: Path, access_key: str, secret_key: str) -> tuple[Server, str]:
    """A running server and its address; another process may take the free port first, hence several tries."""
    data, sidecar = folder / "data", folder / "sidecar"
    data.mkdir(parents=True)
    sidecar.mkdir()
    # The keys go by environment: command lines are visible to everybody. Metadata in a sidecar folder works on
    # file systems without extended attributes, too.
    env = {**os.environ, "ROOT_ACCESS_KEY_ID": access_key, "ROOT_SECRET_ACCESS_KEY": secret_key}
    for _ in range(STARTS):
        address = f"127.0.0.1:{free_port()}"
        command = [binary("versitygw"), "--quiet", "--port", address, "posix", "--sidecar", sidecar, data]
        server = Server("versitygw", command, folder, env)
        server.start()
        if _answers(server, address):
            return server, address
        server.stop()
    raise RuntimeError(f"versitygw does not start: {server.log.read_text()}")


def _answers(server: Server, address: str) -> bool:
    """Wait until the server answers (True) or has ended (False)."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.process and server.process.poll() is None:
        try:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{address}/", timeout=5)
            return True
        except urllib.error.HTTPError:  # 403 to us, without a signature
            return True
        except OSError:
            time.sleep(0.05)
    return False


def free_port() -> int:
    """A loopback port that nobody listens on; another process may take it first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
