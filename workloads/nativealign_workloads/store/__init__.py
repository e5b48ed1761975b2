"""The object store: every step reads its inputs and commits its outputs through this face, and through nothing else.

`open_store` turns a location (a folder, or `s3://bucket/prefix`) into an `ObjectStore`; both kinds behave alike, and
one conformance test runs against both.
"""

from .base import ANSWER_SECONDS, AlreadyExists, NotFound, ObjectInfo, ObjectStore
from .local import LocalStore
from .location import open_store

__all__ = [
    "ANSWER_SECONDS",
    "AlreadyExists",
    "LocalStore",
    "NotFound",
    "ObjectInfo",
    "ObjectStore",
    "open_store",
]
