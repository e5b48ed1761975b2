"""What the operator's measurements share: the operator as it runs in its image, objects in numbers, and the memory of a process."""

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tests.cluster.control_plane import ControlPlane
from tests.cluster.s3 import free_port
from tests.cluster.servers import Server, answers, running, wait_for
from tests.control_plane.campaign import NOWHERE
from tests.control_plane.site import operator_environment

Json = dict[str, Any]
T = TypeVar("T")
THREADS = 8
until = partial(wait_for, seconds=900.0, pause=0.2)
"""Looks for a quarter of an hour, five times a second."""
AS_IN_ITS_IMAGE = """
import sys
sys.modules["chardet"] = None
from nativealign_operator.main import main
sys.exit(main())
"""
"""`requests` imports chardet (20 MiB) where it finds it; a development environment has it, the operator's requirements have not."""


@contextmanager
def operator_of_image(plane: ControlPlane, folder: Path, port: int | None = None) -> Iterator[Server]:
    """Ready; its metrics are at the port, by default a free one."""
    folder.mkdir(exist_ok=True)
    port = port or free_port()
    environment = operator_environment(plane, NOWHERE, folder, port=str(port))
    with running(Server("operator", [sys.executable, "-c", AS_IN_ITS_IMAGE], folder, environment)) as server:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/readyz"), "operator", server.log)
        yield server


def with_connections(plane: ControlPlane, items: Sequence[T], do: Callable[[ControlPlane, T], None]) -> None:
    """`do` for each item, in threads with a connection each."""

    def some(start: int) -> None:
        api = plane.anew()
        for item in items[start::THREADS]:
            do(api, item)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(some, range(THREADS)))


def create_all(plane: ControlPlane, path: str, manifests: Sequence[Json]) -> None:
    """As fast as the apiserver takes them."""

    def create(api: ControlPlane, manifest: Json) -> None:
        code, answer = api.request("POST", path, manifest)
        assert code == 201, answer

    with_connections(plane, manifests, create)


def number_of(plane: ControlPlane, path: str) -> int:
    """Number of objects, by the count that a list of one gives."""
    found: Any = plane.request("GET", f"{path}?limit=1")[1]
    return len(found["items"]) + int(found["metadata"].get("remainingItemCount") or 0)


def are_there(plane: ControlPlane, path: str, count: int) -> bool:
    return number_of(plane, path) >= count


def all_run(plane: ControlPlane, pods: str, count: int) -> bool:
    """Whether so many pods are there and each runs."""
    others = plane.request("GET", f"{pods}?limit=1&fieldSelector=status.phase!%3DRunning")[1]["items"]
    return not others and are_there(plane, pods, count)


def resident(pid: int, which: str = "VmHWM") -> float:
    """Resident set in MiB: the largest so far (VmHWM), or the present one (VmRSS)."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(which)]
    return int(line.split()[1]) / 1024
