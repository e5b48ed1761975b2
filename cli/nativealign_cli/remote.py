"""Jobs on a cluster, as the user's own kubeconfig lets them be seen: `nativealign status|logs|wait|report|doctor -n NAMESPACE`.

Asks for no more than get and list of the three kinds, Jobs, pods, events, and pods/log.
"""

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_kube_config
from rich.console import Console

from nativealign_api.kinds import KINDS
from nativealign_api.status import JobStatus
from nativealign_api.vocabulary import API_VERSION, LABEL_JOB, LABEL_KIND, LABEL_STEP, ExitCode
from nativealign_cli.inspecting import jobs_table, print_job, print_records, tell_if_none
from nativealign_cli.names import fits
from nativealign_cli.pod_logs import PodLog
from nativealign_cli.workloads import ask_module, run_download
from nativealign_operator.cluster import ApiError, Cluster, Json
from nativealign_operator.conditions import finished
from nativealign_operator.paths import path_of
from nativealign_operator.seen import told_at

FOLLOW_SECONDS, WAIT_SECONDS = 1.0, 2.0


class Refused(Exception):
    """The cluster cannot be asked, or says no; the message is for people."""


class Remote:
    """One namespace of a cluster."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace

    async def jobs(self, kinds: Iterable[str] = KINDS) -> list[Json]:
        """Every object of these kinds, along the chain and by name."""
        found = []
        for kind in kinds:
            async for page in self.cluster.pages(path_of(kind, self.namespace)):
                found += [{"apiVersion": API_VERSION, "kind": kind} | item for item in page["items"]]
        return found

    async def find(self, name: str) -> Json:
        """The one object that a name means; looks at one kind alone where the name says which. Raises Refused where it means none
        or several.
        """
        kind, _, bare = name.rpartition("/")
        every = await self.jobs(known for known in KINDS if fits(f"{known}/{bare}", kind, bare))
        found = [item for item in every if fits(reference(item), kind, bare)]
        if len(found) == 1:
            return found[0]
        known = ", ".join(reference(item) for item in found or every) or "there is none"
        raise Refused(f"{name} is {'ambiguous' if found else 'unknown'} in namespace {self.namespace}: {known}")

    async def children(self, job: Json, kind: str, step: str | None = None) -> list[Json]:
        """The Jobs or pods of a job, oldest first."""
        labels = {LABEL_KIND: job["kind"], LABEL_JOB: job["metadata"]["name"]} | ({LABEL_STEP: step} if step else {})
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        found: list[Json] = []
        async for page in self.cluster.pages(path_of(kind, self.namespace), selector):
            found += page["items"]
        return sorted(found, key=lambda item: (item["metadata"]["creationTimestamp"], item["metadata"]["name"]))

    async def events(self, uids: set[str]) -> list[Json]:
        """What was told of these objects, oldest first."""
        found: list[Json] = []
        async for page in self.cluster.pages(path_of("Event", self.namespace)):
            found += [event for event in page["items"] if event["involvedObject"].get("uid") in uids]
        return sorted(found, key=told_at)


@asynccontextmanager
async def connected(context: str | None, namespace: str) -> AsyncIterator[Remote]:
    """The cluster of the user's kubeconfig."""
    configuration = Configuration()
    try:
        kubeconfigs = _kubeconfigs()
        await load_kube_config(  # type: ignore[no-untyped-call]
            os.environ.get("KUBECONFIG") or None,
            context=context or _current_context(kubeconfigs),
            client_configuration=configuration,
        )
        client = ApiClient(configuration)
    # the library lets through whatever a file with a mistake makes it stumble over
    except (ConfigException, OSError, yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Refused(f"no cluster: {error}; set KUBECONFIG, or leave -n out for jobs of this machine") from None
    async with client:
        yield Remote(Cluster(client), namespace)


def _kubeconfigs() -> list[Json]:
    """The user's kubeconfig, or the several that KUBECONFIG names, in their order. Raises ConfigException where there is no file,
    or where one holds something else.
    """
    named = [Path(path) for path in os.environ.get("KUBECONFIG", "").split(os.pathsep) if path]
    paths = named or [Path.home() / ".kube" / "config"]
    found = [_read_kubeconfig(path) for path in paths if path.is_file()]
    if not found:
        raise ConfigException(f"there is no file {', '.join(map(str, paths))}")
    return found


def _read_kubeconfig(path: Path) -> Json:
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigException(f"{path}:{line}: not YAML: {error.problem}") from None
    if not isinstance(content, dict):
        raise ConfigException(f"{path} is no kubeconfig")
    return content


def _current_context(kubeconfigs: list[Json]) -> str | None:
    """Of several files the first that names one counts, as for kubectl; the library would take the last."""
    return next(filter(None, (kubeconfig.get("current-context") for kubeconfig in kubeconfigs)), None)


def ask(work: Coroutine[Any, Any, int], err: Console) -> int:
    """Runs a command; what the cluster refuses is a line, not a traceback."""
    try:
        return asyncio.run(work)
    except Refused as error:
        code, message = ExitCode.NO_INPUT, str(error)
    except ApiError as error:
        refused = error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
        code = ExitCode.NO_PERMISSION if refused else ExitCode.UNAVAILABLE if _is_passing(error) else ExitCode.CONFIG
        message = f"the cluster says: {error.message or error.reason}"
    err.print(message, highlight=False, soft_wrap=True, markup=False)
    return code


async def show_status(context: str | None, namespace: str, name: str | None, output: str, out: Console, err: Console) -> int:
    """All jobs of the namespace, or one with its steps."""
    async with connected(context, namespace) as remote:
        if name is None:
            jobs = await remote.jobs()
            print_records(out, output, jobs, jobs_table([(reference(job), status_of(job), "") for job in jobs]))
            tell_if_none(jobs, f"namespace {namespace}", err)
            return ExitCode.OK
        job = await remote.find(name)
    print_job(out, output, job, reference(job), status_of(job))
    return ExitCode.OK


async def wait(context: str | None, namespace: str, name: str, seconds: float | None, out: Console, err: Console) -> int:
    """Returns once the job has ended: 0 complete, 1 a gate did not pass, 70 failed; 75 where the time is over before."""
    clock = asyncio.get_running_loop().time
    deadline = float("inf") if seconds is None else clock() + seconds

    async def look(remote: Remote) -> int | None:
        job = await remote.find(name)
        status = status_of(job)
        if finished(status):
            out.print(f"{reference(job)}: {told(status)}", highlight=False, soft_wrap=True, markup=False)
            return {"Complete": 0, "GateFailed": 1}.get(status.state, ExitCode.SOFTWARE)
        if clock() < deadline:
            return None
        out.print(f"{reference(job)} is still {status.state}", highlight=False, soft_wrap=True, markup=False)
        return ExitCode.TEMPORARY

    return await poll(context, namespace, look, WAIT_SECONDS, deadline, err)


async def show_logs(
    context: str | None, namespace: str, name: str, step: str | None, follow: bool, out: Console, err: Console
) -> int:
    """What the pods of a job said, each line under its pod; with `follow` until the job ends."""
    logs: dict[str, PodLog] = {}

    async def look(remote: Remote) -> int | None:
        job = await remote.find(name)
        ended = finished(status_of(job))
        _check_step(job, step)
        for pod in await remote.children(job, "Pod", step):
            log = logs.setdefault(pod["metadata"]["uid"], PodLog())
            for line in await log.read(remote.cluster, remote.namespace, pod):
                out.file.write(f"[{pod['metadata']['name']}] {line}\n")
        out.file.flush()
        return None if follow and not ended else ExitCode.OK

    return await poll(context, namespace, look, FOLLOW_SECONDS, float("inf"), err)


async def poll(
    context: str | None,
    namespace: str,
    look: Callable[[Remote], Coroutine[Any, Any, int | None]],
    pause: float,
    deadline: float,
    err: Console,
) -> int:
    """Looks until there is an exit code. A cluster that has answered once may fail until the deadline, by the loop's clock, and a
    token may expire: the kubeconfig is loaded anew, with what its plugin gives. Raises ApiError otherwise.
    """
    answered, said = False, ""
    while True:
        try:
            async with connected(context, namespace) as remote:
                while True:
                    code = await look(remote)
                    answered = True
                    if code is not None:
                        return code
                    await asyncio.sleep(pause)
        except ApiError as error:
            expired = error.code == HTTPStatus.UNAUTHORIZED
            if not answered or not (expired or _is_passing(error)) or asyncio.get_running_loop().time() >= deadline:
                raise
            answered = not expired
            if not expired and error.message != said:
                said = error.message
                err.print(f"the cluster says: {said}; trying again", highlight=False, soft_wrap=True, markup=False)
        await asyncio.sleep(pause)


def _is_passing(error: ApiError) -> bool:
    """No answer, too many requests, or a server's own failure."""
    return error.code in (0, HTTPStatus.TOO_MANY_REQUESTS) or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR


def _check_step(job: Json, step: str | None) -> None:
    known = [entry.name for entry in status_of(job).steps]
    if step and step not in known:
        raise Refused(f"{reference(job)} has no step {step}; it has {', '.join(known) or 'none yet'}")


async def make_report(context: str | None, namespace: str, name: str, store: str | None, out: Console, err: Console) -> int:
    """Makes the report here, from the object's status and the manifests in the store, which the user must be able to read."""
    async with connected(context, namespace) as remote:
        job = await remote.find(name)
    output = Path(f"{job['metadata']['name']}-{job['kind'].lower()}.html")
    with recorded(job) as record:
        code, _ = ask_module("report", store, "--output", output, record, err=err)
    if code == ExitCode.OK:
        out.print(str(output), highlight=False, soft_wrap=True, markup=False)
    return code


async def explain(
    context: str | None, namespace: str, name: str, document: str, store: str | None, out: Console, err: Console
) -> int:
    """What happened to one document of an AlignJob, from the store, which the user must be able to read."""
    async with connected(context, namespace) as remote:
        job = await remote.find(name)
    with recorded(job) as record:
        code, told = ask_module("explain", store, record, document, err=err)
    out.file.write(told)
    return code


async def download(
    context: str | None, namespace: str, name: str, folder: Path, worker: bool, store: str | None, err: Console
) -> int:
    """The result of a job, or its worker, as a plain folder, from the store, which the user must be able to read."""
    async with connected(context, namespace) as remote:
        job = await remote.find(name)
    with recorded(job) as record:
        return run_download(store, record, folder, worker, err)


@contextmanager
def recorded(job: Json) -> Iterator[Path]:
    """The object as a file such as local runs leave."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "status.json"
        kept = {"kind": job["kind"], "metadata": job["metadata"], "spec": job["spec"], "status": job.get("status", {})}
        record.write_text(json.dumps(kept))
        yield record


def reference(job: Json) -> str:
    """kind/name."""
    return f"{job['kind']}/{job['metadata']['name']}"


def status_of(job: Json) -> JobStatus:
    return JobStatus.model_validate(job.get("status") or {})


def told(status: JobStatus) -> str:
    """State, reason and message in a line."""
    ready = next((condition for condition in status.conditions if condition.type == "Ready"), None)
    return f"{status.state}: {ready.reason}: {ready.message}" if ready else status.state
