"""What every model of the API is made of: the base class, the two field classes, counts, and rules that Kubernetes checks too.

**Identity and operational fields.** A field is an *identity* field unless it is marked `Operational`. Identity fields say what is
computed: they enter digests and cannot change once a job has started. Operational fields say how: endpoints, secrets, resources,
parallelism, deadlines. They may change at any time and never change a digest. A field of a model type passes the question on to
the fields of that model, unless it is marked `Operational` itself: then everything below it is operational.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, ClassVar, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class OperationalMarker:
    """Marks a field that says how, not what; see the module's first paragraph."""


Operational = OperationalMarker()


@dataclass(frozen=True)
class Rule:
    """One cross-field rule, checked by the apiserver as CEL and by pydantic in `check`.

    `expression` is CEL over `self` (the object that carries the rule).
    """

    expression: str
    message: str


def exactly_one(*names: str) -> Rule:
    """The rule that one of several sibling objects is set (KEP-1027's union, without a discriminator)."""
    present = ", ".join(f"has(self.{name})" for name in names)
    return Rule(f"[{present}].filter(x, x).size() == 1", f"exactly one of {', '.join(names)} must be set")


class Model(BaseModel):
    """Base of every spec model: camelCase names, no unknown fields, immutable after validation.

    As strict as the apiserver: `"4"` is no number and `1` no boolean. As lenient: a field that is null is absent.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    cel_rules: ClassVar[tuple[Rule, ...]] = ()
    one_of: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        fields = {key: field for name, field in cls.model_fields.items() for key in (name, field.alias)}
        maps = {key for key, field in fields.items() if get_origin(field.annotation) is dict}
        given = {key: item for key, item in value.items() if item is not None or key not in fields}
        return {key: _without_null(item) if key in maps else item for key, item in given.items()}

    @model_validator(mode="after")
    def _check(self) -> "Model":
        problems = [*self._union_problem(), *self.problems()]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _union_problem(self) -> Iterator[str]:
        given = [name for name in self.one_of if getattr(self, _attribute(type(self), name)) is not None]
        if self.one_of and len(given) != 1:
            found = f"found {' and '.join(given)}" if given else "found none"
            yield f"{exactly_one(*self.one_of).message}; {found}"

    def problems(self) -> Iterator[str]:
        """The messages of the rules in `cel_rules` that this object breaks. Models with rules override it."""
        return iter(())

    @classmethod
    def all_rules(cls) -> tuple[Rule, ...]:
        """Every rule of this model, the union rule included."""
        return ((exactly_one(*cls.one_of),) if cls.one_of else ()) + cls.cel_rules


def _without_null(value: Any) -> Any:
    return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value


def _attribute(model: type[BaseModel], alias: str) -> str:
    return next(name for name, field in model.model_fields.items() if (field.alias or name) == alias)


COUNT_PATTERN = r"^([0-9]{1,15}|[0-9]{1,6}(\.[0-9]{1,3})?[kMBT])$"
"""At most three decimals, so that every such string is a whole number below 2**63."""
_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def parse_count(value: Any) -> Any:
    """`400M` -> 400000000. Suffixes k, M, B, T are powers of 1,000.

    Anything that is not a string is handed on for pydantic to judge.
    """
    if not isinstance(value, str):
        return value
    if not re.fullmatch(COUNT_PATTERN, value):
        raise ValueError('must be a whole number, or one with the suffix k, M, B or T, e.g. 96000, "96k", "1.5B"')
    number, suffix = (value[:-1], value[-1]) if value[-1] in _FACTORS else (value, "")
    return int(Decimal(number) * _FACTORS[suffix])


DOLLARS_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,4})?$"


def parse_dollars(value: Any) -> Any:
    """`"0.15"` -> Decimal. A YAML number with a decimal point is refused, as the apiserver refuses it: a float is not exact."""
    if isinstance(value, Decimal):
        return value
    if isinstance(value, bool) or not isinstance(value, int | str) or not re.fullmatch(DOLLARS_PATTERN, str(value)):
        raise ValueError('must be a whole number, or a string with at most 4 decimals, e.g. 6000, "0.15"')
    return Decimal(value)


@dataclass(frozen=True)
class IntOrString:
    """Tells the CRD generator that the apiserver takes a number or a string here."""

    pattern: str
    """Of the string."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        numbers = handler(schema)
        numbers = numbers.get("anyOf", [numbers])[0]
        return {**numbers, "x-kubernetes-int-or-string": True, "pattern": self.pattern}


Count = Annotated[int, BeforeValidator(parse_count), IntOrString(COUNT_PATTERN)]
"""A whole number that may be written with a suffix: 400M, 20B."""

Dollars = Annotated[Decimal, BeforeValidator(parse_dollars), IntOrString(DOLLARS_PATTERN), Field(le=10**8)]
"""US dollars, written as a whole number or as a string: 6000, "0.15"."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
"""A DNS label (RFC 1123)."""

ObjectName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", max_length=253),
]
"""A DNS subdomain (RFC 1123), as Secrets, ConfigMaps and classes may be named."""

Uri = Annotated[
    str,
    StringConstraints(pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s]*)?|(file://)?[^\s:][^\n:]*)$", max_length=1024),
]
"""`s3://bucket/key`, or on a laptop a path (relative to the manifest). `*`, `?` and `**` match as in a shell."""

Percent = Annotated[float, Field(ge=0, le=100)]
"""Of a hundred, 0 to 100."""

Endpoint = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/@]+(/[^\s]*)?$", max_length=512)]
"""An http(s) URL without credentials in it."""


def is_operational(metadata: list[Any]) -> bool:
    """Whether a pydantic field's metadata carries the `Operational` marker."""
    return any(isinstance(entry, OperationalMarker) for entry in metadata)


def model_of(annotation: Any, base: type[BaseModel] = Model) -> Any:
    """The model inside `M`, `M | None` or `list[M]`: a subclass of `base`; None for anything else."""
    if isinstance(annotation, type) and issubclass(annotation, base):
        return annotation
    found = (model_of(argument, base) for argument in get_args(annotation))
    return next((model for model in found if model is not None), None)


def constraints(field: FieldInfo) -> list[Any]:
    """The metadata of a field, and of what is inside `Annotated[...] | None`."""
    return [*field.metadata, *_annotations(field.annotation)]


def _annotations(annotation: Any) -> Iterator[Any]:
    for entry in getattr(annotation, "__metadata__", ()):
        yield from entry.metadata if isinstance(entry, FieldInfo) else [entry]
    for argument in get_args(annotation):
        yield from _annotations(argument)
