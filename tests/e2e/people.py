"""Who uses a cluster, and what they do there by kubectl and the command line: an administrator, and people of a team."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minio import Minio
from tests.cluster.build import binary

Json = dict[str, Any]
SYSTEM, RELEASE = "nativealign", "nativealign"
BUCKET = "nativealign"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
"""Label of a namespace where pods must keep to the restricted Pod Security Standard."""
STORE_PORT = 7070
WAIT_SECONDS = 1500
COMMAND_SECONDS = WAIT_SECONDS + 100
"""More than any wait takes that a command is given."""


@dataclass(frozen=True)
class Person:
    """A kubeconfig, and a home of its own."""

    kubeconfig: Path
    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig), **self.environment}
        return subprocess.run(
            command, cwd=self.home, env=environment, input=given, capture_output=True, text=True, timeout=COMMAND_SECONDS
        )

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        done = self.run(binary("kubectl"), *arguments, given=given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def nativealign(self, *arguments: str) -> tuple[int, str]:
        """Exit code, and what the command line shows."""
        done = self.run(Path(sys.executable).with_name("nativealign"), *arguments)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout + done.stderr

    def get(self, *arguments: str) -> Json:
        return dict(json.loads(self.kubectl("get", *arguments, "--output=json")))

    def make_secret(self, namespace: str, keys: dict[str, str]) -> None:
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3", "namespace": namespace}, "stringData": keys}
        self.kubectl("apply", "--filename=-", given=json.dumps(secret))

    def told(self, namespace: str) -> str:
        """Everything that helps to see what went wrong."""
        looks = (
            ("get", "alignjobs,pretrainjobs,evaljobs,jobs,pods", "--namespace", namespace, "--output=wide"),
            ("get", "events", "--namespace", namespace, "--sort-by=.lastTimestamp"),
            ("logs", "--namespace", SYSTEM, "--selector=app.kubernetes.io/component=operator", "--tail=60"),
        )
        return "\n".join(done.stdout + done.stderr for done in (self.run(binary("kubectl"), *look) for look in looks))


@dataclass(frozen=True)
class Team:
    """A namespace, its administrator and its one member."""

    admin: Person
    member: Person
    namespace: str
    keys: dict[str, str]

    def wait(self, reference: str, condition: str = "Finished") -> Json:
        """By `kubectl wait`, as the member; the object."""
        condition = f"--for=condition={condition}"
        done = self.member.run(binary("kubectl"), "wait", reference, condition, f"--timeout={WAIT_SECONDS}s", "-n", self.namespace)
        assert done.returncode == 0, done.stderr + self.admin.told(self.namespace)
        return self.member.get(reference, "-n", self.namespace)

    def upload(self, prefix: str, folder: Path) -> None:
        """Every file below a folder."""
        client = self._store()
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            client.fput_object(BUCKET, f"{prefix}/{path.relative_to(folder)}", str(path))

    def stored(self, prefix: str) -> list[str]:
        """Keys below a prefix."""
        return [str(item.object_name) for item in self._store().list_objects(BUCKET, prefix, recursive=True)]

    def _store(self) -> Minio:
        """The development store, by its name in the cluster."""
        address = f"{RELEASE}-dev-store.{SYSTEM}.svc:{STORE_PORT}"
        return Minio(address, *self.keys.values(), secure=False, region="us-east-1")


def make_team(admin: Person, keys: dict[str, str], home: Path) -> Team:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "team-"}}
    namespace = admin.kubectl("create", "--filename=-", "--output=jsonpath={.metadata.name}", given=json.dumps(body))
    admin.kubectl("label", "namespace", namespace, RESTRICTED)
    admin.make_secret(namespace, keys)
    admin.kubectl("create", "serviceaccount", "member", "-n", namespace)
    admin.kubectl("create", "rolebinding", "member", "--clusterrole=edit", f"--serviceaccount={namespace}:member", "-n", namespace)
    token = admin.kubectl("create", "token", "member", "-n", namespace, "--duration=2h").strip()
    config = json.loads(admin.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    kubeconfig = home / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    kubeconfig.chmod(0o600)
    return Team(admin, Person(kubeconfig, home, keys), namespace, keys)
