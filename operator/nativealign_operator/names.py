"""`python -m nativealign_operator.names FILE [NAMESPACE …]`: the digests that all jobs name, for gc. Runs beside no operator.

Needs no more than to list the three kinds, everywhere or in the namespaces. Fails where it cannot know all of them.
"""

import asyncio
import sys
from pathlib import Path

from kubernetes.aio.client.api_client import ApiClient
from pydantic import ValidationError

from nativealign_api.in_use import UNKNOWN, names_file
from nativealign_api.kinds import KINDS, JobObject
from nativealign_api.vocabulary import API_VERSION, ExitCode
from nativealign_operator.cluster import ApiError, Cluster, configuration
from nativealign_operator.paths import path_of


class Unreadable(Exception):
    """A job that this version does not understand: what it names is not known."""


async def all_jobs(cluster: Cluster, namespaces: list[str]) -> list[JobObject]:
    """Every object of the three kinds; empty list for all namespaces. Raises Unreadable, ApiError."""
    found = []
    for kind, entry in KINDS.items():
        for namespace in namespaces or [""]:
            async for page in cluster.pages(path_of(kind, namespace)):
                for item in page["items"]:
                    try:
                        found.append(entry.model.model_validate({"apiVersion": API_VERSION, "kind": kind} | item))
                    except ValidationError as error:
                        name = f"{kind}/{item['metadata']['namespace']}/{item['metadata']['name']}"
                        raise Unreadable(f"{name} does not fit this version: {error.errors()[0]['msg']}") from None
    return found


async def write_names(path: Path, namespaces: list[str]) -> int:
    async with ApiClient(await configuration()) as client:
        jobs = await all_jobs(Cluster(client), namespaces)
    path.write_text(names_file(jobs))
    print(f"{len(jobs)} jobs in {', '.join(namespaces) or 'all namespaces'}")
    return ExitCode.OK


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    if not arguments:
        print("error: usage: python -m nativealign_operator.names FILE [NAMESPACE …]", file=sys.stderr)
        return ExitCode.USAGE
    try:
        return asyncio.run(write_names(Path(arguments[0]), arguments[1:]))
    except (Unreadable, ApiError) as error:
        print(f"error: {error}; {UNKNOWN}", file=sys.stderr)
        return ExitCode.CONFIG


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
