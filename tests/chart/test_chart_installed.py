"""The chart installed by Helm into a real apiserver (no nodes: the operator runs here, with its ServiceAccount's own rights)."""

import base64
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.chart.helm import CHART, HELMS, SCOPED, documents, environment, helm, of_kind
from tests.cluster.control_plane import CRDS, ControlPlane
from tests.cluster.s3 import free_port
from tests.cluster.servers import wait_for

JOB = {
    "apiVersion": "nativealign.dev/v1alpha1",
    "kind": "AlignJob",
    "metadata": {"name": "web"},
    "spec": {
        "corpora": [{"name": "web", "uri": "s3://corpora/web/**"}],
        "expert": {"rules": {}},
        "store": {"bucket": "aligned", "endpoint": "http://store.example:9000"},
    },
}


class Releases:
    """Helm against the apiserver."""

    def __init__(self, plane: ControlPlane, tool: str, folder: Path) -> None:
        self.plane, self._tool, self._folder = plane, tool, folder

    def run(self, *arguments: str, given: dict[str, Any] | None = None, succeeds: bool = True) -> str:
        done = helm(self._tool, *arguments, "--kubeconfig", str(self.plane.kubeconfig), folder=self._folder, given=given)
        assert (done.returncode == 0) == succeeds, done.stdout + done.stderr
        return done.stdout + done.stderr

    def install(self, name: str, namespace: str, values: dict[str, Any], *more: str, succeeds: bool = True) -> str:
        arguments = ["upgrade", "--install", name, str(CHART), "--namespace", namespace, *more]
        return self.run(*arguments, given=values, succeeds=succeeds)


@pytest.fixture
def tool() -> str:
    """What installs, where it does not matter: test_chart_rendering tells that both make the same objects."""
    return HELMS[-1]


@pytest.fixture
def releases(plane: ControlPlane, tool: str, tmp_path: Path) -> Iterator[Releases]:
    """All releases that a test leaves are uninstalled."""
    found = Releases(plane, tool, tmp_path)
    yield found
    for namespace in ("system", "team-a"):
        for release in json.loads(found.run("list", "--namespace", namespace, "--output", "json")):
            found.run("uninstall", release["name"], "--namespace", namespace)


def allowed(plane: ControlPlane, namespace: str, account: str, where: str, *question: str) -> bool:
    user = f"--as=system:serviceaccount:{namespace}:{account}"
    return plane.kubectl("auth", "can-i", *question, user, f"--namespace={where}").stdout.strip() == "yes"


@pytest.mark.parametrize("tool", HELMS)
def test_two_releases_side_by_side_upgraded_and_removed(releases: Releases) -> None:
    plane = releases.plane
    notes = releases.install("demo", "system", SCOPED | {"crds": {"enabled": True}, "scope": {"namespaces": ["team-b"]}})
    assert "helm test demo" in notes
    releases.install("second", "team-a", SCOPED | {"scope": {"namespaces": ["team-a"]}})
    assert allowed(plane, "system", "demo-nativealign", "team-b", "create", "jobs.batch")
    assert not allowed(plane, "system", "demo-nativealign", "team-a", "create", "jobs.batch")
    assert allowed(plane, "team-a", "second-nativealign", "team-a", "create", "jobs.batch")
    assert not allowed(plane, "team-a", "second-nativealign", "team-b", "list", "alignjobs.nativealign.dev")
    releases.install("demo", "system", SCOPED | {"crds": {"enabled": True}, "operator": {"replicas": 3}})
    status, deployment = plane.request("GET", "/apis/apps/v1/namespaces/system/deployments/demo-nativealign")
    assert (status, deployment["spec"]["replicas"]) == (200, 3)
    releases.run("uninstall", "demo", "--namespace", "system")
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/alignjobs.nativealign.dev"
    assert plane.request("GET", path)[0] == 200
    # they are still the first's: it may come back, and another must say that it wants them
    releases.install("demo", "system", {})
    assert "meta.helm.sh/release-name" in releases.install("other", "system", {}, succeeds=False)
    releases.install("other", "system", {}, "--take-ownership")
    releases.install("demo", "system", {}, "--take-ownership")


@pytest.mark.parametrize("tool", HELMS)
def test_a_release_takes_over_the_crds_that_kubectl_applied(releases: Releases) -> None:
    """As docs/install.md says: by a field manager that Helm 4 does not conflict with."""
    plane = releases.plane
    (crd,) = documents((CRDS / "nativealign.dev_evaljobs.yaml").read_text())
    columns = crd["spec"]["versions"][0]["additionalPrinterColumns"]
    older = {**crd, "spec": {**crd["spec"], "versions": [crd["spec"]["versions"][0] | {"additionalPrinterColumns": columns[:-1]}]}}
    plane.kubectl("delete", "--ignore-not-found", "crd", crd["metadata"]["name"])
    applied = plane.kubectl("apply", "--server-side", "--field-manager=helm", "--filename=-", given=json.dumps(older))
    assert applied.returncode == 0, applied.stderr
    releases.install("demo", "system", {}, "--take-ownership")
    found = plane.request("GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}")[1]
    assert found["spec"]["versions"][0]["additionalPrinterColumns"] == columns


@pytest.mark.parametrize("tool", HELMS)
def test_an_upgrade_with_the_same_values_changes_nothing(releases: Releases) -> None:
    releases.install("demo", "system", {})
    path = "/apis/apps/v1/namespaces/system/deployments/demo-nativealign"
    before = releases.plane.request("GET", path)[1]["metadata"]["generation"]
    releases.install("demo", "system", {})
    assert releases.plane.request("GET", path)[1]["metadata"]["generation"] == before


def test_the_operator_may_not_read_secrets_or_give_rights(releases: Releases) -> None:
    releases.install("demo", "system", {})
    for verb in ("get", "list", "watch"):
        for resource in ("secrets", "nodes", "namespaces", "customresourcedefinitions.apiextensions.k8s.io"):
            assert not allowed(releases.plane, "system", "demo-nativealign", "team-a", verb, resource)
    for resource in ("roles", "rolebindings", "pods", "secrets", "serviceaccounts", "clusterroles"):
        assert not allowed(releases.plane, "system", "demo-nativealign", "team-a", "create", resource)


def test_view_and_edit_get_the_three_kinds(releases: Releases) -> None:
    releases.install("demo", "system", {})
    roles = releases.plane.request("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles")[1]["items"]
    found = {role["metadata"]["name"]: role for role in roles if role["metadata"]["name"].startswith("nativealign:system:")}
    assert sorted(name.rpartition(":")[2] for name in found) == ["admin", "demo-nativealign", "edit", "view"]


@pytest.mark.parametrize("values", [{}, SCOPED | {"crds": {"enabled": True}}], ids=["cluster-wide", "namespaced"])
def test_the_rights_are_enough_for_the_operator(releases: Releases, values: dict[str, Any], tmp_path: Path) -> None:
    """It takes the Lease, sees a job, writes its status, creates its first child and an event, and is refused nothing."""
    plane = releases.plane
    releases.install("demo", "system", values)
    manifest = releases.run("get", "manifest", "demo", "--namespace", "system")
    log = tmp_path / "operator.log"
    with operator(plane, manifest, tmp_path) as ask:
        try:
            created, job = plane.request("POST", "/apis/nativealign.dev/v1alpha1/namespaces/team-a/alignjobs", JOB)
            assert created == 201, job
            wait_for(lambda: bool(plane.request("GET", "/apis/batch/v1/namespaces/team-a/jobs")[1]["items"]), "child Job", log)
            wait_for(lambda: bool(plane.request("GET", "/api/v1/namespaces/team-a/events")[1]["items"]), "event", log)
            assert "nativealign_leader 1.0" in ask("metrics")[1]
            assert plane.request("GET", "/apis/nativealign.dev/v1alpha1/namespaces/team-a/alignjobs/web")[1]["status"]["state"]
            said = log.read_text()
            assert "forbidden" not in said.lower(), said
            assert "starting again" not in said, said
        finally:
            for kind in ("alignjobs.nativealign.dev", "jobs", "configmaps", "events"):
                plane.kubectl("delete", kind, "--all", "--namespace=team-a", "--wait=false")


def test_an_operator_without_its_rights_is_not_ready_until_it_has_them(releases: Releases, tmp_path: Path) -> None:
    releases.install("demo", "system", {})
    manifest = releases.run("get", "manifest", "demo", "--namespace", "system")
    (binding,) = of_kind(documents(manifest), "ClusterRoleBinding")
    path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    assert releases.plane.request("DELETE", f"{path}/{binding['metadata']['name']}")[0] == 200
    log = tmp_path / "operator.log"
    with operator(releases.plane, manifest, tmp_path) as ask:
        wait_for(lambda: "cannot list resource" in log.read_text(), "complaint", log)
        assert (ask("readyz"), ask("healthz")) == ((503, "starting\n"), (200, "ok\n"))
        assert releases.plane.request("POST", path, binding)[0] == 201
        wait_for(lambda: ask("readyz")[0] == 200, "readiness", log)


@contextmanager
def operator(plane: ControlPlane, manifest: str, folder: Path) -> Iterator[Any]:
    """The operator as its pod would run: the Deployment's environment, its ServiceAccount's token. Yields how to ask it."""
    port = free_port()
    given = environment(documents(manifest))
    fields = {"metadata.namespace": "system", "metadata.name": "demo-0"}
    given = {name: fields.get(value, value) for name, value in given.items()} | {"NATIVEALIGN_OPERATOR_PORT": str(port)}
    token = plane.kubectl("create", "token", "demo-nativealign", "--namespace=system").stdout.strip()
    config = json.loads(plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    (folder / "kubeconfig").write_text(json.dumps(config))
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["sub"] == "system:serviceaccount:system:demo-nativealign"
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "KUBECONFIG": str(folder / "kubeconfig"), **given}
    with (folder / "operator.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "nativealign_operator"], env=env, stdout=log, stderr=log)

    def ask(path: str) -> tuple[int, str]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{port}/{path}", timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except urllib.error.URLError:
            return 0, ""

    try:
        yield ask
    finally:
        # how it stops is not what is tested here
        process.kill()
        process.wait()
