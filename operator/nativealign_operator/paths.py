"""Where objects lie in the apiserver."""

from nativealign_api.kinds import KINDS
from nativealign_api.vocabulary import GROUP, VERSION

PLURALS = {kind: (f"apis/{GROUP}/{VERSION}", entry.plural) for kind, entry in KINDS.items()} | {
    "Job": ("apis/batch/v1", "jobs"),
    "Pod": ("api/v1", "pods"),
    "ConfigMap": ("api/v1", "configmaps"),
    "Service": ("api/v1", "services"),
    "Event": ("api/v1", "events"),
    "Workload": ("apis/kueue.x-k8s.io/v1beta2", "workloads"),
}


def path_of(kind: str, namespace: str = "", name: str = "") -> str:
    """The path of an object, of a kind in a namespace, or of a kind everywhere."""
    group, plural = PLURALS[kind]
    parts = [group, *(["namespaces", namespace] if namespace else []), plural, *([name] if name else [])]
    return "/" + "/".join(parts)
