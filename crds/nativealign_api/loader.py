"""Reads manifests the way kubectl does, and says where each mistake stands.

One YAML loader whose scalars equal those of kubectl (sigs.k8s.io/yaml over go-yaml v2): `1e-5` is a number, `yes` a boolean.
Called by the CLI; the operator gets its objects from the apiserver.
"""

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from nativealign_api.base import Model, model_of
from nativealign_api.kinds import KINDS, JobObject
from nativealign_api.vocabulary import API_VERSION

Location = tuple[str | int, ...]
LARGEST_DOCUMENT = 100_000
"""Values in one document, counted after aliases are written out."""


@dataclass(frozen=True)
class Problem:
    """One mistake in a manifest."""

    source: str
    line: int
    """Counted from 1."""
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.path + ': ' if self.path else ''}{self.message}"


class ManifestError(Exception):
    """Every mistake of the manifests, all at once."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True)
class Manifest:
    """One YAML document."""

    source: str
    value: Any
    lines: dict[Location, int]

    def line(self, location: Location) -> int:
        """The line of a location, or of the nearest thing around it."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)


class _KubectlLoader(yaml.SafeLoader):
    """Safe YAML with the scalars of go-yaml v2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


_BOOLEANS = dict.fromkeys(["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"], True)
_BOOLEANS |= dict.fromkeys(["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"], False)
_INT = re.compile(r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[1-9][0-9_]*|0)$")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9_]+)?$")
_NO_JSON = re.compile(r"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$")
_KubectlLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(~|null|Null|NULL|)$"), None)
_KubectlLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(rf"({'|'.join(_BOOLEANS)})$"), None)
_KubectlLoader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, None)
_KubectlLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, None)
_KubectlLoader.add_implicit_resolver("infinity or not a number", _NO_JSON, None)
_KubectlLoader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"<<$"), None)


def _int(text: str) -> int:
    plain = text.replace("_", "")
    return int(re.sub(r"^([-+]?)0(?=[0-7])", r"\g<1>0o", plain), 0)


def _float(text: str) -> int | float:
    """kubectl sends JSON, in which Go writes a whole number of less than 22 digits without a point or exponent."""
    value = float(text.replace("_", ""))
    return int(value) if value.is_integer() and abs(value) < 1e21 else value


_SCALARS: dict[str, Callable[[str], Any]] = {
    "tag:yaml.org,2002:null": lambda text: None,
    "tag:yaml.org,2002:bool": lambda text: _BOOLEANS[text],
    "tag:yaml.org,2002:int": _int,
    "tag:yaml.org,2002:float": _float,
    "tag:yaml.org,2002:str": str,
}


def load_manifests(text: str, source: str) -> list[Manifest]:
    """The documents of a YAML (or JSON) text; instead of a List, as `kubectl get -o yaml` prints several objects, its items. Empty
    documents are left out. Raises ManifestError where it is not YAML.
    """
    manifests = []
    try:
        loader = _KubectlLoader(text)
        while loader.check_node():
            lines: dict[Location, int] = {}
            node = loader.get_node()
            value = _construct(node, (), lines) if node else None
            if value is not None:
                manifests += _items(Manifest(source, value, lines))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ManifestError([Problem(source, mark.line + 1 if mark else 1, "", f"not YAML: {error.problem}")]) from None
    except yaml.YAMLError as error:
        raise ManifestError([Problem(source, 1, "", f"not YAML: {str(error).splitlines()[0]}")]) from None
    except RecursionError:
        raise ManifestError(
            [Problem(source, 1, "", "not a manifest: nested too deeply, or an alias inside its own anchor")]
        ) from None
    return manifests


def _items(manifest: Manifest) -> list[Manifest]:
    """The items of a List; anything else as it is."""
    match manifest.value:
        case {"apiVersion": "v1", "kind": "List", "items": list(items)}:
            pass
        case _:
            return [manifest]
    own: list[dict[Location, int]] = [{} for _ in items]
    for location, line in manifest.lines.items():
        if len(location) > 1 and location[0] == "items":
            own[int(location[1])][location[2:]] = line
    return [Manifest(manifest.source, item, found) for item, found in zip(items, own, strict=True)]


def _construct(node: yaml.Node, location: Location, lines: dict[Location, int]) -> Any:
    lines.setdefault(location, node.start_mark.line + 1)
    if len(lines) > LARGEST_DOCUMENT:
        raise yaml.MarkedYAMLError(problem="more values than a manifest may have", problem_mark=node.start_mark)
    if isinstance(node, yaml.MappingNode):
        return _construct_mapping(node, location, lines)
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, (*location, index), lines) for index, item in enumerate(node.value)]
    convert = _SCALARS.get(node.tag)
    if convert is None:
        raise yaml.MarkedYAMLError(problem=f"{node.tag} is not supported", problem_mark=node.start_mark)
    try:
        return convert(node.value)
    except ValueError:
        raise yaml.MarkedYAMLError(problem=f"{node.value!r} is not a number", problem_mark=node.start_mark) from None


def _merged(node: yaml.Node, location: Location, lines: dict[Location, int]) -> dict[str, Any]:
    """The value of a merge key: a mapping, or a list of mappings of which the first counts most."""
    value = _construct(node, (*location, "<<"), lines)
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, dict) for part in parts):
        raise yaml.MarkedYAMLError(problem="<< takes a mapping or a list of mappings", problem_mark=node.start_mark)
    return {key: item for part in reversed(parts) for key, item in part.items()}


def _construct_mapping(node: yaml.MappingNode, location: Location, lines: dict[Location, int]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            mapping = {**_merged(value_node, location, lines), **mapping}
            continue
        key = str(key_node.value)
        if (*location, key) in lines:
            raise yaml.MarkedYAMLError(problem=f"key {key!r} is given twice", problem_mark=key_node.start_mark)
        lines[(*location, key)] = key_node.start_mark.line + 1
        mapping[key] = _construct(value_node, (*location, key), lines)
    return mapping


def parse_job(manifest: Manifest) -> JobObject:
    """The job of a manifest. Raises ManifestError with every mistake in it."""
    value = manifest.value
    if not isinstance(value, dict):
        raise ManifestError(
            [Problem(manifest.source, manifest.line(()), "", "must be an object with apiVersion, kind, metadata, spec")]
        )
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        message = f'"{kind}" is not one of {", ".join(KINDS)}.{suggest(str(kind), KINDS)}'
        raise ManifestError([Problem(manifest.source, manifest.line(("kind",)), "kind", message)])
    if value.get("apiVersion") != API_VERSION:
        message = f'"{value.get("apiVersion")}" is not {API_VERSION}'
        raise ManifestError([Problem(manifest.source, manifest.line(("apiVersion",)), "apiVersion", message)])
    model = KINDS[kind].model
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ManifestError([p for details in error.errors() for p in _problems(manifest, model, details)]) from None


def load_jobs(paths: list[Path]) -> list[tuple[JobObject, Path]]:
    """Every job of the given files, in order. Raises ManifestError with the mistakes of all files together."""
    jobs: list[tuple[JobObject, Path]] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            manifests = load_manifests(_read(path), str(path))
            if not manifests:
                problems.append(Problem(str(path), 1, "", "holds no object"))
        except ManifestError as error:
            problems += error.problems
            continue
        for manifest in manifests:
            try:
                jobs.append((parse_job(manifest), path))
            except ManifestError as error:
                problems += error.problems
    problems += _twice(jobs)
    if problems:
        raise ManifestError(problems)
    return jobs


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ManifestError([Problem(str(path), 1, "", f"is not UTF-8 at byte {error.start}")]) from None
    except OSError as error:
        raise ManifestError([Problem(str(path), 1, "", f"cannot be read: {error.strerror}")]) from None


def _twice(jobs: list[tuple[JobObject, Path]]) -> Iterator[Problem]:
    seen: set[tuple[str, str]] = set()
    for job, path in jobs:
        key = (job.metadata.namespace, job.reference)
        if key in seen:
            yield Problem(str(path), 1, "metadata.name", f"{job.reference} is given twice")
        seen.add(key)


def _problems(manifest: Manifest, model: type[BaseModel], details: ErrorDetails) -> Iterator[Problem]:
    """One problem, or each rule that an object breaks."""
    location = tuple(part for part in details["loc"] if not isinstance(part, str) or not part.startswith("function-"))
    for message in _message(model, location, details).split("\n"):
        yield Problem(manifest.source, manifest.line(location), dotted(location), message)


def dotted(location: Location) -> str:
    """("spec", "mix", 0, "weight") -> spec.mix[0].weight"""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _message(model: type[BaseModel], location: Location, details: ErrorDetails) -> str:
    kind, value, context = details["type"], details.get("input"), details.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown field.{suggest(str(location[-1]), _siblings(model, location[:-1]))}"
    if kind == "missing":
        return "is required"
    if kind == "literal_error":
        choices = [choice.strip("'") for choice in re.split(r", | or ", str(context["expected"]))]
        return f'"{value}" is not one of {", ".join(choices)}.{suggest(str(value), choices)}'
    if kind == "model_type" or (kind == "model_attributes_type"):
        return "must be an object"
    if kind == "string_pattern_mismatch":
        return f'"{value}" does not match {context["pattern"]}'
    text = details["msg"].removeprefix("Value error, ")
    text = text[0].lower() + text[1:]
    return text if isinstance(value, dict | list) or kind == "value_error" else f"{value!r}: {text}"


def _siblings(model: type[BaseModel], location: Location) -> list[str]:
    current: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, str) and current is not None:
            field = next((f for name, f in current.model_fields.items() if (f.alias or name) == part), None)
            current = _model_in(field.annotation) if field else None
    return [field.alias or name for name, field in current.model_fields.items()] if current else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and not issubclass(annotation, Model):
        return annotation
    return model_of(annotation) or next((m for m in map(_model_in, get_args(annotation)) if m), None)


def suggest(word: str, choices: Any) -> str:
    """` Did you mean X?` for the choice nearest to a word, or nothing."""
    lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    return f" Did you mean {lower[near[0]]}?" if near else ""
