"""A whole cluster of one node for the time of a test run: control plane, containerd, kubelet, kube-proxy, CoreDNS, registry.

Runs as root in network, mount and process namespaces of its own (`make e2e`): nothing of it outlives the test run, however it ends,
but what containerd and the registry have stored (in the cache of build.py). NetworkPolicies are not enforced: the bridge plugin
knows none.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .build import binary, cache, locked
from .control_plane import NODE, NODE_KUBECONFIG, SERVICES, ControlPlane, control_plane
from .images import build_all, digest, registry, store
from .servers import Server, running, wait_for

BRIDGE, ADDRESS, PODS = "nativealign0", "10.88.0.1", "10.88.0.0/16"
"""A node's address must not be loopback, so it is the bridge's."""
REGISTRY = f"{ADDRESS}:5000"
PLUGINS = "/usr/lib/cni"
COMMANDS = ("containerd", "runc", "iptables", "conntrack", "ip", "unshare", "buildah", "debootstrap")
BINARIES = (
    *("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"),
    *("coredns", "registry", "helm", "helm4"),
)
HINT = "apt-get install containerd runc containernetworking-plugins iptables conntrack iproute2 util-linux buildah debootstrap"


@dataclass
class Cluster:
    """The control plane and its one node."""

    plane: ControlPlane
    kubelet: Server
    """Stopped, its pods run on, as on a node that has lost its way to the apiserver."""

    def image(self, name: str) -> tuple[str, str]:
        """Repository and digest of one of images.IMAGES."""
        return f"{REGISTRY}/{name}", digest(REGISTRY, name)

    def start(self) -> bool:
        """Whether the node is Ready. A kubelet ends while containerd reads what an earlier run left, and is started again."""
        if self.kubelet.process and self.kubelet.process.poll() is not None:
            self.kubelet.start()
        return self.is_ready()

    def is_ready(self) -> bool:
        shown = self.plane.kubectl("get", "node", NODE, "--output=jsonpath={.status.conditions[?(@.type=='Ready')].status}")
        return shown.stdout == "True"


def missing() -> str | None:
    """What this machine lacks, for people."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a real node needs root"
    lacking = [command for command in COMMANDS if not shutil.which(command)]
    lacking += [] if Path(PLUGINS, "bridge").exists() else [f"{PLUGINS}/bridge"]
    return f"a real node needs {', '.join(lacking)}: {HINT}" if lacking else None


@contextmanager
def one_node_cluster(folder: Path) -> Iterator[Cluster]:
    """Everything started over `folder` and the node Ready; stopped at the end. Raises RuntimeError outside of `make e2e`."""
    if [link for _, link in socket.if_nameindex()] != ["lo"]:
        raise RuntimeError("a node changes the machine's network, so it runs in namespaces of its own: make e2e")
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(locked(cache() / "node.lock"))
        _make_bridge()
        plane = stack.enter_context(control_plane(folder / "plane", controllers=True, address=ADDRESS))
        stack.enter_context(registry(REGISTRY))
        _write_settings(folder, plane)
        # names of Services mean the same here as in a pod
        subprocess.run(["mount", "--bind", folder / "resolv.conf", "/etc/resolv.conf"], check=True)
        for name, command in _servers(folder, plane).items():
            stack.enter_context(running(Server(name, command, folder)))
        wait_for((folder / "containerd.sock").exists, "containerd", folder / "containerd.log")
        found = Cluster(plane, stack.enter_context(running(Server("kubelet", _kubelet_command(folder, plane), folder))))
        wait_for(found.start, "kubelet", found.kubelet.log)
        yield found


def _make_bridge() -> None:
    for command in (
        "link set lo up",
        f"link add {BRIDGE} type bridge",
        f"addr add {ADDRESS}/{PODS.rpartition('/')[2]} dev {BRIDGE}",
        f"link set {BRIDGE} up",
        # kube-proxy turns the addresses of Services only where there is a way to them
        f"route add {SERVICES} dev {BRIDGE}",
    ):
        subprocess.run(["ip", *command.split()], check=True)


def _servers(folder: Path, plane: ControlPlane) -> dict[str, list[str | Path]]:
    return {
        "containerd": ["containerd", "--config", folder / "containerd.toml"],
        "kube-scheduler": [binary("kube-scheduler"), f"--kubeconfig={plane.kubeconfig}", "--leader-elect=false", "--secure-port=0"],
        "kube-proxy": [binary("kube-proxy"), "--config", folder / "kube-proxy.yaml"],
        "coredns": [binary("coredns"), "-conf", folder / "Corefile"],
    }


def _kubelet_command(folder: Path, plane: ControlPlane) -> list[str | Path]:
    return [
        binary("kubelet"),
        f"--config={folder / 'kubelet.yaml'}",
        f"--kubeconfig={plane.kubeconfig.with_name(NODE_KUBECONFIG)}",
        f"--hostname-override={NODE}",
        f"--root-dir={folder / 'kubelet'}",
        f"--node-ip={ADDRESS}",
    ]


def _write_settings(folder: Path, plane: ControlPlane) -> None:
    (folder / "containerd.toml").write_text(_containerd(folder))
    hosts = folder / "certs.d" / REGISTRY
    hosts.mkdir(parents=True)
    (hosts / "hosts.toml").write_text(f'[host."http://{REGISTRY}"]\ncapabilities = ["resolve", "pull"]\n')
    network = folder / "cni"
    network.mkdir()
    (network / "10-bridge.conflist").write_text(json.dumps(_network(folder)))
    (folder / "kubelet.yaml").write_text(json.dumps(_kubelet(folder, plane.kubeconfig.parent)))
    (folder / "resolv.conf").write_text(f"nameserver {ADDRESS}\nsearch cluster.local\noptions ndots:5\n")
    (folder / "kube-proxy.yaml").write_text(json.dumps(_kube_proxy(plane)))
    names = f"kubernetes cluster.local in-addr.arpa {{\n    kubeconfig {plane.kubeconfig} test\n  }}"
    (folder / "Corefile").write_text(f".:53 {{\n  bind {ADDRESS}\n  errors\n  {names}\n}}\n")


def _containerd(folder: Path) -> str:
    # restrict_oom_score_adj: without it runc fails where the machine withholds CAP_SYS_RESOURCE
    return f"""
version = 2
root = "{store() / "containerd"}"
state = "{folder / "containerd"}"
[grpc]
  address = "{folder / "containerd.sock"}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{REGISTRY}/pause:test"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{folder / "certs.d"}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "{folder / "cni"}"
"""


def _network(folder: Path) -> dict[str, object]:
    addresses = {
        "type": "host-local",
        "dataDir": str(folder / "addresses"),
        "ranges": [[{"subnet": PODS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "hairpinMode": True, "ipam": addresses}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]}


def _kubelet(folder: Path, credentials: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(credentials / "client.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "clusterDNS": [ADDRESS],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{folder / 'containerd.sock'}",
        "failSwapOn": False,
        "failCgroupV1": False,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "resolvConf": "/dev/null",
        "enforceNodeAllocatable": [],
        # a test looks at what a kubelet tells, and has not a minute for it
        "nodeStatusUpdateFrequency": "2s",
        "syncFrequency": "10s",
    }


def _kube_proxy(plane: ControlPlane) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(plane.kubeconfig)},
        "mode": "iptables",
        "clusterCIDR": PODS,
        "hostnameOverride": NODE,
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def prepare() -> None:
    """Builds everything that needs the network, which the test run itself has not."""
    with ThreadPoolExecutor() as pool:  # images wait for downloads while binaries compile
        images = pool.submit(build_all)
        for name in BINARIES:
            binary(name)
        images.result()


if __name__ == "__main__":
    problem = missing()
    if problem:
        sys.exit(problem)
    prepare()
