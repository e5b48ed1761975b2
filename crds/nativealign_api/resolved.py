"""ResolvedJob: everything that the pods of one phase need to know, as one JSON document.

The operator puts it into an immutable ConfigMap, the local runner into a file, the workloads parse it with this class. It holds no
list of files: the shard plan lies in the store.
"""

import hashlib
import json
import re
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.alias_generators import to_camel

from nativealign_api.common import Resources, Store
from nativealign_api.kinds import KINDS, JobObject
from nativealign_api.plan import Phase, Step, run_prefix
from nativealign_api.status import Pinned
from nativealign_api.steps import STEPS, Form

T = TypeVar("T")
NAME_LIMIT = 52
"""Longest name of a Job: its pods' host names get an index and a suffix (KEP-3850)."""


class ResolvedSource(BaseModel):
    """One source of a mix; see plan.Source."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    name: str
    digest: str
    input: str
    view: str | None = None
    shards: int


class ResolvedJob(BaseModel):
    """One phase of one attempt of one step."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    api_version: Literal["nativealign.dev/v1alpha1"] = "nativealign.dev/v1alpha1"
    kind: str
    namespace: str
    name: str
    uid: str
    attempt: int
    """A label for logs; nothing depends on it."""
    step: str
    step_version: int
    phase: str
    form: Form
    digest: str | None = None
    """Digest of the step; None for inspect, which finds its own."""
    indexes: int
    """Completions of the Job."""
    parallelism: int = 1
    """Pods at the same time; rates of endpoints are shared among them."""
    resources: Resources
    """What each pod of this phase has."""
    inputs: dict[str, str]
    """Store prefix of each input, by name."""
    parameters: dict[str, Any]
    """The spec fields that the step reads, by path; for inspect the whole spec under the empty path."""
    sources: list[ResolvedSource] = []
    """Sources of a mix, for tokenize."""
    pinned: Pinned
    """What was pinned before this phase; inspect keeps it and adds what is missing."""
    store: Store | None = None
    """The store that the spec names; inputs may lie in it also where `store_folder` is given."""
    store_folder: str | None = None
    """Folder that serves as the store, on a laptop."""
    base_directory: str | None = None
    """Folder that relative URIs start from, on a laptop."""

    @property
    def run(self) -> str:
        """Folder of the run's logs and reports in the store."""
        return run_prefix(self.namespace, self.name, self.uid)

    def read(self, path: str, model: type[T]) -> T | None:
        """A spec field that this step is declared to read, validated as `model`; None where the spec leaves it out.

        Raises KeyError for a field that steps.py does not list for this step: it would be missing from the digest.
        """
        definition = next(step for step in STEPS[self.kind] if step.name == self.step)
        if path not in definition.reads and path:
            raise KeyError(f"step {self.step} does not read spec.{path}; add it to its `reads` in steps.py")
        value = self.parameters.get(path)
        return None if value is None else TypeAdapter(model).validate_python(value)

    def require(self, path: str, model: type[T]) -> T:
        """As `read`, for a field that always has a value."""
        value = self.read(path, model)
        if value is None:
            raise KeyError(f"spec.{path} has no value")
        return value

    def dump(self) -> bytes:
        """JSON with sorted keys; equal jobs are equal bytes."""
        value = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1).encode()


def resolve(
    job: JobObject,
    step: Step,
    phase: Phase,
    *,
    attempt: int = 0,
    store_folder: str | None = None,
    base_directory: str | None = None,
) -> ResolvedJob:
    """What the pods of one phase are told."""
    return ResolvedJob(
        kind=job.kind,
        namespace=job.metadata.namespace,
        name=job.metadata.name,
        uid=job.metadata.uid or "",
        attempt=attempt,
        step=step.name,
        step_version=step.version,
        phase=phase.name,
        form=phase.form,
        digest=step.digest,
        indexes=phase.indexes,
        parallelism=phase.parallelism,
        resources=phase.resources,
        inputs=step.inputs,
        parameters=step.parameters,
        sources=[ResolvedSource(**vars(source)) for source in step.sources],
        pinned=job.status.pinned,
        store=job.spec.store,
        store_folder=store_folder,
        base_directory=base_directory,
    )


def child_name(kind: str, job: str, step: str, phase: str, attempt: int) -> str:
    """`aj-web-rewrite-commit-0`: name of a phase's Job, at most 52 characters.

    A longer name is cut and ends in 8 hex digits of its hash, so that two jobs never share one.
    """
    name = f"{KINDS[kind].short}-{job}-{step}-{phase}-{attempt}"
    if len(name) <= NAME_LIMIT:
        return name
    tail = hashlib.sha256(name.encode()).hexdigest()[:8]
    return re.sub(r"-+$", "", name[: NAME_LIMIT - 9]) + "-" + tail
