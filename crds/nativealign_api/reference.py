"""From the models of a kind to its reference page in Markdown. Pure; called by generate.py."""

from typing import Any

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, MultipleOf
from pydantic import BaseModel, StringConstraints
from pydantic.fields import FieldInfo

from nativealign_api.base import Model, constraints, is_operational, model_of
from nativealign_api.crd import default_of, object_schema
from nativealign_api.identity import field_classes
from nativealign_api.kinds import KINDS
from nativealign_api.status import JobStatus
from nativealign_api.vocabulary import API_VERSION

HEADER = """<!-- Generated from nativealign_api by `make generate`; do not edit. -->
# {kind}

{description}

`apiVersion: {api_version}`, short name `{short}`, category `nativealign`.

**Class.** *Identity* fields say what is computed. They enter digests and are fixed once the job has started: another value is
another job, and steps that both have in common are shared. *Operational* fields say how. They may change at any time, take effect
at the next child Job, and never change a digest. An object is *mixed* where it holds fields of both classes.

**Counts** are whole numbers that may be written with a suffix: `k`, `M`, `B`, `T` stand for 10^3, 10^6, 10^9, 10^12, with at most
three decimals: `96000`, `96k`, `1.5B`. **Dollars** are whole numbers or strings with at most four decimals: `6000`, `"0.15"`.
**Quantities** are those of Kubernetes: `500m`, `8`, `64Gi`.
"""

UNITS = {
    "PerMinute": "per minute",
    "Length": "tokens",
    "Position": "tokens",
    "Batch": "sequences",
    "BatchSize": "sequences",
    "SecondsAfterFinished": "seconds",
    "Ratio": "times",
    "Size": "dimensions",
    "Heads": "heads",
    "Layers": "blocks",
    "Nodes": "pods",
    "PerNode": "per pod",
    "Shards": "shards",
    "Parallelism": "pods",
    "Retries": "attempts",
    "Concurrency": "requests",
    "Requests": "requests",
    "Keep": "checkpoints",
    "Bands": "bands",
    "Rows": "permutations",
    "Seconds": "seconds",
    "Percent": "percent",
    "Bytes": "bytes",
    "Tokens": "tokens",
    "Words": "words",
    "Points": "points",
    "Steps": "steps",
    "Documents": "documents",
    "Samples": "samples",
    "Usd": "US dollars",
    "Epochs": "passes",
}
"""Units by the last word of a field's name."""


def render_reference(kind: str) -> str:
    """The page of a kind: a table for each of its objects, in the order in which a reader meets them."""
    entry = KINDS[kind]
    description = " ".join((entry.model.__doc__ or "").split())
    parts = [HEADER.format(kind=kind, description=description, api_version=API_VERSION, short=entry.short)]
    for model, operational in _models(entry.spec, operational=False).items():
        parts.append(_section("spec" if model is entry.spec else model.__name__, model, operational))
    for model in _models(JobStatus, operational=False):
        parts.append(_section("status" if model is JobStatus else model.__name__, model, None))
    return "\n".join(parts)


def _models(model: type[BaseModel], operational: bool) -> dict[type[BaseModel], bool]:
    """A model and every one below it, in order, and whether it lies under an operational field."""
    found = {model: operational}
    for field in model.model_fields.values():
        inner = model_of(field.annotation, BaseModel)
        if inner:
            below = _models(inner, operational or is_operational(field.metadata))
            found |= {key: value for key, value in below.items() if key not in found}
    return found


def _section(title: str, model: type[BaseModel], operational: bool | None) -> str:
    lines = [f"## {title}", "", " ".join((model.__doc__ or "").split()), ""]
    schema = object_schema(model, "serialization" if operational is None else "validation")
    properties = schema.get("properties", {})
    if properties:
        columns = ["Field", "Type", "Default", "Limits", "Unit", *([] if operational is None else ["Class"]), "Meaning"]
        lines += [_row(columns), _row(["---"] * len(columns))]
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        lines += [_row(_cells(alias, fields.get(alias), schema, operational)) for alias in properties]
    else:
        lines.append("It has no fields: `{}`.")
    rules = [rule.message for rule in model.all_rules()] if issubclass(model, Model) else []
    if rules:
        lines += ["", *(f"- {message}" for message in rules)]
    return "\n".join([*lines, ""])


def _cells(alias: str, field: FieldInfo | None, schema: dict[str, Any], operational: bool | None) -> list[str]:
    value = schema["properties"][alias]
    if field is None:
        return [f"`{alias}`", "string", "", "", "", value["description"]]
    required = " (required)" if alias in schema.get("required", []) else ""
    inner = model_of(field.annotation, BaseModel)
    cells = [f"`{alias}`{required}", _type(value, inner), _default(field, operational), _limits(field, value), _unit(alias, value)]
    own_class = [] if operational is None else [_class(field, inner, operational)]
    return [*cells, *own_class, " ".join((field.description or "").split())]


def _type(value: dict[str, Any], inner: type[BaseModel] | None) -> str:
    if value.get("x-kubernetes-int-or-string"):
        return "dollars" if "kMBT" not in value["pattern"] else "count"
    if value["type"] == "array":
        return f"list of {_type(value['items'], inner)}"
    if "additionalProperties" in value:
        return f"map of {_type(value['additionalProperties'], None)}"
    return f"[{inner.__name__}](#{inner.__name__.lower()})" if inner else str(value["type"])


def _default(field: FieldInfo, operational: bool | None) -> str:
    value = default_of(field)
    if operational is None or value in (None, [], {}, ""):
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, dict):
        text = "{" + ", ".join(f"{key}: {item}" for key, item in value.items()) + "}"
    return f"`{text}`"


def _limits(field: FieldInfo, value: dict[str, Any]) -> str:
    if "enum" in value or "enum" in value.get("items", {}):
        return ", ".join(f"`{choice}`" for choice in value.get("enum") or value["items"]["enum"])
    signs = {Ge: (">=", "ge"), Gt: (">", "gt"), Le: ("<=", "le"), Lt: ("<", "lt"), MultipleOf: ("a multiple of", "multiple_of")}
    found = []
    for constraint in constraints(field):
        if type(constraint) in signs:
            sign, name = signs[type(constraint)]
            found.append(f"{sign} {getattr(constraint, name)}")
        elif isinstance(constraint, MinLen) and value["type"] == "array":
            found.append(f"at least {constraint.min_length}")
        elif isinstance(constraint, MaxLen) and value["type"] in ("array", "object"):
            found.append(f"at most {constraint.max_length}")
        elif isinstance(constraint, StringConstraints) and value.get("type") == "string":
            found += [f"`{str(constraint.pattern).replace('|', chr(92) + '|')}`"] if constraint.pattern else []
    if value.get("type") == "string" and "maxLength" in value:
        found.append(f"at most {value['maxLength']} characters")
    return ", ".join(dict.fromkeys(found))


def _unit(alias: str, value: dict[str, Any]) -> str:
    if value.get("type") not in (None, "integer", "number"):
        return ""
    own = alias[0].upper() + alias[1:]
    if "UsdPer" in own:
        return "US dollars"
    found = [word for word in UNITS if own.endswith(word)]
    return UNITS[max(found, key=len)] if found else ""


def _class(field: FieldInfo, inner: type[BaseModel] | None, operational: bool) -> str:
    if operational or is_operational(field.metadata):
        return "operational"
    classes = set(field_classes(inner).values()) if inner else set()
    return "mixed" if len(classes) == 2 else next(iter(classes), "identity")


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
