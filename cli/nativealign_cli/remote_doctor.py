"""`nativealign doctor NAME -n NAMESPACE`: why a job of a cluster does not come further, and what to do."""

from collections.abc import Iterator

from rich.console import Console

from nativealign_api.vocabulary import ExitCode
from nativealign_cli.doctor import Finding, print_findings
from nativealign_cli.remote import Remote, connected, reference, status_of, told
from nativealign_operator.cluster import ApiError, Json
from nativealign_operator.conditions import finished
from nativealign_operator.decide import NOT_THERE
from nativealign_operator.seen import TROUBLES, Pod, read_pod

NO_QUEUE = (
    "create that LocalQueue and its ClusterQueue, have them resumed if they are stopped, or correct spec.queueName. "
    "Where nothing starts without a queue, every job needs one, and look-ups and commits get theirs by kueue.shortQueue "
    "in the chart's values"
)
NO_QUOTA = (
    "wait for others to end. What is above the maximum capacity never fits: ask for more quota, or for less in gpusPerNode, nodes, "
    "cpu and memory"
)
ADVICE = {
    "WaitingForInput": "create that job, or wait for it",
    "UpstreamFailed": "mend the job that this one refers to; it goes on by itself",
    "Unschedulable": "no node has room: look at resources, nodeSelector, tolerations, and at the cluster's free accelerators",
    "ImagePullBackOff": "check spec.image (or the chart's workload image) and spec.imagePullSecrets",
    "ErrImagePull": "check spec.image (or the chart's workload image) and spec.imagePullSecrets",
    "InvalidImageName": "correct spec.image",
    "CreateContainerConfigError": "create the Secret or ConfigMap that is named, in the job's own namespace",
    "FailedMount": "create the Secret, ConfigMap or claim that is named, in the job's own namespace",
    "FailedAttachVolume": "the claim's volume is on another node, or its storage class does not answer: kubectl describe the claim",
    "FailedCreatePodSandBox": "the node's network or container runtime is unwell: look at that node, or exclude it by nodeSelector",
    "FailedCreate": "the pods are refused: by a quota, an admission policy, or for a service account that is not there",
    "StoreUnavailable": "check the store's endpoint from inside the cluster, and network policies",
    "StoreRefused": "check the keys in the store's Secret",
    "BucketNotFound": "create the bucket, or correct spec.store.bucket or the input that names it",
    "CredentialsMissing": "name a Secret in spec.store.credentialsSecret, or a service account with workload identity",
    "NodeNotReady": "the node is gone; the next attempt starts after nodeLostAfterSeconds",
    "TaintManagerEviction": "the node is gone; the next attempt starts after nodeLostAfterSeconds",
    "ChildRefused": "a quota or a policy says no, or an admission webhook (Kueue's: mjob.kb.io) does not answer",
    "Queued": "is Kueue running, does its managedJobsNamespaceSelector take this namespace in, may the operator list Workloads?",
    "ChildDeleted": "wait: its pods may store a checkpoint before they end, a training's for up to ten minutes",
    "Inadmissible": NO_QUEUE,
    "ClusterQueueStopped": NO_QUEUE,
    "LocalQueueStopped": NO_QUEUE,
    "Misconfigured": NO_QUEUE,
    "Pending": NO_QUOTA,
    "WaitingForQuota": NO_QUOTA,
    "ExceedsMaxQuota": NO_QUOTA,
    "NoMatchingFlavor": "no flavor of the ClusterQueue fits: look at its coveredResources, at nodeSelector and tolerations",
    "Preempted": "another job has gone before; this one goes on by itself when there is quota again",
    "AdmissionChecks": "the ClusterQueue asks for more than quota: see its admission checks",
    "GateFailed": "the report has what was measured: change the gates or what they measure, or accept the data by acceptFailedGate",
    "OutOfMemory": "raise resources.memory, or lower batch sizes",
}
"""What to do, by reason of a condition, a pod or an event."""
FINAL = "A job that has failed stays so: mend the cause, delete the object and create it again; what is committed is used again"
WORTH_TELLING = TROUBLES | {"FailedScheduling", "NodeNotReady", "TaintManagerEviction", "Evicted"}
"""Reasons of events. A refusal is told by the job's own condition for as long as it lasts."""


async def examine(context: str | None, namespace: str, name: str | None, out: Console) -> int:
    """Prints the findings; 0 if all are good."""
    async with connected(context, namespace) as remote:
        jobs = [await remote.find(name)] if name else await remote.jobs()
        findings = [finding for job in jobs for finding in await _job(remote, job)]
        if not jobs:
            findings = [Finding(True, f"no job in namespace {namespace}")]
    print_findings(findings, out)
    return ExitCode.OK if all(finding.good for finding in findings) else ExitCode.CONFIG


async def _job(remote: Remote, job: Json) -> list[Finding]:
    status = status_of(job)
    ready = next((condition for condition in status.conditions if condition.type == "Ready"), None)
    if ready is None:
        advice = "is the operator installed and running, and does it watch this namespace?"
        return [Finding(False, f"{reference(job)} has no status yet", advice)]
    waits_for_another = ready.reason == "WaitingForInput" and NOT_THERE not in ready.message
    good = status.state in ("Complete", "Running", "Suspended") or waits_for_another
    advices = [] if good else [ADVICE.get(ready.reason, ""), FINAL if status.state == "Failed" else ""]
    findings = [Finding(good, f"{reference(job)} is {told(status)}", ". ".join(filter(None, advices)))]
    pods = await remote.children(job, "Pod")
    findings += _pods(ready.reason, (read_pod(pod) for pod in pods if pod["status"]["phase"] == "Pending"))
    return findings + await _events(remote, job, pods, ready.reason)


def _pods(known: str, pods: Iterator[Pod]) -> Iterator[Finding]:
    """Pods that wait for something; the `known` reason the job tells itself."""
    for pod in pods:
        if pod.waiting and pod.waiting[0] != known:
            reason, message = pod.waiting
            yield Finding(False, f"pod {pod.name} waits: {reason}: {message}", ADVICE.get(reason, ""))


async def _events(remote: Remote, job: Json, pods: list[Json], known: str) -> list[Finding]:
    """The last that others told of each of the job's objects, where it is a trouble and the job has not ended."""
    if finished(status_of(job)):
        return []
    try:
        children = await remote.children(job, "Job")
        events = await remote.events({item["metadata"]["uid"] for item in [job, *children, *pods]})
    except ApiError as error:
        return [Finding(False, f"events cannot be read: {error.message}", "ask for get and list of events")]
    last = {event["involvedObject"]["name"]: event for event in events if "reason" in event}
    troubles = {name: event for name, event in last.items() if event["reason"] in WORTH_TELLING - {known}}
    return [
        Finding(False, f"{name}: {e['reason']}: {e.get('message', '')}", ADVICE.get(e["reason"], ""))
        for name, e in troubles.items()
    ]
