"""From an apiserver's OpenAPI document to the strict JSON schemas that kubeconform reads: one file for each kind."""

import json
import re
from pathlib import Path
from typing import Any

Json = dict[str, Any]
FILE = "{{.ResourceKind}}_{{.Group}}_{{.ResourceAPIVersion}}.json"
"""kubeconform's template of a file's name."""
NUMBER_OR_STRING: Json = {"type": ["number", "string"]}
REFERENCE = re.compile(r'"#/definitions/([^"]+)"')


def write_schemas(openapi: Json, folder: Path) -> None:
    definitions = {name: _strict(name, schema) for name, schema in openapi["definitions"].items()}
    for name, schema in definitions.items():
        for kind in schema.get("x-kubernetes-group-version-kind", []):
            # kubeconform takes the core group's version for its name
            file = f"{kind['kind'].lower()}_{kind['group'] or kind['version']}_{kind['version']}.json"
            needed = {other: definitions[other] for other in _reachable(name, definitions)}
            text = json.dumps({"$ref": f"#/definitions/{name}", "definitions": needed})
            (folder / file).write_text(text)


def _strict(name: str, schema: Any) -> Any:
    """Unknown fields are refused, and what may be a number or a string may be both."""
    if isinstance(schema, list):
        return [_strict(name, item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if name.endswith(".Quantity") or schema.get("format") == "int-or-string" or schema.get("x-kubernetes-int-or-string") is True:
        return NUMBER_OR_STRING
    found = {key: _strict("", value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found


def _reachable(name: str, definitions: Json) -> set[str]:
    found, rest = set(), [name]
    while rest:
        current = rest.pop()
        if current not in found:
            found.add(current)
            rest += REFERENCE.findall(json.dumps(definitions[current]))
    return found
