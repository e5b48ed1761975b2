"""The chart, the images and the quickstart on a real node, as docs/install.md and README.md tell a new user."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.chart.helm import ROOT, helm
from tests.e2e.conftest import install
from tests.e2e.people import RELEASE, SYSTEM, WAIT_SECONDS, Json, Person, Team

QUICKSTART = ROOT / "examples" / "quickstart"
OVERLAY = ROOT / "examples" / "quickstart-cluster"
REFERENCES = ("alignjob/quickstart", "pretrainjob/quickstart", "evaljob/quickstart")


@pytest.fixture
def quickstart(team: Team, tmp_path: Path) -> Team:
    """Inputs in the store, and the three objects applied."""
    subprocess.run([sys.executable, QUICKSTART / "make_corpus.py", tmp_path / "corpus"], check=True)
    team.upload("quickstart/corpus", tmp_path / "corpus")
    team.upload("quickstart/benchmarks", QUICKSTART / "benchmarks")
    team.member.kubectl("apply", "--kustomize", str(OVERLAY), "--namespace", team.namespace)
    return team


def pods(team: Team) -> dict[str, Json]:
    """By uid."""
    return {pod["metadata"]["uid"]: pod for pod in team.admin.get("pods", "-n", team.namespace)["items"]}


def digests(job: Json) -> dict[str, str]:
    return {step["name"]: step["digest"] for step in job["status"]["steps"] if "digest" in step}


@pytest.fixture
def follower() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.mark.usefixtures("release")
def test_helm_test_passes(admin: Person) -> None:
    arguments = ("test", RELEASE, "--namespace", SYSTEM, "--kubeconfig", str(admin.kubeconfig))
    done = helm("helm", *arguments, folder=admin.home)
    assert done.returncode == 0, done.stdout + done.stderr + admin.told(SYSTEM)


def test_quickstart_while_helm_4_upgrades(quickstart: Team, admin: Person, release: Json, follower: ThreadPoolExecutor) -> None:
    team, member = quickstart, quickstart.member
    before = team.wait("alignjob/quickstart", "Running")
    pods_before = pods(team)
    following = follower.submit(member.nativealign, "logs", "aj/quickstart", "--follow", "-n", team.namespace)
    install(admin, "helm4", release | {"operator": {"progressSeconds": 5, "workers": 4}, "gc": {"enabled": True}})
    after = [team.wait(reference) for reference in REFERENCES]
    assert [job["status"]["state"] for job in after] == ["Complete"] * 3, admin.told(team.namespace)
    assert digests(before).items() <= digests(after[0]).items()
    assert pods_before.keys() <= pods(team).keys()
    assert all(pod["status"]["containerStatuses"][0]["restartCount"] == 0 for pod in pods(team).values())

    code, told = member.nativealign("status", "-n", team.namespace)
    assert (code, told.count("Complete")) == (0, 3), told
    code, told = member.nativealign("logs", "aj/quickstart", "--step", "rewrite", "-n", team.namespace)
    assert (code, "rewrite" in told) == (0, True), told
    (code, followed), (_, told) = following.result(), member.nativealign("logs", "aj/quickstart", "-n", team.namespace)
    assert (code, sorted(followed.splitlines())) == (0, sorted(told.splitlines()))  # each line once
    code, told = member.nativealign("doctor", "-n", team.namespace)
    assert code == 0, told
    code, told = member.nativealign("report", "aj/quickstart", "-n", team.namespace)
    assert code == 0, told
    assert "<html" in (member.home / told.strip().splitlines()[-1]).read_text()

    admin.kubectl("create", "job", "now", f"--from=cronjob/{RELEASE}-gc", "-n", SYSTEM)
    admin.kubectl("wait", "job/now", "--for=condition=Complete", f"--timeout={WAIT_SECONDS}s", "-n", SYSTEM)
    told = admin.kubectl("logs", "job/now", "-n", SYSTEM)
    assert "digests are in use" in told
