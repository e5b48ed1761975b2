"""The pod template of a phase: typed fields only, under the restricted Pod Security Standard. Pure; called by render.py.

All files that a pod is told come as two projected volumes: JOB_FOLDER (its job, the code of conduct, certificates) and the secrets'
folder (store/, expert/ and judge/ keys, identity/token). Both follow a rotated Secret or ConfigMap while the pod runs.
"""

from pathlib import PurePosixPath
from typing import Any

from nativealign_api.align import CodeOfConduct
from nativealign_api.common import JobSpec, Resources, SecretKeyReference
from nativealign_api.plan import value_at
from nativealign_api.resolved import ResolvedJob
from nativealign_api.steps import INSPECT, STEPS, Form
from nativealign_api.vocabulary import (
    DEFAULT_JOB_PATH,
    DEFAULT_MODEL_CACHE,
    DEFAULT_SCRATCH,
    DEFAULT_SECRETS,
    ENV_ACCELERATORS,
    ENV_IDENTITY_TOKEN,
    ENV_JOB,
    ENV_MODEL_CACHE,
    ENV_POD_ADDRESS,
    ENV_PROGRESS,
    ENV_SCRATCH,
    ENV_SECRETS,
    ENV_STORE_CA,
    ENV_WRITER,
    PROGRESS_PORT,
)

Json = dict[str, Any]

CONTAINER = "workload"
LABEL_JOB_NAME = "batch.kubernetes.io/job-name"
"""Kubernetes' own, on every pod of a Job."""
USER = 65532
JOB_FOLDER, JOB_FILE = str(PurePosixPath(DEFAULT_JOB_PATH).parent), PurePosixPath(DEFAULT_JOB_PATH).name
CONDUCT_FILE = "conduct.yaml"
CERTIFICATES_FILE = "ca.crt"
TOKEN_FILE = "identity/token"
TOKEN_SECONDS = 3600
READ_ONLY = 0o440
"""Owner root, group USER by fsGroup."""


def pod_template(
    spec: JobSpec, resolved: ResolvedJob, *, name: str, config_map: str, image: str, token_audience: str, grace_seconds: int
) -> Json:
    """The template of the pods of the Job `name`."""
    resources = resolved.resources
    gang = resolved.form is Form.GANG and resolved.indexes > 1
    volumes = _volumes(spec, resolved, config_map, token_audience)
    pod: Json = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": grace_seconds,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(resolved, _environment(spec, resolved, name if gang else None), image, volumes)],
        "volumes": [{key: value for key, value in volume.items() if key != "mountPath"} for volume in volumes],
        **_placement(resources, spec.node_lost_after_seconds),
        **(_gang_placement(resources, name) if gang else {}),
    }
    if spec.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret.name} for secret in spec.image_pull_secrets]
    if spec.service_account_name:
        pod["serviceAccountName"] = spec.service_account_name
    annotations = {"annotations": dict(sorted(resources.network_annotations.items()))} if resources.network_annotations else {}
    return {"metadata": annotations, "spec": pod}


def _container(resolved: ResolvedJob, environment: list[Json], image: str, volumes: list[Json]) -> Json:
    return {
        "name": CONTAINER,
        "image": image,
        "command": ["python", "-m", "nativealign_workloads", resolved.step, resolved.phase],
        "env": environment,
        "ports": [{"name": "progress", "containerPort": PROGRESS_PORT}],
        "resources": _compute(resolved.resources),
        "volumeMounts": [_mount(volume) for volume in volumes],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _mount(volume: Json) -> Json:
    read_only = {"readOnly": True} if "projected" in volume else {}
    return {"name": volume["name"], "mountPath": volume["mountPath"], **read_only}


def _environment(spec: JobSpec, resolved: ResolvedJob, gang: str | None) -> list[Json]:
    values = {
        ENV_JOB: DEFAULT_JOB_PATH,
        ENV_SCRATCH: DEFAULT_SCRATCH,
        ENV_SECRETS: DEFAULT_SECRETS,
        ENV_PROGRESS: f"{DEFAULT_SCRATCH}/progress.json",
        # the root file system is read-only
        "HOME": DEFAULT_SCRATCH,
        "TMPDIR": DEFAULT_SCRATCH,
    }
    if resolved.resources.model_cache_claim:
        values[ENV_MODEL_CACHE] = DEFAULT_MODEL_CACHE
    if resolved.store and resolved.store.ca_bundle:
        values[ENV_STORE_CA] = f"{JOB_FOLDER}/{CERTIFICATES_FILE}"
    if gang:
        values["MASTER_ADDR"] = f"{gang}-0.{gang}"
    if spec.service_account_name:
        # not AWS_WEB_IDENTITY_TOKEN_FILE: where that is set, EKS gives the pod no role
        values[ENV_IDENTITY_TOKEN] = f"{DEFAULT_SECRETS}/{TOKEN_FILE}"
    if resolved.resources.gpus_per_node:
        values[ENV_ACCELERATORS] = str(resolved.resources.gpus_per_node)
    values |= dict(sorted(resolved.resources.environment.items()))
    own = {ENV_WRITER: "metadata.uid", ENV_POD_ADDRESS: "status.podIP"}
    fields = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in own.items()]
    return [*fields, *({"name": name, "value": value} for name, value in values.items())]


def _compute(resources: Resources) -> Json:
    """Extended resources cannot be overcommitted: their requests equal their limits. CPU has no limit, memory has."""
    devices = {resources.gpu_resource: str(resources.gpus_per_node)} if resources.gpus_per_node else {}
    limits = devices | dict(sorted(resources.extra_resources.items()))
    limits |= {"memory": resources.memory} if resources.memory else {}
    requests = limits | ({"cpu": resources.cpu} if resources.cpu else {})
    return {name: value for name, value in (("requests", requests), ("limits", limits)) if value}


def _placement(resources: Resources, node_lost_after: int) -> Json:
    """The pods of a node that is lost are given up when the job says, not after the cluster's own five minutes. Of several
    tolerations of a taint the first counts: one for everything would tolerate a lost node for ever.
    """
    tolerations: list[Json] = [
        {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": node_lost_after}
        for taint in ("not-ready", "unreachable")
    ]
    tolerations += [entry.model_dump(by_alias=True, exclude_none=True) for entry in resources.tolerations]
    placement = {
        "nodeSelector": dict(sorted(resources.node_selector.items())),
        "tolerations": tolerations,
        "priorityClassName": resources.priority_class_name,
        "runtimeClassName": resources.runtime_class_name,
    }
    return {name: value for name, value in placement.items() if value}


def _gang_placement(resources: Resources, name: str) -> Json:
    """Pods of a gang go to different nodes where there are enough, and into one domain of the topology key."""
    spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    placement: Json = {"subdomain": name, "topologySpreadConstraints": [spread | _pods_of(name)]}
    if resources.topology_key:
        terms = [{"topologyKey": resources.topology_key} | _pods_of(name)]
        placement["affinity"] = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    return placement


def _pods_of(job: str) -> Json:
    return {"labelSelector": {"matchLabels": {LABEL_JOB_NAME: job}}}


def _volumes(spec: JobSpec, resolved: ResolvedJob, config_map: str, token_audience: str) -> list[Json]:
    """The volumes, each with its mountPath."""
    files = _file_sources(spec, resolved, config_map)
    secrets = _secret_sources(spec, resolved, token_audience)
    resources = resolved.resources
    volumes = [
        {"name": "job", "projected": {"sources": files}, "mountPath": JOB_FOLDER},
        {"name": "scratch", **_scratch(resources), "mountPath": DEFAULT_SCRATCH},
    ]
    if secrets:
        projected = {"defaultMode": READ_ONLY, "sources": secrets}
        volumes.append({"name": "secrets", "projected": projected, "mountPath": DEFAULT_SECRETS})
    if resources.shared_memory or resources.gpus_per_node > 1 or resources.nodes > 1:
        # NCCL outgrows the 64 MiB that a runtime gives; without a size it is the pod's memory
        memory = {"medium": "Memory"} | ({"sizeLimit": resources.shared_memory} if resources.shared_memory else {})
        volumes.append({"name": "shared-memory", "emptyDir": memory, "mountPath": "/dev/shm"})
    if resources.model_cache_claim:
        claim = {"claimName": resources.model_cache_claim}
        volumes.append({"name": "models", "persistentVolumeClaim": claim, "mountPath": DEFAULT_MODEL_CACHE})
    return volumes


def _scratch(resources: Resources) -> Json:
    scratch = resources.scratch
    if not scratch.storage_class_name:
        return {"emptyDir": {"sizeLimit": scratch.size}}
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": scratch.storage_class_name,
        "resources": {"requests": {"storage": scratch.size}},
    }
    return {"ephemeral": {"volumeClaimTemplate": {"spec": claim}}}


def _file_sources(spec: JobSpec, resolved: ResolvedJob, config_map: str) -> list[Json]:
    """The job for all; the code of conduct for inspect, which pins it; certificates where the store has its own."""
    sources = [_config_map_source(config_map, JOB_FILE, JOB_FILE)]
    conduct = value_at(spec, "codeOfConduct") if resolved.kind == "AlignJob" and resolved.step == INSPECT else None
    if isinstance(conduct, CodeOfConduct) and conduct.config_map:
        sources.append(_config_map_source(conduct.config_map.name, conduct.config_map.key, CONDUCT_FILE))
    if resolved.store and resolved.store.ca_bundle:
        sources.append(_config_map_source(resolved.store.ca_bundle.name, resolved.store.ca_bundle.key, CERTIFICATES_FILE))
    return sources


def _config_map_source(name: str, key: str, path: str) -> Json:
    return {"configMap": {"name": name, "items": [{"key": key, "path": path}]}}


def _secret_sources(spec: JobSpec, resolved: ResolvedJob, token_audience: str) -> list[Json]:
    sources: list[Json] = []
    if resolved.store and resolved.store.credentials_secret:
        keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        items = [{"key": key, "path": f"store/{key}"} for key in keys]
        sources.append({"secret": {"name": resolved.store.credentials_secret.name, "items": items}})
    for folder, secret in _api_keys(spec, resolved).items():
        items = [{"key": secret.key, "path": f"{folder}/{secret.key}"}]
        sources.append({"secret": {"name": secret.name, "items": items}})
    if spec.service_account_name:
        token = {"audience": token_audience, "expirationSeconds": TOKEN_SECONDS, "path": TOKEN_FILE}
        sources.append({"serviceAccountToken": token})
    return sources


def _api_keys(spec: JobSpec, resolved: ResolvedJob) -> dict[str, SecretKeyReference]:
    """API keys of the endpoints that a phase may ask, by their names."""
    step = next(step for step in STEPS[resolved.kind] if step.name == resolved.step)
    phase = next(phase for phase in step.phases if phase.name == resolved.phase)
    given = ((name, value_at(spec, path)) for name, path in phase.asks)
    return {name: endpoint.api_key_secret for name, endpoint in given if endpoint and endpoint.api_key_secret}
