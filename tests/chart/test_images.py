"""The two Dockerfiles, as far as they can be read without building them; the e2e tier builds and runs them."""

import re
from pathlib import Path

import pytest
from tests.chart.helm import ROOT

from nativealign_operator.pod import USER

FILES = {"operator": ROOT / "operator" / "Dockerfile", "workloads": ROOT / "workloads" / "Dockerfile"}


@pytest.mark.parametrize("name", FILES)
def test_the_image_runs_as_the_pods_user_and_starts_its_module(name: str) -> None:
    text = FILES[name].read_text()
    final = text.rpartition("FROM ${BASE}\n")[2]
    assert f"\nUSER {USER}:{USER}\n" in final
    assert final.endswith(f'ENTRYPOINT ["python", "-m", "nativealign_{name}"]\n')
    assert (ROOT / name / f"nativealign_{name}" / "__main__.py").is_file()


@pytest.mark.parametrize("name", FILES)
def test_all_that_is_installed_is_locked(name: str) -> None:
    text = FILES[name].read_text().replace("\\\n", " ")
    installs = re.findall(r"pip install ([^&\n]*)", text)
    assert len(installs) == 3
    for arguments in installs:
        assert "--require-hashes" in arguments or "--no-deps --build-constraint /requirements/build.txt" in arguments
        for lock in re.findall(r"requirements/[-\w${}]+\.txt", arguments):
            for extra in ("workloads-cpu", "workloads-gpu"):
                assert (ROOT / lock.replace("${EXTRA}", extra)).is_file()


@pytest.mark.parametrize("name", FILES)
def test_the_base_can_be_named_by_its_digest(name: str) -> None:
    text = FILES[name].read_text()
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BASE}", "${BASE}"]
    assert "--build-arg BASE=python:3.11-slim@sha256:" in text


def test_what_the_wheel_needs_is_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    project = (ROOT / "pyproject.toml").read_text()
    named = set(re.findall(r'^    "(\w+)/nativealign_\w+",$', project, re.MULTILINE))
    assert named | {"pyproject.toml", "README.md", "LICENSE", "requirements"} == kept
    assert all(Path(ROOT / name).exists() for name in kept)
