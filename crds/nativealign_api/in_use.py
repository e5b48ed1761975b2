"""Which digests of a store a job stands on, has made or may make: what gc must leave alone. Pure."""

import json
import re
from collections.abc import Iterable

from nativealign_api.identity import DIGEST_LENGTH
from nativealign_api.kinds import JobObject
from nativealign_api.plan import plan

UNKNOWN = "nothing is removed without knowing every job"
"""Why gc ends where a job cannot be read."""
DIGEST = re.compile(rf"(?<![0-9a-f])[0-9a-f]{{{DIGEST_LENGTH}}}(?![0-9a-f])")


def digests_of(job: JobObject) -> set[str]:
    """All that its status names, wherever, and all of its plan: steps, their inputs, sources of a mix."""
    steps = plan(job.kind, job.spec, job.status.pinned).steps
    prefixes = [prefix for step in steps for prefix in (step.prefix, *step.inputs.values())]
    sources = [source.digest for step in steps for source in step.sources]
    return set(DIGEST.findall(json.dumps([job.status.dump(), prefixes, sources])))


def names_file(jobs: Iterable[JobObject]) -> str:
    """What gc reads, as JSON."""
    return json.dumps({"digests": sorted({digest for job in jobs for digest in digests_of(job)})})
