"""The fault campaign: a job of each kind, and each fault at every write and every event; what is there in the end must be the same.

`python -m tests.control_plane.campaign [KIND …]` runs every point and writes docs/reliability.md; one that was stopped goes on
where it was. The tests run a seeded part. Pods are played: each ends at once with what its phase would say, so that a run takes
seconds; the real commands run in the other tests.
"""

import dataclasses
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import ControlPlane, control_plane
from tests.cluster.s3 import S3Server
from tests.control_plane.kubelet import AWAY, NODE, STRATEGIC, bind, living, path_of_pod, remove, rest
from tests.control_plane.proxy import FAULTS, Fault, Place, Proxy, proxy
from tests.control_plane.site import WAIT_SECONDS, poll, start_operator
from tests.world import World, world

from nativealign_api.kinds import KINDS
from nativealign_api.messages import pack
from nativealign_api.steps import STEPS
from nativealign_api.vocabulary import API_VERSION, LABEL_KIND, LABEL_PHASE, LABEL_STEP
from nativealign_operator.paths import path_of

Json = dict[str, Any]
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
END = "<!-- end -->"
"""Of the page's table."""
JOURNAL = ROOT / "build" / "fault-campaign.jsonl"
"""What was tried, and at which commit."""
AT_ONCE = 16
"""Runs: on two cores more are not faster."""
APART = {"write": 16, "list": 16, "event": 45}
"""From one fault of a run to the next: four children, when what the first did is long over."""
RUNS_OF_A_PLANE = 400
"""A control plane keeps all that runs left; after thousands it is slow and takes gigabytes."""
LOOK_SECONDS = 2.0
"""Between two looks at a run, rare since what all do while they wait takes time from each; so are resyncs and renewed Leases."""
NOWHERE = S3Server("http://127.0.0.1:9", "none", "none")
"""No command runs."""
STORE = {"bucket": "alignment", "endpoint": NOWHERE.endpoint, "credentialsSecret": {"name": "s3"}}
JOBS: dict[str, Json] = {
    "AlignJob": {
        "corpora": [{"name": "web", "uri": "s3://corpora/web/"}],
        "expert": {"rules": {}},
        "worker": {"base": {"uri": "s3://models/worker"}},
    },
    "PretrainJob": {
        "base": {"uri": "s3://models/base"},
        "mix": [{"corpus": {"name": "web", "uri": "s3://corpora/web/"}}],
        "tokens": "1M",
    },
    "EvalJob": {"model": {"uri": "s3://models/base"}, "data": {"uri": "s3://benchmarks"}, "benchmarks": [{"name": "exams-ar"}]},
}
UPSTREAM: dict[str, tuple[str, Json]] = {
    "PretrainJob": ("AlignJob", {"mix": [{"alignJob": "web"}], "trainResources": {"nodes": 2}}),
    "EvalJob": ("PretrainJob", {"model": {"pretrainJob": "web"}}),
}
"""By kind what it refers to, a complete job, and the fields that do; as in the quickstart, but for a gang of two nodes."""
HELD = {"EvalJob": ("report", "ej-web-report-report-0")}
"""The step, and its child, in which a job is suspended and goes on."""
WRITES: dict[str, list[str]] = {
    "PATCH status": list(KINDS),
    "POST configmaps": list(KINDS),
    "POST jobs": list(KINDS),
    "POST events": list(KINDS),
    "POST services": ["PretrainJob"],
    "DELETE jobs": ["EvalJob"],
    "DELETE configmaps": ["EvalJob"],
}
"""The kinds of the operator's writes, and the kinds of jobs that have them here."""
MODELS = ("worker.base", "base", "model", "baseline", "seed.perplexityModel", "assess.perplexityModel", "assess.toxicityModel")
INPUTS = ("corpora", "conduct", "data", "mix/web", *MODELS)
"""Inputs that a played inspect pins."""
UID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MERGE = "application/merge-patch+json"
TIMES = ("lastTransitionTime", "startTime", "completionTime", "seconds", "stepSeconds", "acceleratorSeconds")


@dataclass(frozen=True)
class Run:
    """What one run left, and what it took."""

    outcome: Json
    writes: list[str]
    places: dict[str, list[Place]]
    """Of the writes and the events."""
    struck: dict[Fault, str]
    """Where the faults struck that did."""
    twice: list[str]
    """Children that were created more than once."""


Faults = tuple[Fault, ...]
"""Of one run."""
Runs = Callable[[str, Faults], Run]
"""One job of a kind with faults, or undisturbed."""


@dataclass(frozen=True)
class Tried:
    """A fault, where it struck ("" where it did not come to that), and what differed from the undisturbed run."""

    kind: str
    fault: Fault
    struck: str
    differing: list[str]


class PlayedPods(threading.Thread):
    """Ends every pod at once, with what its phase says; those of steps that are held run until they are released."""

    def __init__(self, plane: ControlPlane) -> None:
        super().__init__(daemon=True)
        self._plane, self._stop_it = plane, threading.Event()
        self._words: World = world()
        self.held: set[str] = set()
        """Steps whose pods run on, everywhere or as namespace/step."""
        self.address = "127.0.0.1"
        """Of pods that run."""
        self.step_version = 1
        """Of every step, as inspect pins it."""
        self.committed: set[str] = set()
        """Steps that inspect finds committed."""
        self._uids: dict[tuple[str, str], set[str]] = {}
        """Of each Job that had a pod, by namespace and name."""
        self._lock = threading.Lock()

    def run(self) -> None:
        api = self._plane.anew()
        while not self._stop_it.is_set():
            began = time.monotonic()
            try:
                for pod in living(api) or []:
                    self._attend(api, pod)
            except AWAY:
                api.connection.close()
            rest(began)

    def stop(self) -> None:
        self._stop_it.set()
        self.join(10)

    def twice(self, namespace: str) -> list[str]:
        """Jobs that were there more than once, each time with a pod."""
        with self._lock:
            return [name for (where, name), uids in self._uids.items() if where == namespace and len(uids) > 1]

    def _attend(self, api: ControlPlane, pod: Json) -> None:
        metadata, phase = pod["metadata"], pod["status"]["phase"]
        (owner,) = metadata["ownerReferences"]
        with self._lock:
            self._uids.setdefault((metadata["namespace"], owner["name"]), set()).add(owner["uid"])
        if phase == "Pending":
            bind(api, pod)
        if "deletionTimestamp" in metadata:
            self._stopped(api, pod)
        elif not self._is_held(metadata):
            ended = {"exitCode": 0, "reason": "Completed", "message": pack(self._says(metadata["labels"]))}
            _write(api, pod, "Succeeded", {"terminated": ended})
        elif phase == "Pending":
            _write(api, pod, "Running", {"running": {}}, self.address)

    def _is_held(self, metadata: Json) -> bool:
        step = metadata["labels"][LABEL_STEP]
        return not self.held.isdisjoint((step, f"{metadata['namespace']}/{step}"))

    def _stopped(self, api: ControlPlane, pod: Json) -> None:
        """As SIGTERM ends a process that has no answer to it."""
        _write(api, pod, "Failed", {"terminated": {"exitCode": 143, "reason": "Error"}})
        remove(api, pod)

    def _says(self, labels: Json) -> Json:
        if labels[LABEL_STEP] == "inspect":
            pins = self._words.pins() | {
                "inputs": {name: f"{n + 2:032x}" for n, name in enumerate(INPUTS)},
                "shards": {"corpora": 2, "mix/web": 2},
                "stepVersions": {step.name: self.step_version for step in STEPS[labels[LABEL_KIND]]},
            }
            committed = {name: {"counts": {"out": 7}} for name in self.committed}
            return {"digest": f"{1:032x}", "pinned": pins, "committed": committed, "counts": {"files": 3}}
        return {"counts": {"out": 7}, "metrics": {"loss": 0.5}} if labels[LABEL_PHASE] == "commit" else {}


def _write(api: ControlPlane, pod: Json, phase: str, state: Json, address: str | None = None) -> None:
    facts = {"name": "workload", "image": "x", "imageID": "", "restartCount": 0, "ready": phase == "Running", "state": state}
    conditions = [{"type": "Ready", "status": str(phase == "Running")}]
    addresses = {"podIP": address, "podIPs": [{"ip": address}]} if address else {}
    body = {"status": {"phase": phase, "conditions": conditions, "containerStatuses": [facts], **addresses}}
    api.request("PATCH", f"{path_of_pod(pod)}/status", body, form=STRATEGIC)


def run_once(plane: ControlPlane, s3: S3Server, pods: PlayedPods, folder: Path, kind: str, faults: Faults = ()) -> Run:
    """One job of a kind in a namespace of its own, with an operator and a proxy of its own."""
    api = plane.anew()
    namespace = str(api.request("POST", "/api/v1/namespaces", {"metadata": {"generateName": "fault-"}})[1]["metadata"]["name"])
    upstream, references = UPSTREAM.get(kind, ("", {}))
    if upstream:
        create(api, upstream, namespace, JOBS[upstream])
        api.request("PATCH", f"{path_of(upstream, namespace, 'web')}/status", {"status": completed(upstream)}, form=MERGE)
    create(api, kind, namespace, JOBS[kind] | references)
    step, child = HELD.get(kind, ("", ""))
    pods.held.add(f"{namespace}/{step}")
    with proxy(plane, faults) as between, operating(api, s3, folder / namespace, namespace, between):
        if child:
            suspend_and_resume(api, kind, namespace, child)
        pods.held.discard(f"{namespace}/{step}")
        until_finished(api, kind, namespace)
        outcome = outcome_of(api, kind, namespace)
    # or every look at the living pods goes through those of all runs before
    api.request("DELETE", f"{path_of('Pod', namespace)}?gracePeriodSeconds=0")
    return Run(outcome, between.writes, between.places, between.struck, pods.twice(namespace))


def create(api: ControlPlane, kind: str, namespace: str, spec: Json) -> None:
    manifest = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": "web"}, "spec": spec | {"store": STORE}}
    code, answer = api.request("POST", path_of(kind, namespace), manifest)
    assert code == 201, answer


def completed(kind: str) -> Json:
    """The status of a job that has gone through all its steps."""
    found = world(kind, JOBS[kind])
    found.finish()
    return found.status.dump()


def suspend_and_resume(api: ControlPlane, kind: str, namespace: str, child: str) -> None:
    """While the pod of a child runs. Returns when that child is gone: who lets its pod end before may find it complete."""
    path = path_of(kind, namespace, "web")

    def runs() -> bool:
        code, found = api.request("GET", path_of("Job", namespace, child))
        return code == 200 and bool(found.get("status", {}).get("ready"))

    def is_suspended() -> bool:
        return bool(api.request("GET", path)[1]["status"].get("state") == "Suspended")

    def is_gone() -> bool:
        return api.request("GET", path_of("Job", namespace, child))[0] == 404

    poll(runs, f"{child} in {namespace}", WAIT_SECONDS, str, LOOK_SECONDS)
    api.request("PATCH", path, {"spec": {"suspend": True}}, form=MERGE)
    poll(is_suspended, f"suspension in {namespace}", WAIT_SECONDS, str, LOOK_SECONDS)
    api.request("PATCH", path, {"spec": {"suspend": False}}, form=MERGE)
    poll(is_gone, f"end of {child} in {namespace}", WAIT_SECONDS, str, LOOK_SECONDS)


@contextmanager
def operating(plane: ControlPlane, s3: S3Server, folder: Path, namespace: str, between: Proxy) -> Iterator[None]:
    """An operator behind the proxy, which may kill it; it comes back under its name, as a container does."""
    folder.mkdir(parents=True)
    config = json.loads(plane.kubeconfig.read_text())
    config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{between.port}"}
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    behind = ControlPlane(plane.connect, plane.connection, plane.token, kubeconfig)
    settings = {
        "watch_namespaces": namespace,
        "lease_name": namespace,
        "lease_seconds": "60",
        "resync_seconds": "30",
        "workers": "2",
    }
    current = [start_operator(behind, s3, folder, **settings)]
    one_at_a_time = threading.Lock()

    def kill() -> None:
        with one_at_a_time:
            if current:
                current.pop().kill()
                current.append(start_operator(behind, s3, folder, **settings))

    between.kill = kill
    try:
        yield
    finally:
        with one_at_a_time:  # a kill may be under way in a thread of the proxy
            current.pop().kill()


def until_finished(api: ControlPlane, kind: str, namespace: str, name: str = "web") -> None:
    def status() -> Json:
        return api.request("GET", path_of(kind, namespace, name))[1].get("status") or {}

    poll(
        lambda: status().get("completionTime"),
        f"end of {kind} in {namespace}",
        WAIT_SECONDS,
        lambda: json.dumps(status()),
        LOOK_SECONDS,
    )


def outcome_of(api: ControlPlane, kind: str, namespace: str) -> Json:
    """The object and its children, without what differs between any two runs."""
    job = api.request("GET", path_of(kind, namespace, "web"))[1]
    own = {item: _children(api, item, namespace, job["metadata"]["uid"]) for item in ("Job", "Service", "ConfigMap")}
    names = {item: sorted(one["metadata"]["name"] for one in own[item]) for item in ("Job", "Service")}
    # the name of a ConfigMap has a hash of what it tells
    told = sorted(text for one in own["ConfigMap"] for text in one["data"].values())
    found = {"status": _without_times(job["status"]) | {"cost": None}, "spec": job["spec"], "ConfigMap": told, **names}
    outcome: Json = json.loads(UID.sub("UID", json.dumps(found).replace(namespace, "NAMESPACE")))
    return outcome


def _children(api: ControlPlane, item: str, namespace: str, uid: str) -> list[Json]:
    every = api.request("GET", path_of(item, namespace))[1]["items"]
    return [one for one in every if uid in (owner["uid"] for owner in one["metadata"].get("ownerReferences", []))]


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_times(item) for name, item in value.items() if name not in TIMES}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def points(kind: str, base: Run) -> list[Fault]:
    """Every fault at every write and event of the undisturbed run."""
    at = base.places | {"list": base.places["write"]}
    return [Fault(on, what, place) for on, what in FAULTS for place in at[on]]


def chosen(kind: str, base: Run, seed: int) -> list[Fault]:
    """A part: the faults that the seed deals to this kind of job. The three kinds together have each fault at each kind of write,
    and each of events and lists. Each is at a point that the seed draws.

    Of the writes up to the last status, with which a run ends; of the events in the first half, since not every run has as many.
    """
    draw = random.Random(f"{kind}:{seed}")
    last = max(number for number, write in enumerate(base.writes, 1) if write.startswith("PATCH"))
    writes, events = base.places["write"][:last], base.places["event"]
    at = defaultdict[str, list[Place]](list, {"event": events[: len(events) // 2], "list": writes})
    for place, write in zip(writes, base.writes, strict=False):
        at[kind_of_write(write)].append(place)
    sorts = [(on, what, sort) for on, what in FAULTS for sort in (WRITES if on == "write" else [on])]
    return [Fault(on, what, draw.choice(at[sort])) for on, what, sort in sorts if dealt_to(what, sort, seed) == kind]


def kind_of_write(write: str) -> str:
    """Of `METHOD path`: the method and what is written, e.g. `POST jobs`."""
    method, _, path = write.partition(" ")
    parts = path.partition("?")[0].split("/namespaces/")[1].split("/")
    return f"{method} {parts[3] if len(parts) > 3 else parts[1]}"


def dealt_to(fault: str, sort: str, seed: int) -> str:
    """The kind of job to which the seed deals a fault at a kind of write, at an event or at a list."""
    return random.Random(f"{fault}:{sort}:{seed}").choice(WRITES.get(sort, list(KINDS)))


def differences(base: Run, found: Run) -> list[str]:
    """What is not as in the undisturbed run."""
    wrong = [f"{name} created more than once" for name in found.twice]
    return wrong + [
        f"{name}: {found.outcome[name]} instead of {base.outcome[name]}"
        for name in base.outcome
        if found.outcome[name] != base.outcome[name]
    ]


def attempt(run: Runs, kind: str, faults: Faults, base: Run) -> list[Tried]:
    """One run; one that does not end differs. Its faults are tried alone where it differs, and so is one that did not strike."""
    struck, differing = dict[Fault, str](), list[str]()
    try:
        found = run(kind, faults)
        struck, differing = found.struck, differences(base, found)
    except AssertionError as error:
        differing = [str(error)]
    if len(faults) == 1:
        return [Tried(kind, fault, struck.get(fault, ""), differing) for fault in faults]
    fine = {} if differing else struck
    alone = [tried for fault in faults if fault not in fine for tried in attempt(run, kind, (fault,), base)]
    return [Tried(kind, fault, where, []) for fault, where in fine.items()] + alone


def told(results: Iterable[Tried], count: int) -> Iterator[Tried]:
    """Prints how each of so many went, and how long the rest takes."""
    began = time.monotonic()
    for number, tried in enumerate(results, 1):
        left = (time.monotonic() - began) / number * (count - number)
        how = "; ".join(tried.differing) or "equal"
        print(f"{tried.kind} {number}/{count}, {left / 60:.0f} min left: {tried.fault} ({tried.struck}): {how}", flush=True)
        yield tried


@contextmanager
def stage(folder: Path) -> Iterator[tuple[ControlPlane, S3Server, PlayedPods]]:
    """A control plane with the CRDs and played pods. No store: no command runs."""
    with control_plane(folder / "plane", controllers=True) as plane:
        plane.install_crds()
        plane.request("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
        pods = PlayedPods(plane)
        pods.start()
        try:
            yield plane, NOWHERE, pods
        finally:
            pods.stop()


@contextmanager
def own_stage() -> Iterator[Runs]:
    """A stage of one's own, as what runs there."""
    with tempfile.TemporaryDirectory() as name, stage(Path(name)) as (plane, s3, pods):
        yield partial(run_once, plane, s3, pods, Path(name))


def undisturbed(kinds: list[str]) -> dict[str, Run]:
    """By kind, what every other run of it is compared with."""
    with own_stage() as run:
        return {kind: run(kind, ()) for kind in kinds}


def shared(points: list[tuple[str, Fault]]) -> list[tuple[str, Faults]]:
    """The runs, by kind of job: some of the same fault in each, far apart."""
    rows = defaultdict[tuple[str, str, str], list[Fault]](list)
    for kind, fault in points:
        rows[kind, fault.on, fault.what].append(fault)
    return [
        (kind, tuple(faults[first :: APART[on]]))
        for (kind, on, _), faults in rows.items()
        for first in range(min(APART[on], len(faults)))
    ]


@contextmanager
def at_once() -> Iterator[ThreadPoolExecutor]:
    """Threads for some runs at a time."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        try:
            yield threads
        finally:  # who is interrupted does not wait for all the others
            threads.shutdown(cancel_futures=True)


def try_all(runs: list[tuple[str, Faults]], bases: dict[str, Run]) -> Iterator[Tried]:
    """All runs, however many there are: the next stage opens while the last runs of one are under way."""
    under_way = deque[Future[list[Tried]]]()
    with ExitStack() as older, ExitStack() as newer, at_once() as threads:
        for start in range(0, len(runs), RUNS_OF_A_PLANE):
            while len(under_way) > 3 * AT_ONCE:
                yield from under_way.popleft().result()
            older.close()
            older.push(newer.pop_all())
            run = newer.enter_context(own_stage())
            some = runs[start : start + RUNS_OF_A_PLANE]
            under_way.extend(threads.submit(attempt, run, kind, faults, bases[kind]) for kind, faults in some)
        while under_way:
            yield from under_way.popleft().result()


def read_journal() -> list[Tried]:
    """What was tried with the code as it is now."""
    lines = [json.loads(line) for line in JOURNAL.read_text().splitlines()] if JOURNAL.exists() else []
    same = {commit for commit in {line["commit"] for line in lines} if has_code_of(commit)}
    return [_read_tried(line["tried"]) for line in lines if line["commit"] in same]


def _read_tried(value: Json) -> Tried:
    fault = value["fault"]
    return Tried(**value | {"fault": Fault(**fault | {"place": Place(**fault["place"])})})


def write_row(kind: str, on: str, what: str, commit: str, found: list[Tried]) -> None:
    """Puts into docs/reliability.md how many points of a fault were tried, struck and differ."""
    of = [tried for tried in found if (tried.kind, tried.fault.on, tried.fault.what) == (kind, on, what)]
    struck, differing = sum(bool(tried.struck) for tried in of), sum(bool(tried.differing) for tried in of)
    row = f"| {kind} | {commit} | {on} | {what} | {len(of)} | {struck} | {differing} |"
    text, known = re.subn(rf"^\| {kind} \| \w+ \| {on} \| {what} \|.*$", row, PAGE.read_text(), flags=re.MULTILINE)
    PAGE.write_text(text if known else text.replace(END, f"{row}\n{END}"))


def has_row(kind: str, on: str, what: str) -> bool:
    """Whether the page has a fault's row, without a difference, of a commit with the operator and the API as they are now."""
    row = re.search(rf"^\| {kind} \| (\w+) \| {on} \| {what} \|.*\| 0 \|$", PAGE.read_text(), re.MULTILINE)
    return row is not None and has_code_of(row[1])


def has_code_of(commit: str) -> bool:
    """Whether the operator and the API are those of a commit."""
    command = ["git", "diff", "--quiet", commit, "--", "operator/*.py", "crds/*.py"]
    return subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL, check=False).returncode == 0


def main(kinds: list[str]) -> int:
    """Every point of these kinds that was not tried yet; a row is written when all of its points are, and is not tried again."""
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True).strip()
    if not has_code_of(commit):
        sys.exit("commit the operator and the API first: the rows name a commit")
    found = read_journal()
    known = {(tried.kind, tried.fault) for tried in found}
    missing = [(kind, *pair) for kind in kinds for pair in FAULTS if not has_row(kind, *pair)]
    if not missing:
        print(f"{PAGE.relative_to(ROOT)} has the rows of every point")
        return 0
    bases = undisturbed(list(dict.fromkeys(kind for kind, *_ in missing)))
    every = [
        (kind, fault) for kind, base in bases.items() for fault in points(kind, base) if (kind, fault.on, fault.what) in missing
    ]
    left = [point for point in every if point not in known]
    untried = Counter((kind, fault.on, fault.what) for kind, fault in left)
    JOURNAL.parent.mkdir(exist_ok=True)
    with JOURNAL.open("a") as journal:
        for tried in told(try_all(shared(left), bases), len(left)):
            print(json.dumps({"commit": commit, "tried": dataclasses.asdict(tried)}), file=journal, flush=True)
            found.append(tried)
            row = tried.kind, tried.fault.on, tried.fault.what
            untried[row] -= 1
            if not untried[row]:
                write_row(*row, commit, found)
    for row in missing:  # those too whose last point stood in the journal
        write_row(*row, commit, found)
    return int(any(tried.differing for tried in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(KINDS)))
