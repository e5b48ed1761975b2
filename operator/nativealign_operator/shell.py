"""kopf as a thin shell: it keeps the watches alive, and every event puts an object into the cache and a job into the queue.

No handlers that keep state, no finalizers, no annotations on users' objects, no posting, no scanning: see the design in
docs/architecture.md. kopf ends on what it cannot handle; main.py starts it again.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import kopf
from kopf._cogs.structs.references import Insights  # no public name tells what is watched

from nativealign_api.kinds import KINDS
from nativealign_api.vocabulary import GROUP, LABEL_JOB, LABEL_KIND, MANAGED_BY, VERSION
from nativealign_operator.cache import Cache, Json, Key, key_of

CHILDREN = {"Job": ("batch", "v1", "jobs"), "Pod": ("", "v1", "pods")}
CHILD_SELECTOR = f"app.kubernetes.io/managed-by={MANAGED_BY}"

Notice = Callable[[Key], None]
"""Called with each job that something has happened to."""


def job_of(kind: str, value: Json) -> Key | None:
    """The job that an object of a watched kind belongs to."""
    if kind in KINDS:
        return key_of(kind, value)
    labels = value["metadata"].get("labels") or {}
    if labels.get(LABEL_KIND) not in KINDS or LABEL_JOB not in labels:
        return None
    return Key(labels[LABEL_KIND], value["metadata"].get("namespace", ""), labels[LABEL_JOB])


def registry(cache: Cache, notice: Notice) -> kopf.OperatorRegistry:
    """One event handler for each watched kind."""
    found = kopf.OperatorRegistry()
    resources = {kind: (GROUP, VERSION, entry.plural) for kind, entry in KINDS.items()} | CHILDREN
    for kind, (group, version, plural) in resources.items():
        kopf.on.event(group=group, version=version, plural=plural, id=kind, registry=found)(_handler(kind, cache, notice))
    kopf.on.login(registry=found)(_login)
    return found


def _handler(kind: str, cache: Cache, notice: Notice) -> Callable[..., Any]:
    async def on_event(event: Any, **_: Any) -> None:
        value: Json = dict(event["object"])
        if event["type"] == "DELETED":
            cache.remove(kind, value)
        else:
            cache.put(kind, value)
        job = job_of(kind, value)
        if job:
            notice(job)

    return on_event


def _login(**arguments: Any) -> kopf.ConnectionInfo | None:
    return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)


def settings() -> kopf.OperatorSettings:
    """kopf with everything off that is not a watch."""
    found = kopf.OperatorSettings()
    found.posting.enabled = False
    found.scanning.disabled = True
    found.peering.standalone = True
    found.networking.request_timeout = 30
    found.networking.connect_timeout = 10
    found.networking.error_backoffs = (0.5, 1, 2)
    found.watching.server_timeout = 300
    found.watching.connect_timeout = 10
    found.watching.chunk_size = 500
    found.process.ultimate_exiting_timeout = None  # else it kills the process ten minutes after watches that were started again
    found.queueing.exit_timeout = 1
    # a worker holds its object's last event, parsed, until it ends: in a burst, five seconds of that (the default) are many objects
    found.queueing.idle_timeout = 0.5
    for group, version, plural in CHILDREN.values():
        found.watching.label_selectors[group, version, plural] = CHILD_SELECTOR
    return found


async def watch(
    cache: Cache, notice: Notice, namespaces: Sequence[str], identity: str, stop: asyncio.Event, take_signals: Callable[[], None]
) -> None:
    """Runs until `stop` is set; no namespaces are all. Raises whatever ends kopf before that.

    kopf takes the process' signals for itself when it starts; `take_signals` takes them back.
    """
    where: dict[str, Any] = {"namespaces": list(namespaces)} if namespaces else {"clusterwide": True}
    others = asyncio.all_tasks()
    insights = Insights()
    tasks = await kopf.spawn_tasks(
        registry=registry(cache, notice),
        settings=settings(),
        stop_flag=stop,
        # kopf would ask for the user's name, and a container's user need not have one
        identity=identity,  # type: ignore[arg-type]  # a NewType of str that kopf does not publish
        insights=insights,
        **where,
    )
    take_signals()
    await kopf.run_tasks([*tasks, asyncio.create_task(_check_kinds(insights))], ignored=others)
    if not stop.is_set():
        raise RuntimeError("the watches have ended")


async def _check_kinds(insights: Insights) -> None:
    """Raises where kopf lacks a kind: it looks for them once, and a CRD may be listed seconds before it is discovered."""
    await insights.ready_resources.wait()
    known = {resource.plural for resource in insights.watched_resources}
    wanted = {entry.plural for entry in KINDS.values()} | {plural for *_, plural in CHILDREN.values()}
    if missing := wanted - known:
        raise RuntimeError(f"not discovered yet: {', '.join(sorted(missing))}")
    await asyncio.Event().wait()
