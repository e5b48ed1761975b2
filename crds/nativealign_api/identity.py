"""Digests: which part of a spec says what is computed, and how it becomes a name.

Called by plan(); pure. A digest is the first 128 bits of SHA-256 over canonical JSON, as 32 hex digits.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel

from nativealign_api.base import Model, is_operational, model_of

DIGEST_LENGTH = 32


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and without absent values, so that a new optional field changes no old digest."""
    return json.dumps(_without_none(value), sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def digest(value: Any) -> str:
    """The digest of a JSON value."""
    return hashlib.sha256(canonical(value)).hexdigest()[:DIGEST_LENGTH]


def identity(value: Any) -> Any:
    """The JSON value of a spec object or field with every operational field taken out."""
    if isinstance(value, Model):
        return {alias: identity(item) for alias, item in _identity_items(value)}
    if isinstance(value, list):
        return [identity(item) for item in value]
    if isinstance(value, dict):
        return {key: identity(item) for key, item in value.items()}
    return str(value) if hasattr(value, "as_tuple") else value


def _identity_items(model: Model) -> Iterator[tuple[str, Any]]:
    for name, field in type(model).model_fields.items():
        if not is_operational(field.metadata):
            yield field.alias or name, getattr(model, name)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value


FieldClass = Literal["identity", "operational"]


def field_classes(model: type[BaseModel], prefix: str = "", operational: bool = False) -> dict[str, FieldClass]:
    """The class of every leaf field below a model, by dotted path; list items are written `path[]`."""
    classes: dict[str, FieldClass] = {}
    for name, field in model.model_fields.items():
        marked = operational or is_operational(field.metadata)
        inner = model_of(field.annotation)
        is_list = "list[" in str(field.annotation)
        path = f"{prefix}{field.alias or name}" + ("[]" if inner and is_list else "")
        if inner and inner.model_fields:
            classes |= field_classes(inner, f"{path}.", marked)
        else:
            classes[path] = "operational" if marked else "identity"
    return classes
