"""Values for a field of a spec, generated from the CRD's own schema: such as it lets through, and such as it must refuse."""

from functools import cache
from typing import Any

from hypothesis import strategies as st
from tests import specs

from nativealign_api.crd import crd
from nativealign_api.kinds import KINDS

Json = dict[str, Any]
Values = st.SearchStrategy[Any]
LONGEST = 600
"""Of generated text; longer than most limits."""


def schema_of(kind: str, leaf: str) -> Json:
    """The schema of a field by its path, e.g. `mix[].weight`."""
    found: Json = _spec_schema(kind)
    for part in leaf.split("."):
        found = found["properties"][part.removesuffix("[]")]
        found = found["items"] if part.endswith("[]") else found
    return found


@cache
def _spec_schema(kind: str) -> Json:
    schema: Json = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def fields() -> list[tuple[str, str, str]]:
    """Kind, path and class of every field; parts that several kinds or fields share come once."""
    first: dict[str, tuple[str, str, str]] = {}
    for kind in KINDS:
        for leaf, name in specs.leaves(kind):
            first.setdefault(" ".join([*leaf.split(".")[-2:], name]), (kind, leaf, name))
    return list(first.values())


def taken(schema: Json, present: Any = None) -> Values:
    """Values that the schema takes. Rules over several fields may refuse one all the same. `present`: what the field holds now."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return _integers(schema) | _texts(schema)
    kind = schema["type"]
    if kind == "object":
        return _maps(schema, present or {})
    if kind == "array":
        return st.lists(
            taken(schema["items"]), min_size=schema.get("minItems", 0), max_size=min(3, schema["maxItems"]), unique_by=repr
        )
    return {"boolean": lambda _: st.booleans(), "string": _texts, "integer": _integers, "number": _floats}[kind](schema)


def refused(schema: Json) -> list[Any]:
    """Values that the schema refuses: another type, and just beyond each of its limits."""
    if schema.get("x-kubernetes-int-or-string"):
        return [True, ["x"], "many", "-1", "1.5K", *_beyond(schema)]
    wrong = {"string": 4, "integer": "4", "number": "4", "boolean": "true", "object": "x", "array": "x"}[schema["type"]]
    found = [wrong, *_beyond(schema)]
    if "enum" in schema:
        found.append(schema["enum"][0].swapcase())
    if "maxLength" in schema:
        found.append("a" * (schema["maxLength"] + 1))
    if schema.get("minLength"):
        found.append("")
    if "pattern" in schema:
        found.append("\n")
    if "maxItems" in schema and schema["items"]["type"] == "string":
        found.append([f"a{n}" for n in range(schema["maxItems"] + 1)])
    return found


def _beyond(schema: Json) -> list[Any]:
    low = [schema["minimum"] - (not schema.get("exclusiveMinimum"))] if "minimum" in schema else []
    return low + ([schema["maximum"] + (not schema.get("exclusiveMaximum"))] if "maximum" in schema else [])


def _integers(schema: Json) -> Values:
    step = schema.get("multipleOf", 1)
    return st.integers(schema.get("minimum", 0), schema.get("maximum", 10**9)).map(lambda number: number - number % step)


def _floats(schema: Json) -> Values:
    low, high = schema.get("minimum", 0), schema.get("maximum", 10**9)
    excluded = {"exclude_min": schema.get("exclusiveMinimum", False), "exclude_max": schema.get("exclusiveMaximum", False)}
    return st.floats(low, high, **excluded)


def _texts(schema: Json) -> Values:
    longest = min(LONGEST, schema.get("maxLength", LONGEST))
    if "pattern" not in schema:
        return st.text(min_size=schema.get("minLength", 0), max_size=longest)
    return st.from_regex(schema["pattern"], fullmatch=True).filter(lambda text: len(text) <= longest and "\n" not in text)


def _maps(schema: Json, present: Json) -> Values:
    if "additionalProperties" not in schema:
        return st.just({})
    names = st.sampled_from(sorted(present)) | st.text(max_size=80) if present else st.text(max_size=80)
    return st.dictionaries(names, taken(schema["additionalProperties"]), max_size=min(3, schema["maxProperties"]))
