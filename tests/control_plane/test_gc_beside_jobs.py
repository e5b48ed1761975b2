"""`nativealign gc` against a cluster and its store while a job runs."""

import os
import subprocess
import sys

import pytest
from tests.control_plane.site import Site
from tests.control_plane.test_operator_lives import align

from nativealign_workloads.gc.claim import CLAIM

pytestmark = pytest.mark.usefixtures("operator")
OLD = "f" * 32


def test_a_running_job_claims_its_data_which_stays_and_what_nobody_names_goes(site: Site) -> None:
    site.kubelet.held.add("clean")
    try:
        site.apply("AlignJob", "web", align(site))
        site.wait(lambda: [name for name in site.jobs() if "-clean-" in name], "clean")
        site.put(f"steps/clean/{OLD}/manifest.json", b"{}")
        status = site.status("AlignJob", "web")
        used = [*status["outputs"].values(), *(f"inputs/{digest}" for digest in status["pinned"]["inputs"].values())]
        assert [prefix for prefix in used if not site.objects(f"{prefix}/{CLAIM}")] == []
        before = [key for prefix in used for key in site.objects(f"{prefix}/")]
        environment = {"KUBECONFIG": str(site.plane.kubeconfig), "AWS_ENDPOINT_URL": site.s3.endpoint, "AWS_REGION": site.s3.region}
        environment |= {"AWS_ACCESS_KEY_ID": site.s3.access_key, "AWS_SECRET_ACCESS_KEY": site.s3.secret_key}
        command = [sys.executable, "-m", "nativealign_cli.main", "gc", "--all-namespaces", "--store", f"s3://{site.s3.bucket}"]
        command += ["--min-age-hours", "0", "--delete"]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        site.kubelet.held.discard("clean")
        site.delete("AlignJob", "web")
    assert not site.objects(f"steps/clean/{OLD}/")
    assert [key for prefix in used for key in site.objects(f"{prefix}/")] == before
