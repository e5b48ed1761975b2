"""What the installation decides, from the environment that the chart sets. Read once at the start."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nativealign_api.common import Store
from nativealign_operator.render import RenderSettings

PREFIX = "NATIVEALIGN_OPERATOR_"


class BadSettings(Exception):
    """A variable is missing or wrong; the message names each."""


class OperatorSettings(BaseModel):
    """Variables are NATIVEALIGN_OPERATOR_ and the field's name in capitals."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: Annotated[str, Field(min_length=1)]
    """Workload image of jobs that name none."""
    store: Store | None = None
    """Store of jobs that name none, as JSON."""
    token_audience: str = "sts.amazonaws.com"
    """Audience of tokens for workload identity."""
    short_queue: str | None = None
    """Kueue LocalQueue for the look-ups and commits of queued jobs; without one they are not queued."""
    namespace: Annotated[str, Field(min_length=1)]
    """The operator's own namespace, where its Lease lies."""
    watch_namespaces: tuple[str, ...] = ()
    """Namespaces to work in, comma-separated; empty for all."""
    excluded_namespaces: tuple[str, ...] = ()
    """Namespaces to leave to another operator, comma-separated; where all others are watched."""
    identity: Annotated[str, Field(min_length=1)]
    """This replica's name, the same after a restart of its container."""
    lease_name: str = "nativealign-operator"
    workers: Annotated[int, Field(ge=1, le=64)] = 8
    """Jobs that are reconciled at the same time."""
    resync_seconds: Annotated[float, Field(ge=5, le=3600)] = 300
    """Between two complete lists of everything."""
    progress_seconds: Annotated[float, Field(ge=1, le=3600)] = 30
    """Between two questions to running pods; each answer changes a job's status at most once."""
    lease_seconds: Annotated[float, Field(ge=3, le=300)] = 15
    """After which a silent leader is replaced."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Of /healthz, /readyz and /metrics."""

    @property
    def rendering(self) -> RenderSettings:
        return RenderSettings(self.image, self.store, self.token_audience, self.short_queue)


def from_environment(environment: Mapping[str, str]) -> OperatorSettings:
    """Raises BadSettings."""
    given: dict[str, Any] = {}
    for name in OperatorSettings.model_fields:
        value = environment.get(PREFIX + name.upper())
        if value:
            given[name] = value
    try:
        if "store" in given:
            given["store"] = json.loads(given["store"])
        for name in ("watch_namespaces", "excluded_namespaces"):
            if name in given:
                given[name] = tuple(filter(None, given[name].split(",")))
        return OperatorSettings.model_validate(given)
    except ValidationError as error:
        problems = [f"{PREFIX}{str(item['loc'][0]).upper()}: {item['msg']}" for item in error.errors()]
        raise BadSettings("; ".join(problems)) from None
    except ValueError as error:
        raise BadSettings(f"{PREFIX}STORE is not JSON: {error}") from None
