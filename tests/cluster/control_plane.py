"""A real control plane (etcd, kube-apiserver and, where wanted, kube-controller-manager) for the time of a test run."""

import base64
import json
import os
import secrets
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .build import binary
from .s3 import free_port
from .servers import Server, running, wait_for

GIVEN = "NATIVEALIGN_TEST_KUBECONFIG"
"""Names the kubeconfig of a cluster to test on."""
LOOPBACK = "127.0.0.1"
IDLE_SECONDS = 60
ANSWER_SECONDS = 120
"""An apiserver itself gives a request up after 60 seconds, and says so."""
SERVICES = "10.96.0.0/16"
NODE = "node-0"
USERS = {"admin": "system:masters", f"system:node:{NODE}": "system:nodes"}
"""Who may come, and the group that says what each may do."""
NODE_KUBECONFIG = "node.kubeconfig"
"""A kubelet's access, beside the administrator's."""
CRDS = Path(__file__).parents[2] / "crds"


class Connection(HTTPSConnection):
    """Opens anew after a pause: the apiserver closes what is idle for 90 seconds."""

    _used = 0.0

    def request(self, *arguments: Any, **named: Any) -> None:
        if time.monotonic() - self._used > IDLE_SECONDS:
            self.close()
        self._used = time.monotonic()
        super().request(*arguments, **named)


@dataclass(frozen=True)
class ControlPlane:
    """Where the apiserver listens, and an administrator's access to it."""

    connect: Callable[[], Connection]
    """A new connection to the apiserver, for threads of their own."""
    connection: Connection
    token: str = field(repr=False)
    kubeconfig: Path
    servers: dict[str, Server] = field(default_factory=dict)
    """By name."""

    def wait_until_ready(self) -> None:
        """Also after the apiserver was away."""
        self.connection.close()
        wait_for(self._is_ready, "kube-apiserver", self.kubeconfig.parent / "kube-apiserver.log")

    def _is_ready(self) -> bool:
        try:
            return all(self._ask("GET", path)[0] == 200 for path in ("/readyz", "/api/v1/namespaces/default"))
        except (OSError, HTTPException):
            return False

    def kubectl(self, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl, with `given` as its standard input. The caller looks at the return code."""
        # no user's settings
        env = {"KUBECONFIG": str(self.kubeconfig), "HOME": str(self.kubeconfig.parent), "PATH": os.environ["PATH"]}
        return subprocess.run(
            [binary("kubectl"), *arguments], input=given, env=env, capture_output=True, text=True, timeout=ANSWER_SECONDS
        )

    def install_crds(self) -> None:
        """The generated CRDs, until they are served."""
        applied = self.kubectl("apply", "--server-side", "-f", str(CRDS))
        assert applied.returncode == 0, applied.stderr
        self.wait_for_crds()

    def anew(self) -> "ControlPlane":
        """The same with a connection of its own, for another thread."""
        return ControlPlane(self.connect, self.connect(), self.token, self.kubeconfig)

    def wait_for_crds(self) -> None:
        """Returns once every CRD is served."""
        # asked again, since kubectl does not wait for one that has no conditions yet
        command = "wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"
        wait_for(lambda: self.kubectl(*command).returncode == 0, "a CRD")

    def request(self, method: str, path: str, body: Any = None, *, form: str = "application/json") -> tuple[int, Any]:
        """Status code and JSON answer of one request; much faster than a kubectl process."""
        status, answer = self._ask(method, path, None if body is None else json.dumps(body), form)
        return status, json.loads(answer)

    def _ask(self, method: str, path: str, body: str | None = None, form: str = "application/json") -> tuple[int, bytes]:
        headers = {"Content-Type": form} | ({"Authorization": f"Bearer {self.token}"} if self.token else {})
        try:
            self.connection.request(method, path, body, headers)
            answer = self.connection.getresponse()
            return answer.status, answer.read()
        except (OSError, HTTPException):
            self.connection.close()  # the next request opens it again
            raise


def _connection(port: int) -> Connection:
    """Takes the certificate that the apiserver made for itself a moment ago."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return Connection(LOOPBACK, port, timeout=ANSWER_SECONDS, context=context)


def compact(etcd: Server) -> None:
    """Forgets every revision before the current one: a watch that goes on from there is answered with 410 (Gone).

    Source: https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/
    """
    url = next(flag.partition("=")[2] for flag in map(str, etcd.command) if flag.startswith("--advertise-client-urls="))

    def ask(what: str, body: Any) -> Any:
        with urllib.request.urlopen(f"{url}/v3/kv/{what}", json.dumps(body).encode(), timeout=30) as answer:
            return json.loads(answer.read())

    revision = ask("range", {"key": "AA=="})["header"]["revision"]
    ask("compaction", {"revision": revision, "physical": True})


@contextmanager
def control_plane(folder: Path, *, controllers: bool = False, address: str = LOOPBACK) -> Iterator[ControlPlane]:
    """Start etcd and kube-apiserver over `folder` (made if missing) on free ports; stop them at the end.

    `controllers`: with kube-controller-manager, so that Jobs get pods and what an owner leaves behind is removed.
    `address`: where nodes reach the apiserver; without one there are none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ports = {"etcd": free_port(), "peer": free_port(), "api": free_port()}
    tokens = {user: secrets.token_hex(16) for user in USERS}
    _write_credentials(folder, address, ports["api"], tokens)
    flags = {"etcd": _etcd_flags(folder, ports), "kube-apiserver": _apiserver_flags(folder, ports, controllers, address)}
    flags |= {"kube-controller-manager": _controller_flags(folder, address)} if controllers else {}
    environment = {**os.environ, "GOGC": "400"}  # a quarter of the apiserver's time is garbage collection otherwise
    servers = {name: Server(name, [binary(name), *given], folder, environment) for name, given in flags.items()}
    connect = partial(_connection, ports["api"])
    plane = ControlPlane(connect, connect(), tokens["admin"], folder / "kubeconfig", servers)
    with ExitStack() as stack:
        for name, server in servers.items():
            stack.enter_context(running(server))
            if name == "kube-apiserver":
                plane.wait_until_ready()
        yield plane


@contextmanager
def cluster(folder: Path, *, controllers: bool = False) -> Iterator[ControlPlane]:
    """The cluster that NATIVEALIGN_TEST_KUBECONFIG names; without it a control plane of one's own."""
    given = os.environ.get(GIVEN)
    if given:
        yield _given(Path(given).absolute(), folder)
    else:
        with control_plane(folder, controllers=controllers) as plane:
            yield plane


def _given(kubeconfig: Path, folder: Path) -> ControlPlane:
    """An administrator's access by a token or a client certificate, as the kubeconfig's current context says."""
    command = [binary("kubectl"), "config", "view", "--minify", "--flatten", "--raw", "--output=json"]
    told = subprocess.run(command, env={**os.environ, "KUBECONFIG": str(kubeconfig)}, check=True, capture_output=True, text=True)
    config = json.loads(told.stdout)
    server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context()
    if server.get("insecure-skip-tls-verify"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    elif "certificate-authority-data" in server:
        context.load_verify_locations(cadata=base64.b64decode(server["certificate-authority-data"]).decode())
    if "client-certificate-data" in user:
        pair = folder / "client.pem"
        pair.touch(0o600)
        pair.write_bytes(b"".join(base64.b64decode(user[name]) for name in ("client-certificate-data", "client-key-data")))
        context.load_cert_chain(pair)
    elif "token" not in user:
        raise RuntimeError(f"{GIVEN}: {kubeconfig} has neither a token nor a client certificate")
    address = urlsplit(server["server"])
    connect = partial(Connection, str(address.hostname), address.port or 443, timeout=ANSWER_SECONDS, context=context)
    return ControlPlane(connect, connect(), user.get("token", ""), kubeconfig)


def _write_credentials(folder: Path, address: str, port: int, tokens: dict[str, str]) -> None:
    """A token and a kubeconfig for each user, a key that signs service account tokens, and the apiserver's access to kubelets."""
    (folder / "tokens.csv").write_text("".join(f'{token},{user},{user},"{USERS[user]}"\n' for user, token in tokens.items()))
    client = (
        "req -x509 -newkey rsa:2048 -noenc -days 2 -subj /O=system:masters/CN=kube-apiserver -keyout client.key -out client.crt"
    )
    for command in (
        "genrsa -out sa.key 2048",
        "rsa -in sa.key -pubout -out sa.pub",
        *([] if address == LOOPBACK else [client]),
    ):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    for path, server, token in zip(("kubeconfig", NODE_KUBECONFIG), (LOOPBACK, address), tokens.values(), strict=True):
        _write_kubeconfig(folder / path, f"https://{server}:{port}", token)


def _write_kubeconfig(path: Path, server: str, token: str) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        # the apiserver makes its own certificate here
        "clusters": [{"name": "test", "cluster": {"server": server, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    path.write_text(json.dumps(config))
    path.chmod(0o600)


def _etcd_flags(folder: Path, ports: dict[str, int]) -> list[str]:
    client, peer = f"http://{LOOPBACK}:{ports['etcd']}", f"http://{LOOPBACK}:{ports['peer']}"
    return [
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",  # the data need not outlive the test
        "--log-level=warn",
    ]


def _apiserver_flags(folder: Path, ports: dict[str, int], controllers: bool, address: str) -> list[str]:
    nodes = [
        "--bind-address=0.0.0.0",
        f"--advertise-address={address}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--kubelet-client-certificate={folder / 'client.crt'}",
        f"--kubelet-client-key={folder / 'client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
    ]
    return [
        f"--etcd-servers=http://{LOOPBACK}:{ports['etcd']}",
        *([f"--bind-address={LOOPBACK}", "--authorization-mode=RBAC"] if address == LOOPBACK else nodes),
        f"--secure-port={ports['api']}",
        f"--cert-dir={folder / 'certificates'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        f"--service-cluster-ip-range={SERVICES}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'sa.pub'}",
        f"--service-account-signing-key-file={folder / 'sa.key'}",
        # without controllers nobody makes the default service account that this one asks for
        *([] if controllers else ["--disable-admission-plugins=ServiceAccount"]),
    ]


def _controller_flags(folder: Path, address: str) -> list[str]:
    # without real nodes nobody reports for the test kubelet's, and its pods are no orphans
    without_nodes = ["--controllers=*,-node-ipam-controller,-node-lifecycle-controller,-pod-garbage-collector-controller"]
    # a test has no minute to see a node as lost
    with_nodes = ["--controllers=*,-node-ipam-controller", "--node-monitor-period=1s", "--node-monitor-grace-period=10s"]
    return [
        f"--kubeconfig={folder / 'kubeconfig'}",
        "--leader-elect=false",
        "--secure-port=0",
        f"--service-account-private-key-file={folder / 'sa.key'}",
        # holds the authority of the apiserver's own certificate
        f"--root-ca-file={folder / 'certificates' / 'apiserver.crt'}",
        *(without_nodes if address == LOOPBACK else with_nodes),
        "--concurrent-job-syncs=10",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]
