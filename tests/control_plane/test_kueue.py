"""Jobs in queues: the real Kueue, the operator as a process, and played pods, so that a run of many steps takes seconds.

The queues are those of docs/install.md, each namespace with its own.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kueue_controller import Kueue, install
from tests.cluster.s3 import S3Server
from tests.control_plane.campaign import JOBS, PlayedPods, stage
from tests.control_plane.site import Json, Site, make_namespace, running_operator
from tests.workloads.pipeline import nativealign_on_cluster

INSTALL = Path(__file__).parents[2] / "docs" / "install.md"
API = "/apis/kueue.x-k8s.io/v1beta2"
GPU = "nvidia.com/gpu"
URGENT = "urgent"
STRICT = "strict"
"""Namespace of an operator that gives short Jobs a queue of their own."""


@dataclass(frozen=True)
class Stage:
    """A control plane with Kueue, and one operator for all namespaces but STRICT."""

    plane: ControlPlane
    s3: S3Server
    pods: PlayedPods
    kueue: Kueue
    folder: Path

    def site(self, namespace: str = "") -> Site:
        return Site(self.plane, self.pods, self.s3, make_namespace(self.plane, self.s3, namespace))


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("kueue")
    with stage(folder) as (plane, s3, pods):
        kueue = install(plane, folder / "kueue")
        kueue.start()
        apply(plane, [{"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": URGENT}, "value": 1000}])
        with running_operator(plane, s3, folder / "operator", excluded_namespaces=STRICT):
            yield Stage(plane, s3, pods, kueue, folder)
        kueue.stop()


@pytest.fixture
def site(theatre: Stage) -> Site:
    """A fresh namespace with a queue of two accelerators."""
    site = theatre.site()
    make_queue(site, 2)
    return site


def example() -> list[Json]:
    """The manifests that docs/install.md shows."""
    return list(yaml.safe_load_all(INSTALL.read_text().split("<!-- kueue -->\n```yaml\n")[1].split("```")[0]))


def make_queue(site: Site, gpus: int, **spec: object) -> None:
    """The documented queues for one namespace alone, with so many accelerators."""
    objects = example()
    for item in objects:
        if item["kind"] == "LocalQueue":
            item["metadata"]["namespace"] = item["spec"]["clusterQueue"] = site.namespace
        if item["kind"] == "ClusterQueue":
            item["metadata"]["name"] = site.namespace
            item["spec"] |= spec
            quota(item)["nominalQuota"] = gpus
    apply(site.plane, objects)


def quota(cluster_queue: Json) -> Json:
    """The accelerators of the flavor that has any."""
    (group,) = cluster_queue["spec"]["resourceGroups"]
    (found,) = [entry for entry in group["flavors"][1]["resources"] if entry["name"] == GPU]
    return found


def apply(plane: ControlPlane, objects: list[Json]) -> None:
    done = plane.kubectl("apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    assert done.returncode == 0, done.stderr


def set_quota(site: Site, gpus: int) -> None:
    """By a patch, since Kueue writes into the queue, too."""
    path = f"{API}/clusterqueues/{site.namespace}"
    queue = site.plane.request("GET", path)[1]
    number = queue["spec"]["resourceGroups"][0]["flavors"][1]["resources"].index(quota(queue))
    place = f"/spec/resourceGroups/0/flavors/1/resources/{number}/nominalQuota"
    patch = [{"op": "replace", "path": place, "value": str(gpus)}]
    code, answer = site.plane.request("PATCH", path, patch, form="application/json-patch+json")
    assert code == 200, answer


def gang(**more: object) -> Json:
    """A PretrainJob whose training is a gang of two nodes with an accelerator each."""
    return JOBS["PretrainJob"] | {"queueName": "research", "trainResources": {"nodes": 2, "gpusPerNode": 1}, **more}


def evaluation(gpus: int = 2, **more: object) -> Json:
    """An EvalJob with one pod that wants accelerators; no step is before it but the look-up."""
    resources = {"gpusPerNode": gpus, **dict.fromkeys(("priorityClassName",) if more.pop("urgent", False) else (), URGENT)}
    return JOBS["EvalJob"] | {"queueName": "research", "evaluateResources": resources, **more}


def workloads(site: Site) -> dict[str, Json]:
    """By name of the Job that each is of."""
    found = site.plane.request("GET", f"{API}/namespaces/{site.namespace}/workloads")[1]["items"]
    owners = [workload["metadata"]["ownerReferences"][0]["name"] for workload in found]
    assert len(set(owners)) == len(owners), owners
    return dict(zip(owners, found, strict=True))


def condition(item: Json | None, kind: str) -> Json:
    return next((c for c in (item or {}).get("status", {}).get("conditions", []) if c["type"] == kind), {})


def says(site: Site, kind: str, name: str) -> str:
    """The message of a job's Ready condition."""
    return str(condition(site.get(kind, name), "Ready").get("message"))


def runs(site: Site, job: str, pods: int = 1) -> None:
    """Waits until so many pods of a Job run."""

    def look() -> bool:
        found = [pod for pod in site.every("Pod") if pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == job]
        return [(pod["status"]["phase"], "deletionTimestamp" in pod["metadata"]) for pod in found] == [("Running", False)] * pods

    site.wait(look, f"{pods} running pods of {job}")


def hold(site: Site, *steps: str) -> None:
    """Pods of these steps, once they run, go on until they are released."""
    site.kubelet.held.update(f"{site.namespace}/{step}" for step in steps)


def release(site: Site, *steps: str) -> None:
    site.kubelet.held.difference_update(f"{site.namespace}/{step}" for step in steps)


def occupy(site: Site) -> None:
    """A job that holds all accelerators until `evaluate` is released."""
    hold(site, "evaluate")
    site.apply("EvalJob", "first", evaluation())
    runs(site, "ej-first-evaluate-evaluate-0")


def doctor(site: Site, name: str) -> tuple[int, str]:
    environment = {"KUBECONFIG": str(site.plane.kubeconfig)}
    done = nativealign_on_cluster("doctor", name, "-n", site.namespace, cwd=site.plane.kubeconfig.parent, environment=environment)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def test_a_job_waits_with_kueues_words_and_goes_on_when_there_is_more_quota(site: Site) -> None:
    occupy(site)
    site.apply("EvalJob", "second", evaluation())
    site.wait(lambda: "insufficient unused quota for nvidia.com/gpu" in says(site, "EvalJob", "second"), "Kueue's words")
    told = condition(workloads(site)["ej-second-evaluate-evaluate-0"], "QuotaReserved")
    assert says(site, "EvalJob", "second") == f"evaluate evaluate: {told['message']}"
    site.reaches("EvalJob", "second", "Queued", told["reason"])
    set_quota(site, 1)
    site.wait(lambda: "> maximum capacity (1)" in says(site, "EvalJob", "second"), "Kueue's new words")
    set_quota(site, 4)
    runs(site, "ej-second-evaluate-evaluate-0")
    site.reaches("EvalJob", "second", "Running", "PodsRunning")


def test_look_ups_and_commits_pass_a_full_queue_and_every_other_job_is_one_workload(site: Site) -> None:
    occupy(site)
    site.apply("PretrainJob", "web", gang())
    site.wait(lambda: "insufficient unused quota" in says(site, "PretrainJob", "web"), "a full queue")
    singles = {f"pj-web-{name}-0" for name in ("inspect-list", "tokenize-tokenizer", "tokenize-commit")}
    assert {job["metadata"]["name"] for job in site.every("Job") if condition(job, "Complete")} > singles
    release(site, "evaluate")
    assert site.finished("PretrainJob", "web")["state"] == "Complete", site.told()
    queued = {"pj-web-tokenize-tokenize-0", "pj-web-train-train-0", "ej-first-evaluate-evaluate-0"}
    assert set(workloads(site)) == queued < set(site.jobs())


def test_a_preempted_gang_goes_on_later_and_nothing_counts_as_failed(site: Site) -> None:
    hold(site, "train", "evaluate")
    site.apply("PretrainJob", "web", gang())
    runs(site, "pj-web-train-train-0", 2)
    site.apply("EvalJob", "urgent", evaluation(urgent=True))
    status = site.reaches("PretrainJob", "web", "Queued", "Preempted")
    assert "Preempted to accommodate a workload" in says(site, "PretrainJob", "web")
    assert {c["type"]: c["status"] for c in status["conditions"]} == {"Ready": "True", "Stalled": "False", "Running": "False"}
    runs(site, "ej-urgent-evaluate-evaluate-0")
    runs(site, "pj-web-train-train-0", 0)
    release(site, "evaluate")
    runs(site, "pj-web-train-train-0", 2)
    release(site, "train")
    status = site.finished("PretrainJob", "web")
    (train,) = [step for step in status["steps"] if step["name"] == "train"]
    assert (status["state"], train["attempt"], train["failures"], train["disruptions"]) == ("Complete", 0, 0, 0)
    assert not [
        event for event in site.every("Event") if event["reason"] in ("Disrupted", "BackoffLimitExceeded", "PodFailurePolicy")
    ]


def test_a_job_is_suspended_and_resumed_in_the_queue_and_out_of_it(site: Site) -> None:
    occupy(site)
    site.apply("EvalJob", "second", evaluation())
    site.reaches("EvalJob", "second", "Queued")
    site.apply("EvalJob", "second", evaluation(suspend=True))
    status = site.reaches("EvalJob", "second", "Suspended")
    assert status["cost"].get("acceleratorSeconds", 0) == 0
    site.wait(lambda: list(workloads(site)) == ["ej-first-evaluate-evaluate-0"], "no Workload of a suspended job")

    site.apply("EvalJob", "first", evaluation(suspend=True))
    site.reaches("EvalJob", "first", "Suspended")
    site.apply("EvalJob", "second", evaluation())
    runs(site, "ej-second-evaluate-evaluate-1")
    site.apply("EvalJob", "first", evaluation())
    site.reaches("EvalJob", "first", "Queued")
    release(site, "evaluate")
    for name in ("first", "second"):
        assert site.finished("EvalJob", name)["state"] == "Complete", site.told()
    assert set(workloads(site)) == {f"ej-{name}-evaluate-evaluate-1" for name in ("first", "second")}


def test_two_gangs_that_fit_only_one_at_a_time_run_one_after_the_other(site: Site) -> None:
    """There is quota for three of the four pods: a gang is never started in part."""
    set_quota(site, 3)
    hold(site, "train")
    names = ("one", "two")
    for name in names:
        site.apply("PretrainJob", name, gang())

    def waiting() -> str | None:
        return next((name for name in names if "insufficient unused quota" in says(site, "PretrainJob", name)), None)

    second = site.wait(waiting, "a gang that waits")
    (first,) = {*names} - {second}
    runs(site, f"pj-{first}-train-train-0", 2)
    runs(site, f"pj-{second}-train-train-0", 0)
    release(site, "train")
    for name in names:
        assert site.finished("PretrainJob", name)["state"] == "Complete", site.told()
    before, after = ((site.get("Job", f"pj-{name}-train-train-0") or {})["status"] for name in (first, second))
    assert before["completionTime"] <= after["startTime"]


def test_a_sharded_step_starts_with_the_pods_that_there_is_quota_for(site: Site) -> None:
    hold(site, "evaluate")
    site.apply("EvalJob", "web", evaluation(baseline={"uri": "s3://models/other"}))
    runs(site, "ej-web-evaluate-evaluate-0")
    assert (site.get("Job", "ej-web-evaluate-evaluate-0") or {})["spec"]["parallelism"] == 1
    release(site, "evaluate")
    assert site.finished("EvalJob", "web")["state"] == "Complete", site.told()


def test_the_documented_queues_give_each_step_its_nodes(theatre: Stage) -> None:
    site = theatre.site("team-a")
    apply(theatre.plane, example())
    site.apply("PretrainJob", "web", gang(resources={"cpu": "1"}, trainResources={"nodes": 2, "gpusPerNode": 8, "cpu": "1"}))
    assert site.finished("PretrainJob", "web")["state"] == "Complete", site.told()
    templates = {name: (site.get("Job", name) or {})["spec"]["template"]["spec"] for name in workloads(site)}
    assert {name: template.get("nodeSelector", {}) for name, template in templates.items()} == {
        "pj-web-tokenize-tokenize-0": {},
        "pj-web-train-train-0": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
    }


def test_a_job_whose_quota_is_reserved_tells_what_it_waits_for_besides(theatre: Stage) -> None:
    check = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "AdmissionCheck", "metadata": {"name": "budget"}}
    apply(theatre.plane, [check | {"spec": {"controllerName": "example.org/budget"}}])
    active = {"type": "Active", "status": "True", "reason": "Active", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    merge = "application/merge-patch+json"
    code, answer = theatre.plane.request(
        "PATCH", f"{API}/admissionchecks/budget/status", {"status": {"conditions": [active]}}, form=merge
    )
    assert code == 200, answer
    site = theatre.site()
    make_queue(site, 2, admissionChecksStrategy={"admissionChecks": [{"name": "budget"}]})
    site.apply("EvalJob", "web", evaluation())
    site.wait(lambda: "budget is Pending" in says(site, "EvalJob", "web"), "the admission check")
    assert site.status("EvalJob", "web")["state"] == "Queued"


# What somebody has to mend


def test_doctor_tells_of_a_queue_that_does_not_exist(site: Site) -> None:
    site.apply("EvalJob", "web", evaluation(queueName="reserch"))
    site.wait(lambda: "LocalQueue reserch" in says(site, "EvalJob", "web"), "Kueue's words")
    code, told = doctor(site, "web")
    assert code == 78
    assert "EvalJob/web is Queued" in told
    assert "LocalQueue reserch" in told
    assert "spec.queueName" in told


def test_doctor_tells_of_a_step_that_can_never_fit(site: Site) -> None:
    site.apply("EvalJob", "web", evaluation(gpus=8))
    site.wait(lambda: "maximum capacity" in says(site, "EvalJob", "web"), "Kueue's words")
    code, told = doctor(site, "web")
    assert (code, "(8) > maximum capacity (2)" in told) == (78, True), told
    assert "gpusPerNode" in told


def test_a_kueue_that_is_away_is_told_until_it_is_back(theatre: Stage, site: Site) -> None:
    hold(site, "evaluate")
    theatre.kueue.stop()
    try:
        site.apply("EvalJob", "web", evaluation())
        site.wait(lambda: [event for event in site.every("Event") if event["reason"] == "ChildRefused"], "event")
        code, told = doctor(site, "web")
        assert (code, "mjob.kb.io" in told, "Kueue" in told) == (78, True, True), told
    finally:
        theatre.kueue.start()
    runs(site, "ej-web-evaluate-evaluate-0")
    site.reaches("EvalJob", "web", "Running")
    code, told = doctor(site, "web")
    assert (code, "mjob.kb.io" in told) == (0, False), told
    release(site, "evaluate")


def test_where_nothing_starts_without_a_queue_short_jobs_have_their_own(theatre: Stage, tmp_path: Path) -> None:
    """manageJobsWithoutQueueName: without such a queue a look-up waits for ever, and says so."""
    site, plain = theatre.site(STRICT), theatre.site()
    make_queue(site, 2)
    make_queue(plain, 2)
    apply(theatre.plane, [*short_queue(STRICT)])
    theatre.kueue.start(manageJobsWithoutQueueName=True)
    settings = {"watch_namespaces": STRICT, "lease_name": STRICT, "short_queue": "short"}
    try:
        with running_operator(theatre.plane, theatre.s3, tmp_path, **settings):
            occupy(site)
            site.apply("EvalJob", "second", evaluation())
            site.wait(lambda: "insufficient unused quota" in says(site, "EvalJob", "second"), "a full queue")
            release(site, "evaluate")
            assert site.finished("EvalJob", "second")["state"] == "Complete", site.told()
            queues = {name: workload["spec"]["queueName"] for name, workload in workloads(site).items()}
            assert {name: queue for name, queue in queues.items() if "second" in name} == {
                "ej-second-inspect-list-0": "short",
                "ej-second-evaluate-evaluate-0": "research",
                "ej-second-evaluate-commit-0": "short",
                "ej-second-report-report-0": "short",
                "ej-second-report-commit-0": "short",
            }
        plain.apply("EvalJob", "web", evaluation())
        plain.reaches("EvalJob", "web", "Queued", "Inadmissible")
        code, told = doctor(plain, "web")
        assert (code, "kueue.shortQueue" in told) == (78, True), told
    finally:
        theatre.kueue.start()


def short_queue(namespace: str) -> list[Json]:
    """A queue with some CPU for what needs no accelerator."""
    resources = [{"name": name, "nominalQuota": amount} for name, amount in (("cpu", "8"), ("memory", "32Gi"))]
    group = {"coveredResources": ["cpu", "memory"], "flavors": [{"name": "cpu", "resources": resources}]}
    api = {"apiVersion": "kueue.x-k8s.io/v1beta2"}
    return [
        api | {"kind": "ClusterQueue", "metadata": {"name": "short"}, "spec": {"namespaceSelector": {}, "resourceGroups": [group]}},
        api | {"kind": "LocalQueue", "metadata": {"name": "short", "namespace": namespace}, "spec": {"clusterQueue": "short"}},
    ]
