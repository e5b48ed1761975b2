"""From the models of a kind to its CustomResourceDefinition. Pure; called by generate.py.

The JSON schema of pydantic is turned into a structural one: references are written out, optional is absent, defaults are put where
the apiserver fills them in. Cross-field rules become CEL, and so does the rule that identity fields are fixed once a job has
started. The CEL cost limits of the apiserver demand a bound for every string, list and map; where a model gives none, the
`DEFAULT_MAX_*` below hold.
"""

from collections.abc import Iterator
from typing import Any, Literal

import yaml
from annotated_types import Ge, Gt, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from nativealign_api.base import Model, Rule, constraints, is_operational, model_of
from nativealign_api.common import Corpus, SecretReference
from nativealign_api.evaluate import Benchmark
from nativealign_api.identity import field_classes
from nativealign_api.kinds import KINDS, Kind
from nativealign_api.status import ConditionStatus, JobStatus, StepStatus
from nativealign_api.vocabulary import CATEGORY, GROUP, VERSION

Json = dict[str, Any]
Mode = Literal["validation", "serialization"]
"""Spec models are shown as they are validated, with defaults; status models as they are written, without."""

DEFAULT_MAX_LENGTH = 512
STATUS_MAX_LENGTH = 32768
"""As metav1.Condition's message; no rule reads such a string."""
DEFAULT_MAX_ITEMS = 64
DEFAULT_MAX_PROPERTIES = 256

LIST_KEYS: dict[type[BaseModel], str] = {
    Corpus: "name",
    Benchmark: "name",
    SecretReference: "name",
    ConditionStatus: "type",
    StepStatus: "name",
}
"""Lists that server-side apply merges by a key; all others belong to one writer as a whole."""

UNSEEN: Json = {"observedGeneration": 0}
"""What the apiserver shows of an object that the operator has not seen: without it kstatus calls the object current."""

NAME_RULE = Rule(
    "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",
    "metadata.name must be at most 63 characters of a-z, 0-9 and '-', and begin and end with a letter or digit",
)

COLUMNS = (
    ("State", "string", ".status.state", 0),
    ("Step", "string", '.status.steps[?(@.state=="Running")].name', 0),
    ("Progress", "string", '.status.steps[?(@.state=="Running")].progress', 0),
    ("ETA", "string", '.status.steps[?(@.state=="Running")].eta', 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', 1),
)
"""Name, type, path and priority; priority 1 is shown by `-o wide`."""


def render_crd(kind: str) -> str:
    """The YAML text of a kind's CustomResourceDefinition."""
    header = "# Generated from nativealign_api by `make generate`; do not edit.\n"
    return header + yaml.dump(crd(kind), Dumper=_Dumper, sort_keys=False, width=128, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes no anchors: every schema is written out where it is used."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def crd(kind: str) -> Json:
    """The CustomResourceDefinition of a kind (apiextensions.k8s.io/v1)."""
    entry = KINDS[kind]
    columns = [_column(*column) for column in COLUMNS]
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": columns,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": _root(kind, entry)},
    }
    names = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": entry.plural,
        "singular": kind.lower(),
        "shortNames": [entry.short],
        "categories": [CATEGORY],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{entry.plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def _column(name: str, form: str, path: str, priority: int) -> Json:
    return {"name": name, "type": form, "jsonPath": path} | ({"priority": priority} if priority else {})


def _root(kind: str, entry: Kind) -> Json:
    rules = [_validation(rule) for rule in (NAME_RULE, *immutability_rules(entry.spec))]
    return {
        "type": "object",
        "description": _text(entry.model.__doc__),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"{kind}."},
            "metadata": {"type": "object"},
            "spec": object_schema(entry.spec, "validation"),
            "status": object_schema(JobStatus, "serialization") | {"default": UNSEEN},
        },
        "x-kubernetes-validations": rules,
    }


STORE_PLACE = ("spec.store.bucket", "spec.store.prefix")
"""Where things lie. Operational, as a result is the same wherever it lies."""


def immutability_rules(spec: type[Model]) -> Iterator[Rule]:
    """A rule for each top-level field with an identity part, and one for the store: fixed once `status.startTime` is set."""
    for name, field in spec.model_fields.items():
        alias = field.alias or name
        equal = [_unchanged(path, optional) for path, optional in _identity_paths(field, f"spec.{alias}", ())]
        if equal:
            yield _once_started(equal, f"spec.{alias} is immutable once the job has started; create a new job")
    yield _once_started(
        [_unchanged(path, ("spec.store", path)) for path in STORE_PLACE],
        "spec.store.bucket and spec.store.prefix are immutable once the job has started: what it has written lies there",
    )


def _once_started(conditions: list[str], message: str) -> Rule:
    return Rule(f"!has(oldSelf.status) || !has(oldSelf.status.startTime) || ({' && '.join(conditions)})", message)


def _unchanged(path: str, optional: tuple[str, ...]) -> str:
    """CEL for: the value at a path is as it was, or absent as it was. The cost estimate knows no size behind `.?`, hence `has`."""
    same = f"self.{path} == oldSelf.{path}"
    if not optional:
        return same
    now, before = (" && ".join(f"has({root}.{part})" for part in optional) for root in ("self", "oldSelf"))
    return f"({now} ? {before} && {same} : !({before}))"


def _identity_paths(field: FieldInfo, path: str, optional: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The largest parts of a field that hold identity fields only, as dotted paths, and what may be absent on the way there."""
    if is_operational(field.metadata):
        return
    optional = optional if field.is_required() or _has_default(field) else (*optional, path)
    inner = model_of(field.annotation)
    classes = set(field_classes(inner).values()) if inner else set()
    if inner is None or "operational" not in classes or "list[" in str(field.annotation):
        yield path, optional  # a list is compared as a whole
        return
    for name, item in inner.model_fields.items():
        yield from _identity_paths(item, f"{path}.{item.alias or name}", optional)


def object_schema(model: type[BaseModel], mode: Mode) -> Json:
    """The structural schema of a model."""
    raw: Json = model.model_json_schema(mode=mode).get("properties", {})
    properties = {}
    for name, field in model.model_fields.items():
        alias = field.alias or name
        properties[alias] = _field_schema(field, raw[alias], mode)
    for name, computed in model.model_computed_fields.items():
        properties[name] = {"type": "string", "maxLength": DEFAULT_MAX_LENGTH, "description": _text(computed.description)}
    schema: Json = {"type": "object", "description": _text(model.__doc__)}
    required = [field.alias or name for name, field in model.model_fields.items() if field.is_required()]
    if required:
        schema["required"] = required
    if properties:
        schema["properties"] = properties
    if issubclass(model, Model) and model.all_rules():
        schema["x-kubernetes-validations"] = [_validation(rule) for rule in model.all_rules()]
    return schema


def _validation(rule: Rule) -> Json:
    return {"rule": rule.expression, "message": rule.message}


def _field_schema(field: FieldInfo, raw: Json, mode: Mode) -> Json:
    inner = model_of(field.annotation, BaseModel)
    schema = _value_schema(raw, inner, mode)
    if schema.get("x-kubernetes-int-or-string"):
        schema |= _bounds(field)
    schema["description"] = _joined(_text(field.description), schema.get("description", ""))
    if mode == "validation" and _has_default(field):
        schema["default"] = default_of(field)
    return {key: schema[key] for key in ("description", *sorted(schema.keys() - {"description"}))}


def _value_schema(raw: Json, inner: type[BaseModel] | None, mode: Mode) -> Json:
    if "anyOf" in raw:
        raw = next(variant for variant in raw["anyOf"] if variant.get("type") != "null")
    if "$ref" in raw:
        assert inner is not None
        return object_schema(inner, mode)
    if raw.get("x-kubernetes-int-or-string"):
        return {"x-kubernetes-int-or-string": True, "pattern": raw["pattern"], "maxLength": 16}
    if raw["type"] == "array":
        return _list_schema(raw, inner, mode)
    if raw["type"] == "object":
        values = _value_schema(raw["additionalProperties"], inner, mode)
        return {"type": "object", "additionalProperties": values, "maxProperties": raw.get("maxProperties", DEFAULT_MAX_PROPERTIES)}
    return _scalar_schema(raw, DEFAULT_MAX_LENGTH if mode == "validation" else STATUS_MAX_LENGTH)


def _list_schema(raw: Json, inner: type[BaseModel] | None, mode: Mode) -> Json:
    items = _without_defaults(_value_schema(raw["items"], inner, mode))
    schema = {"type": "array", "items": items, "maxItems": raw.get("maxItems", DEFAULT_MAX_ITEMS)}
    schema |= {"minItems": raw["minItems"]} if "minItems" in raw else {}
    key = LIST_KEYS.get(inner) if inner else None
    if key is None:
        return schema | {"x-kubernetes-list-type": "atomic"}
    return schema | {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


def _without_defaults(schema: Json) -> Json:
    """Of the items of a list: `kubectl apply` compares a custom resource's lists whole, and would call every re-apply a change."""
    kept = {key: value for key, value in schema.items() if key != "default"}
    if "properties" in schema:
        kept["properties"] = {name: _without_defaults(value) for name, value in schema["properties"].items()}
    if "items" in schema:
        kept["items"] = _without_defaults(schema["items"])
    return kept


def _scalar_schema(raw: Json, max_length: int) -> Json:
    kept = ("type", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "multipleOf")
    schema = {key: raw[key] for key in kept if key in raw}
    if "const" in raw:
        schema["enum"] = [raw["const"]]
    for bound in ("Minimum", "Maximum"):
        if f"exclusive{bound}" in raw:
            schema |= {bound.lower(): raw[f"exclusive{bound}"], f"exclusive{bound}": True}
    if schema["type"] == "integer":
        schema["format"] = "int64"
    if schema["type"] == "string" and "enum" not in schema:
        schema.setdefault("maxLength", max_length)
    return schema


def _bounds(field: FieldInfo) -> Json:
    """Limits of an int-or-string: `minimum` and `maximum` for numbers, CEL for strings, which those do not see."""
    schema: Json = {"minimum": 0}
    rules = []
    for constraint in constraints(field):
        if isinstance(constraint, Ge) and constraint.ge:
            schema["minimum"] = constraint.ge
            rules.append(_string_rule(">=", constraint.ge, "at least"))
        if isinstance(constraint, Gt):
            schema |= {"minimum": constraint.gt, "exclusiveMinimum": True}
            rules.append(_string_rule(">", constraint.gt, "more than"))
        if isinstance(constraint, Le):
            schema["maximum"] = constraint.le
            rules.append(_string_rule("<=", constraint.le, "at most"))
    return schema | ({"x-kubernetes-validations": rules} if rules else {})


def _string_rule(sign: str, bound: Any, words: str) -> Json:
    number = "double(self.replace('k','e3').replace('M','e6').replace('B','e9').replace('T','e12'))"
    return _validation(Rule(f"type(self) != string || {number} {sign} {float(bound)}", f"must be {words} {bound}"))


def _has_default(field: FieldInfo) -> bool:
    """Whether the apiserver fills the field in. An empty list, map or string would only be noise in the stored object."""
    return isinstance(field.default, Model) or default_of(field) not in (None, [], {}, "")


def default_of(field: FieldInfo) -> Any:
    """The default of a field as users would write it, None where there is none; `{}` for an object of defaults."""
    if field.default is PydanticUndefined:
        return None
    if isinstance(field.default, Model):
        return field.default.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return field.default


def _text(docstring: str | None) -> str:
    return " ".join((docstring or "").split())


def _joined(own: str, type_text: str) -> str:
    """A field's description, followed by that of its type."""
    return f"{own} {type_text}".strip()
