"""Builds the images by buildah from the unchanged Dockerfiles and puts them into a registry, whose storage outlives the test run.

Needs root, buildah and debootstrap. The base image is made by debootstrap under the very name that the Dockerfiles ask for, so no
image is pulled. Everything lies in the cache of build.py: a second build repeats only the layers whose sources have changed, and
all begins anew when what the large layers are made of changes.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from .build import binary, cache, locked
from .servers import Server, answers, running, wait_for

ROOT = Path(__file__).parents[2]
SUITE = "bookworm"
BASE = "docker.io/library/python:3.11-slim"
PACKAGES = "python3,python3-pip,python3-venv,python-is-python3,ca-certificates"
DOCKERFILES = ("operator", "workloads")
SERVERS = ("versitygw", "pause")
"""Static binaries that become images of their own."""
IMAGES = (*DOCKERFILES, *SERVERS)
GPU = "workloads-gpu"
TAG = "test"
PUSHED_TO = "127.0.0.1:15050"
"""Always the same address: buildah remembers for each which layers lie there, and would compress them all again for a new one."""
SYSTEM_CERTIFICATES = "system-certs = true\n"
"""uv.toml for the build, where the machine's own certificates vouch for the package index."""


def build_all() -> None:
    """Builds what has changed and pushes it as NAME:test."""
    with locked(cache() / "images.lock"):
        for folder in store().parent.iterdir():
            if folder != store():
                _remove(folder)
        if not _exists(BASE):
            _build_base()
        for name in DOCKERFILES:
            _build_from_dockerfile(name)
        for name in SERVERS:
            _build_from_binary(name)
        with registry(PUSHED_TO) as address:
            for name in IMAGES:
                _push(name, f"docker://{address}/{name}:{TAG}")


def _push(name: str, target: str) -> None:
    compression = ("--compression-format", "zstd", "--compression-level", "1")
    _buildah("push", "--quiet", "--tls-verify=false", *compression, _local(name), target)


def store() -> Path:
    """Where images are kept, by buildah, by the registry and by containerd."""
    sources = [ROOT / name / "Dockerfile" for name in DOCKERFILES] + sorted((ROOT / "requirements").glob("*.txt"))
    content = b"".join([SUITE.encode(), PACKAGES.encode(), *(path.read_bytes() for path in sources)])
    folder = cache() / "images" / hashlib.sha256(content).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _remove(folder: Path) -> None:
    """buildah leaves its storage mounted."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if Path(mount).is_relative_to(folder)), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=True)
    shutil.rmtree(folder)


@contextmanager
def registry(address: str) -> Iterator[str]:
    """A registry over the cached storage, at `address` (host:port), for the time of a block."""
    storage = store() / "registry"
    settings = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(storage)}},
        "http": {"addr": address},
    }
    with TemporaryDirectory() as folder:
        file = Path(folder) / "registry.yaml"
        file.write_text(json.dumps(settings))
        environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
        with running(Server("registry", [binary("registry"), "serve", file], Path(folder), environment)) as server:
            wait_for(lambda: answers(f"http://{address}/v2/"), "registry", server.log)
            yield address


def digest(address: str, name: str) -> str:
    """The digest of NAME:test. Raises HTTPError where it was never built."""
    accepted = "application/vnd.oci.image.manifest.v1+json"
    request = urllib.request.Request(f"http://{address}/v2/{name}/manifests/{TAG}", headers={"Accept": accepted}, method="HEAD")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.headers["Docker-Content-Digest"])


def _build_base() -> None:
    with TemporaryDirectory(dir=store()) as folder:
        # in a mount namespace: it mounts /proc, and may be killed
        root = Path(folder) / "root"
        subprocess.run(
            ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, root],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        # the image that it stands for lets pip install
        for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            marker.unlink()
        shutil.rmtree(root / "var/cache/apt")
        container = _buildah("from", "scratch")
        _buildah("add", "--quiet", container, str(root), "/")
        _buildah("config", "--env", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
        _buildah("commit", "--quiet", "--rm", container, BASE)


def try_gpu() -> None:
    """Builds the image of the workloads for accelerators, and imports what its steps import; no more can be tried without one."""
    with locked(cache() / "images.lock"):
        if not _exists(BASE):
            _build_base()
        _build_from_dockerfile("workloads", GPU, "--build-arg=EXTRA=workloads-gpu")
        container = _buildah("from", "--pull-never", _local(GPU))
        modules = "torch, deepspeed, transformers, accelerate, vllm, lm_eval, nativealign_workloads.__main__"
        program = f"import {modules}; print(f'torch {{torch.__version__}}, CUDA {{torch.version.cuda}}')"
        print(_buildah("run", "--isolation=chroot", container, "--", "python", "-c", program))
        _buildah("rm", container)


def _build_from_dockerfile(name: str, image: str = "", *arguments: str) -> None:
    """`image`: its name, where it is not the Dockerfile's."""
    with TemporaryDirectory() as folder:
        uv = Path(folder) / "uv.toml"
        uv.write_text(SYSTEM_CERTIFICATES)
        mounted = {Path("/etc/ssl/certs"): "/etc/ssl/certs", Path("/etc/pip.conf"): "/etc/pip.conf", uv: "/etc/uv/uv.toml"}
        volumes = [f"--volume={path}:{target}:ro" for path, target in mounted.items() if path.exists()]
        flags = ["--isolation=chroot", "--pull-never", "--layers", "--timestamp=0", *volumes]
        dockerfile = str(ROOT / name / "Dockerfile")
        _buildah("bud", "--quiet", *flags, *arguments, "--file", dockerfile, "--tag", _local(image or name), str(ROOT))


def _build_from_binary(name: str) -> None:
    with TemporaryDirectory() as folder:
        shutil.copy(binary(name), folder)
        (Path(folder) / "Dockerfile").write_text(f'FROM scratch\nCOPY {name} /{name}\nENTRYPOINT ["/{name}"]\n')
        _buildah("bud", "--quiet", "--layers", "--timestamp=0", "--tag", _local(name), folder)


def _local(name: str) -> str:
    return f"localhost/{name}:{TAG}"


def _exists(image: str) -> bool:
    return subprocess.run([*_command(), "inspect", "--type=image", image], capture_output=True).returncode == 0


def _buildah(*arguments: str) -> str:
    """What it prints. Raises CalledProcessError; its complaints stay visible on stderr."""
    return subprocess.run([*_command(), *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def _command() -> list[str]:
    """A storage apart from the machine's own, where the name of the base may mean the real one."""
    home = store() / "buildah"
    return ["buildah", f"--root={home / 'storage'}", f"--runroot={home / 'run'}", "--storage-driver=overlay"]


if __name__ == "__main__":
    try_gpu() if GPU in sys.argv else build_all()
