"""The three kinds as a chain on a real control plane, applied in the wrong order, and what the command line says of them.

The expert's rules rewrite; a chain with a worker runs in the e2e tier, on a real node.
"""

import json
import os
from pathlib import Path

import pytest
from tests.control_plane.site import SECRET, Site
from tests.workloads.pipeline import RULES, TINY, TRAINING, make_corpus, nativealign_on_cluster

pytestmark = pytest.mark.usefixtures("operator")

PRETRAIN = {
    "base": {"fromConfig": TINY},
    "mix": [{"alignJob": "web"}],
    "sequenceLength": 64,
    "tokens": 2000,
    "globalBatch": 4,
    **TRAINING,
}
EVALUATE = {"model": {"pretrainJob": "web"}, "heldOut": {"alignJob": "web"}}


def command(site: Site, *arguments: str) -> tuple[int, str]:
    """The command line as a user of the namespace has it, with the store's keys in the environment."""
    keys = {"AWS_ACCESS_KEY_ID": site.s3.access_key, "AWS_SECRET_ACCESS_KEY": site.s3.secret_key}
    environment = {"KUBECONFIG": str(site.plane.kubeconfig), **keys}
    done = nativealign_on_cluster(*arguments, "-n", site.namespace, cwd=site.kubelet.folder, environment=environment)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def test_three_jobs_in_the_wrong_order_become_a_chain(site: Site, tmp_path: Path) -> None:
    code, told = command(site, "status")
    assert (code, f"no jobs in namespace {site.namespace}" in told) == (0, True), told
    site.apply("EvalJob", "web", EVALUATE)
    site.reaches("EvalJob", "web", "Waiting", "WaitingForInput")
    code, told = command(site, "report", "ej/web")
    assert (code, "EvalJob/web names no store and has pinned none yet" in told) == (64, True), told
    code, told = command(site, "doctor", "ej/web")
    assert (code, "create that job" in told) == (78, True), told
    site.apply("PretrainJob", "web", PRETRAIN)
    told = site.wait(lambda: found[1] if (found := command(site, "doctor", "ej/web"))[0] == 0 else None, "doctor's content")
    assert "PretrainJob/web is Waiting" in told
    code, told = command(site, "logs", "ej/web", "--step", "evaluation")
    assert (code, "EvalJob/web has no step evaluation" in told) == (66, True), told
    store = {"bucket": site.s3.bucket, "endpoint": site.s3.endpoint, "credentialsSecret": {"name": SECRET}}
    make_corpus(tmp_path, 120)
    for path in tmp_path.iterdir():
        site.put(f"{site.namespace}/{path.name}", path.read_bytes())
    corpora = [{"name": "web", "uri": f"s3://{site.s3.bucket}/{site.namespace}/"}]
    site.apply("AlignJob", "web", RULES | {"corpora": corpora, "store": store})
    assert site.finished("AlignJob", "web")["state"] == "Complete", site.told()
    assert site.finished("PretrainJob", "web")["state"] == "Complete", site.told()
    status = site.finished("EvalJob", "web")
    assert status["state"] == "Complete", site.told()
    assert status["steps"][-1]["metrics"]["bits-per-byte"] > 0
    assert status["pinned"]["upstream"]["PretrainJob/web"]["uid"] == (site.get("PretrainJob", "web") or {})["metadata"]["uid"]

    code, told = command(site, "status")
    assert (code, told.count("Complete")) == (0, 3), told
    code, told = command(site, "status", "aj/web", "-o", "json")
    assert json.loads(told)["status"]["state"] == "Complete"
    assert command(site, "wait", "ej/web", "--timeout", "5") == (
        0,
        "EvalJob/web: Complete: StepsCommitted: all steps are committed\n",
    )
    code, told = command(site, "doctor")
    assert code == 0, told
    code, told = command(site, "report", "aj/web")
    assert code == 0, told
    assert (site.kubelet.folder / told.strip()).read_text().count("<html") == 1
    code, told = command(site, "status", "nobody")
    assert (code, "nobody is unknown in namespace" in told) == (66, True), told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "there is no file {}"),
        ("", "{} is no kubeconfig"),
        ("clusters: [", "{}:1: not YAML: expected the node content"),
        ("just text", "{} is no kubeconfig"),
        ("current-context: gone", "Expected object with name gone"),
    ],
)
def test_a_kubeconfig_with_a_mistake_is_one_line(content: str | None, told: str, tmp_path: Path) -> None:
    """And no exit code that `wait` has for an outcome."""
    if content is not None:
        (tmp_path / "config").write_text(content)
    environment = {"KUBECONFIG": str(tmp_path / "config"), "PATH": os.environ["PATH"]}
    done = nativealign_on_cluster("wait", "aj/web", "-n", "team", cwd=tmp_path, environment=environment)
    assert (done.returncode, "Traceback" in done.stderr) == (66, False), done.stderr
    assert done.stderr.startswith("no cluster: ")
    assert (told.format(tmp_path / "config") in done.stderr, done.stderr.count("\n")) == (True, 1), done.stderr


def test_of_several_kubeconfigs_the_first_says_which_cluster(site: Site, tmp_path: Path) -> None:
    other = {
        "current-context": "other",
        "clusters": [{"name": "other", "cluster": {"server": "https://127.0.0.1:1"}}],
        "contexts": [{"name": "other", "context": {"cluster": "other", "user": "other"}}],
        "users": [{"name": "other", "user": {"token": "none"}}],
    }
    (tmp_path / "other").write_text(json.dumps(other))
    files = [str(site.plane.kubeconfig), str(tmp_path / "other")]
    for order, code in ((files, 0), (files[::-1], 69)):
        environment = {"KUBECONFIG": os.pathsep.join(order), "PATH": os.environ["PATH"]}
        done = nativealign_on_cluster("status", "-n", site.namespace, cwd=tmp_path, environment=environment)
        assert done.returncode == code, done.stderr


def test_a_cluster_that_cannot_be_reached_is_one_line(site: Site) -> None:
    nowhere = site.kubelet.folder / "nowhere"
    nowhere.write_text((site.plane.kubeconfig).read_text().replace("https://127.0.0.1:", "https://127.0.0.1:1"))
    environment = {"KUBECONFIG": str(nowhere), "PATH": os.environ["PATH"]}
    done = nativealign_on_cluster("status", "-n", "team", cwd=site.kubelet.folder, environment=environment)
    assert done.returncode in (69, 78)
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("the cluster says: GET /apis/nativealign.dev/v1alpha1/namespaces/team/alignjobs")
