"""The generated CustomResourceDefinitions, without an apiserver; tests/contract puts them into a real one."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nativealign_api import generate
from nativealign_api.crd import crd, immutability_rules
from nativealign_api.identity import field_classes
from nativealign_api.kinds import KINDS

# Structural schemas forbid these (apiextensions v1), or cannot say them.
FORBIDDEN = {"$ref", "anyOf", "oneOf", "allOf", "const", "title", "definitions", "$defs", "discriminator", "uniqueItems"}
LAST_APPLIED_LIMIT = 262144
"""Bytes of all annotations of an object; client-side `kubectl apply` writes the whole object into one."""


def _schema(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def _nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from _nodes(child, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from _nodes(schema[name], f"{path}[{name}]")


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_is_structural(kind: str) -> None:
    for path, node in _nodes(_schema(kind)):
        assert not FORBIDDEN & node.keys(), path
        assert ("type" in node) != node.get("x-kubernetes-int-or-string", False), path
        assert node.get("additionalProperties") is not False, path
        assert "x-kubernetes-preserve-unknown-fields" not in node, path


@pytest.mark.parametrize("kind", KINDS)
def test_every_string_list_and_map_has_a_bound(kind: str) -> None:
    for path, node in _nodes(_schema(kind)["properties"]["spec"]):
        if node.get("type") == "string":
            assert "enum" in node or "maxLength" in node, path
        if node.get("type") == "array":
            assert "maxItems" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_has_a_description(kind: str) -> None:
    for part in ("spec", "status"):
        for path, node in _nodes(_schema(kind)["properties"][part]):
            if not path.endswith("]"):
                assert len(node.get("description", "")) > 3, f"{part}{path}"


@pytest.mark.parametrize("kind", KINDS)
def test_patterns_are_plain_enough_for_go(kind: str) -> None:
    for path, node in _nodes(_schema(kind)):
        assert not re.search(r"\(\?|\\[1-9]", node.get("pattern", "")), path


@pytest.mark.parametrize("kind", KINDS)
def test_status_has_no_defaults_so_that_the_operator_says_it_all(kind: str) -> None:
    status = _schema(kind)["properties"]["status"]
    assert status.pop("default") == {"observedGeneration": 0}
    assert not [path for path, node in _nodes(status) if "default" in node]


@pytest.mark.parametrize("kind", KINDS)
def test_lists_in_identity_objects_hold_identity_fields_only(kind: str) -> None:
    """CEL compares such a list as a whole: an operational field in it could not change after the start, when this one is moot."""
    moot = re.compile(r"(imagePullSecrets|.*tolerations)\[\]|mix\[\]\.acceptFailedGate$", re.IGNORECASE)
    found = [path for path, name in field_classes(KINDS[kind].spec).items() if "[]" in path and name == "operational"]
    assert not [path for path in found if not moot.match(path)]


@pytest.mark.parametrize("kind", KINDS)
def test_each_top_level_field_with_an_identity_part_has_one_immutability_rule(kind: str) -> None:
    classes = field_classes(KINDS[kind].spec)
    tops = {re.split(r"[.\[]", path)[0] for path, name in classes.items() if name == "identity"}
    named = [rule.message.split()[0].removeprefix("spec.") for rule in immutability_rules(KINDS[kind].spec)]
    assert sorted(named) == sorted(tops | {"store.bucket"})


@pytest.mark.parametrize("kind", KINDS)
def test_the_crd_can_be_applied_by_an_old_kubectl(kind: str) -> None:
    assert len(yaml.safe_dump(crd(kind)).encode()) < LAST_APPLIED_LIMIT


def test_a_changed_or_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the checkout's own files are up to date is said by `make verify`."""
    first, second, third = list(generate.TARGETS)[:3]
    monkeypatch.setattr(generate, "TARGETS", {name: generate.TARGETS[name] for name in (first, second, third)})
    generate.generate(tmp_path)
    assert generate.stale(tmp_path) == []
    (tmp_path / first).unlink()
    (tmp_path / second).write_text("edited")
    assert generate.stale(tmp_path) == [first, second]
