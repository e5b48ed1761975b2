"""How the contract tests speak to the apiserver about jobs."""

import re
from typing import Any

from tests.cluster.control_plane import ControlPlane

from nativealign_api.kinds import KINDS
from nativealign_api.vocabulary import GROUP, VERSION

Answer = tuple[int, Any]


def path(kind: str, namespace: str, name: str = "", part: str = "") -> str:
    found = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{KINDS[kind].plural}"
    return found + (f"/{name}" if name else "") + (f"/{part}" if part else "")


def create(plane: ControlPlane, namespace: str, manifest: dict[str, Any], *, dry_run: bool = False) -> Answer:
    """Unknown fields are refused, as by kubectl."""
    query = "?fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
    return plane.request("POST", path(manifest["kind"], namespace) + query, manifest)


def merge(plane: ControlPlane, at: str, change: dict[str, Any], *, dry_run: bool = False) -> Answer:
    """A merge patch, as of `kubectl patch` or `kubectl edit`."""
    query = "?fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
    return plane.request("PATCH", at + query, change, form="application/merge-patch+json")


def replace_spec(plane: ControlPlane, at: str, spec: dict[str, Any], *, dry_run: bool = False) -> Answer:
    """A JSON patch that puts another spec in the place of the old one."""
    query = "?fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
    change = [{"op": "replace", "path": "/spec", "value": spec}]
    return plane.request("PATCH", at + query, change, form="application/json-patch+json")


def names_field(message: str, leaf: str) -> bool:
    """Whether a refusal names a field of the spec by its path; the numbers of list items do not count."""
    return f"spec.{leaf}" in re.sub(r"\[\d+\]", "[]", message)
