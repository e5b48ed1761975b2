"""What the operator and its users may do, and under which limits pods run."""

from typing import Any

import pytest
from tests.chart.helm import DEV_STORE, MATRIX, SCOPED, objects, of_kind

from nativealign_api.kinds import KINDS
from nativealign_api.vocabulary import GROUP
from nativealign_operator.pod import USER

PLURALS = [kind.plural for kind in KINDS.values()]
Rights = dict[str, set[str]]

NEEDED: Rights = {
    **{f"{plural}.{GROUP}": {"get", "list", "watch"} for plural in PLURALS},
    **{f"{plural}/status.{GROUP}": {"patch"} for plural in PLURALS},
    "jobs.batch": {"get", "list", "watch", "create", "delete"},
    "pods.": {"get", "list", "watch"},
    "configmaps.": {"get", "create", "delete"},
    "services.": {"get", "create", "delete"},
    "events.": {"list", "create"},
    "workloads.kueue.x-k8s.io": {"list"},
}
LEASE: Rights = {"leases.coordination.k8s.io": {"create", "get", "update"}}


def rights(role: dict[str, Any]) -> Rights:
    found: Rights = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault(f"{resource}.{group}", set()).update(rule["verbs"])
    return found


def operators(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Roles that are bound to the operator."""
    found = objects(values)
    bound = {value["roleRef"]["name"] for value in of_kind(found, "RoleBinding", "ClusterRoleBinding")}
    return [value for value in of_kind(found, "Role", "ClusterRole") if value["metadata"]["name"] in bound]


def test_a_cluster_wide_operator_may_do_what_it_needs_and_nothing_else() -> None:
    found = {(value["kind"], value["metadata"].get("namespace", "")): rights(value) for value in operators({})}
    assert found == {("ClusterRole", ""): NEEDED, ("Role", "system"): LEASE}


def test_a_namespaced_operator_may_do_the_same_in_its_namespaces_alone() -> None:
    found = {(value["kind"], value["metadata"].get("namespace", "")): rights(value) for value in operators(SCOPED)}
    assert found == {("Role", "team-a"): NEEDED, ("Role", "team-b"): NEEDED, ("Role", "system"): LEASE}


def test_only_its_own_lease_may_be_read_and_written() -> None:
    role = next(value for value in operators({}) if value["kind"] == "Role")
    assert {verb: rule.get("resourceNames") for rule in role["rules"] for verb in rule["verbs"]} == {
        "create": None,
        "get": ["demo-nativealign"],
        "update": ["demo-nativealign"],
    }


@pytest.mark.parametrize("name", MATRIX)
def test_no_role_names_secrets_roles_or_everything(name: str) -> None:
    for role in of_kind(objects(MATRIX[name]), "Role", "ClusterRole"):
        for rule in role["rules"]:
            assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert "rbac.authorization.k8s.io" not in rule["apiGroups"]
            assert not {"secrets", "pods/exec", "serviceaccounts/token"} & set(rule["resources"])


def test_without_kueue_there_is_no_right_to_its_objects() -> None:
    assert all("kueue" not in name for role in operators(MATRIX["bare"] | {"rbac": {"create": True}}) for name in rights(role))


def test_users_roles_are_aggregated_and_grow() -> None:
    roles = {value["metadata"]["name"].rpartition(":")[2]: value for value in of_kind(objects({}), "ClusterRole")}
    for name in ("view", "edit", "admin"):
        assert roles[name]["metadata"]["labels"][f"rbac.authorization.k8s.io/aggregate-to-{name}"] == "true"
    assert rights(roles["view"])[f"alignjobs.{GROUP}"] == {"get", "list", "watch"}
    assert rights(roles["edit"])[f"alignjobs.{GROUP}"] == {"create", "update", "patch", "delete"}
    assert all("status" not in name for role in ("edit", "admin") for name in rights(roles[role]))


# pods


def pods(values: dict[str, Any]) -> list[dict[str, Any]]:
    found = objects(values)
    templates = [value["spec"]["template"]["spec"] for value in of_kind(found, "Deployment")]
    return templates + [value["spec"] for value in of_kind(found, "Pod")]


def test_every_pod_runs_under_the_restricted_standard() -> None:
    found = pods({"devStore": DEV_STORE})
    assert len(found) == 3
    for pod in found:
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert (security["runAsUser"], security["runAsGroup"]) == (USER, USER)
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"] + pod.get("initContainers", []):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {"requests", "limits"} <= container["resources"].keys()


def test_every_pod_of_the_operators_image_may_pull_it() -> None:
    secrets = [{"name": "registry.example"}]
    found = pods({"devStore": DEV_STORE, "image": {"pullSecrets": secrets}})
    assert [pod["imagePullSecrets"] for pod in found] == [secrets] * 3


def test_helm_test_runs_where_the_operator_does() -> None:
    placed: dict[str, Any] = {"nodeSelector": {"pool": "system"}, "tolerations": [{"key": "control", "operator": "Exists"}]}
    operator, test = pods({"operator": placed})
    assert placed.items() <= operator.items()
    assert placed.items() <= test.items()


def test_only_the_operator_has_a_token() -> None:
    assert sorted(pod["automountServiceAccountToken"] for pod in pods({"devStore": DEV_STORE})) == [False, False, True]


def test_network_policies_are_for_the_ports_that_are_served() -> None:
    policies = {value["metadata"]["name"]: value["spec"] for value in of_kind(objects(SCOPED), "NetworkPolicy")}
    operator = policies["demo-nativealign"]
    assert [port["port"] for rule in operator["ingress"] for port in rule["ports"]] == [8080]
    workloads = policies["system.demo-nativealign-workloads"]
    assert workloads["policyTypes"] == ["Ingress"]
    assert [[port["port"] for port in rule.get("ports", [])] for rule in workloads["ingress"]] == [[], [8090]]
    closed = {value["metadata"]["name"]: value["spec"] for value in of_kind(objects(MATRIX["closed"]), "NetworkPolicy")}
    assert closed["system.demo-nativealign-workloads"]["policyTypes"] == ["Ingress", "Egress"]
    assert closed["demo-nativealign"]["egress"][1]["to"] == [{"ipBlock": {"cidr": "10.0.0.10/32"}}]
