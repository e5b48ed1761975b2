"""The CronJob that removes from the store what no job names: what it may do, and that it knows every job."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.chart.helm import CHART, MATRIX, STORE, helm, objects, of_kind, render
from tests.cluster.control_plane import ControlPlane

from nativealign_api.kinds import KINDS
from nativealign_api.vocabulary import GROUP

Json = dict[str, Any]
DIGEST = "a" * 32
ON = {"enabled": True}
JOB = {
    "apiVersion": f"{GROUP}/v1alpha1",
    "kind": "AlignJob",
    "metadata": {"name": "web"},
    "spec": {"corpora": [{"name": "web", "uri": "s3://corpora/web/**"}], "expert": {"rules": {}}},
}


def pod(values: Json) -> Json:
    (job,) = of_kind(objects(values), "CronJob")
    found: Json = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return found


def test_there_is_none_unless_it_is_wanted() -> None:
    assert not of_kind(objects({"store": STORE}), "CronJob")


@pytest.mark.parametrize(
    ("missing", "store"), [("bucket", {"existingSecret": "s3"}), ("existingSecret", STORE | {"existingSecret": ""})]
)
def test_what_it_needs_is_asked_for(missing: str, store: Json) -> None:
    done = render({"store": store, "gc": ON})
    assert done.returncode != 0
    assert f"store.{missing}: needed where gc.enabled is set" in done.stderr


def test_it_removes_only_where_that_is_said() -> None:
    (says,) = pod({"store": STORE, "gc": ON})["containers"]
    (removes,) = pod(MATRIX["gc"])["containers"]
    assert says["command"] == removes["command"][:-1]
    assert removes["command"][3:] == [
        "--store=s3://aligned/team/one",
        "--names=/names/names.json",
        "--min-age-hours=168",
        "--delete",
    ]


def test_its_commands_are_those_that_the_images_know() -> None:
    """As far as the list of names, which is not there."""
    command = pod(MATRIX["gc"])["containers"][0]["command"]
    environment = {"AWS_ENDPOINT_URL": "http://store.example:9000", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    done = subprocess.run([sys.executable, *command[1:]], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "NamesUnreadable" in done.stderr) == (78, True), done.stderr


def test_one_container_may_list_jobs_and_the_other_has_the_keys() -> None:
    found = pod(MATRIX["gc"])
    (names,), (gc,) = found["initContainers"], found["containers"]
    assert found["automountServiceAccountToken"] is False
    assert [mount["name"] for mount in names["volumeMounts"]] == ["names", "token"]
    assert "env" not in names
    assert [mount["name"] for mount in gc["volumeMounts"]] == ["names", "certificates"]
    assert [entry["name"] for entry in gc["env"] if "valueFrom" in entry] == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
    for container in (names, gc):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize(("name", "where"), [("gc", [""]), ("gc-scoped", ["team-a", "team-b"])])
def test_it_may_list_the_three_kinds_and_nothing_else(name: str, where: list[str]) -> None:
    found = objects(MATRIX[name])
    bound = [
        value["roleRef"]["name"]
        for value in of_kind(found, "RoleBinding", "ClusterRoleBinding")
        if value["subjects"][0]["name"] == "demo-nativealign-gc"
    ]
    roles = [value for value in of_kind(found, "Role", "ClusterRole") if value["metadata"]["name"] in bound]
    assert [role["metadata"].get("namespace", "") for role in roles] == where
    rule = {"apiGroups": [GROUP], "resources": [kind.plural for kind in KINDS.values()], "verbs": ["list"]}
    assert [role["rules"] for role in roles] == [[rule]] * len(where)
    assert pod(MATRIX[name])["initContainers"][0]["command"][4:] == [namespace for namespace in where if namespace]


def test_its_rights_are_enough_to_know_every_job_and_too_few_to_know_some(plane: ControlPlane, tmp_path: Path) -> None:
    """Run with its ServiceAccount's own token, against the rights that Helm installed."""
    to = ("--namespace", "system", "--kubeconfig", str(plane.kubeconfig))
    path = f"/apis/{GROUP}/v1alpha1/namespaces/team-a/alignjobs"
    try:
        done = helm("helm", "upgrade", "--install", "demo", str(CHART), *to, folder=tmp_path, given={"store": STORE, "gc": ON})
        assert done.returncode == 0, done.stderr
        code, job = plane.request("POST", path, JOB)
        assert code == 201, job
        code, answer = plane.request("PUT", f"{path}/web/status", job | {"status": {"pinned": {"inspect": DIGEST}}})
        assert code == 200, answer
        assert _names(plane, "demo-nativealign-gc", tmp_path) == (0, True)
        assert _names(plane, "default", tmp_path) == (78, False)
    finally:
        plane.request("DELETE", f"{path}/web")
        helm("helm", "uninstall", "demo", *to, folder=tmp_path)


def _names(plane: ControlPlane, account: str, folder: Path) -> tuple[int, bool]:
    """The exit code, and whether the file was written and has the digest."""
    plane.kubectl("create", "serviceaccount", account, "--namespace=system")  # where nobody makes it
    token = plane.kubectl("create", "token", account, "--namespace=system").stdout.strip()
    config = json.loads(plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    (folder / account).write_text(json.dumps(config))
    names = folder / f"{account}.json"
    command = [sys.executable, "-m", "nativealign_operator.names", str(names)]
    environment = {"KUBECONFIG": str(folder / account), "PATH": os.environ["PATH"], "HOME": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, names.exists() and DIGEST in json.loads(names.read_text())["digests"]
