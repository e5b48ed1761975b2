"""The newest version of every object that the operator watches: ten thousand jobs fit in tens of megabytes, as JSON bytes. Pods are
read when they come, since every look at a job needs all of its pods.

Filled by the watches (shell.py), by the operator's own writes, and by the resync; read by reconcile. An older version never
replaces a newer one.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nativealign_operator.seen import Pod, read_pod

Json = dict[str, Any]


class Key(NamedTuple):
    """An object by kind, namespace and name."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class _Entry:
    version: int
    uid: str
    owner: str | None
    """Uid of the controller."""
    content: bytes | Pod


@dataclass
class Cache:
    """Objects of all watched kinds."""

    _entries: dict[Key, _Entry] = field(default_factory=dict)
    _owned: dict[str, set[Key]] = field(default_factory=lambda: defaultdict(set))
    _gone: dict[str, int] = field(default_factory=dict)
    """Uids of deleted objects, so that a late event does not bring one back."""

    def put(self, kind: str, value: Json) -> bool:
        """Takes an object; False where it is no news."""
        metadata = value["metadata"]
        key, version = key_of(kind, value), int(metadata["resourceVersion"])
        known = self._entries.get(key)
        if metadata["uid"] in self._gone or (known and known.version >= version):
            return False
        if known:
            self._forget_owner(key, known)
        owner = owner_of(metadata)
        content = read_pod(value) if kind == "Pod" else json.dumps(value | {"metadata": _slim(metadata)}).encode()
        self._entries[key] = _Entry(version, metadata["uid"], owner, content)
        if owner:
            self._owned[owner].add(key)
        return True

    def remove(self, kind: str, value: Json) -> None:
        """The object is gone."""
        key, uid = key_of(kind, value), value["metadata"]["uid"]
        self._bury(uid)
        known = self._entries.get(key)
        if known and known.uid == uid:
            self._forget_owner(key, known)
            del self._entries[key]

    def prune(self, kind: str, namespace: str, listed: Set[str], version: int) -> list[Key]:
        """Removes what a complete list of that version lacks, by uid, and returns it; empty namespace for all."""
        here = ((key, entry) for key, entry in self._entries.items() if key.kind == kind and namespace in ("", key.namespace))
        gone = [key for key, entry in here if entry.uid not in listed and entry.version <= version]
        for key in gone:
            self._forget_owner(key, self._entries.pop(key))
        return gone

    def get(self, key: Key) -> Json | None:
        """An object that is no pod."""
        entry = self._entries.get(key)
        return _parsed(entry.content) if entry else None

    def jobs_of(self, uid: str) -> list[Json]:
        """Jobs whose controller has that uid, by name."""
        return [_parsed(content) for content in self._owned_by(uid, "Job")]

    def pods_of(self, uid: str) -> list[Pod]:
        """Pods whose controller has that uid, by name."""
        return [content for content in self._owned_by(uid, "Pod") if isinstance(content, Pod)]

    def pods_named(self, namespace: str, job: str) -> list[Pod]:
        """Pods of Jobs of that name, also of those that are gone."""
        here = (entry.content for key, entry in self._entries.items() if (key.kind, key.namespace) == ("Pod", namespace))
        return [pod for pod in here if isinstance(pod, Pod) and pod.job == job]

    def keys(self, kinds: Iterable[str]) -> Iterator[Key]:
        wanted = set(kinds)
        return (key for key in list(self._entries) if key.kind in wanted)

    def _owned_by(self, uid: str, kind: str) -> Iterator[bytes | Pod]:
        return (self._entries[key].content for key in sorted(self._owned.get(uid, ())) if key.kind == kind)

    def _forget_owner(self, key: Key, entry: _Entry) -> None:
        if entry.owner:
            self._owned[entry.owner].discard(key)
            if not self._owned[entry.owner]:
                del self._owned[entry.owner]

    def _bury(self, uid: str) -> None:
        self._gone[uid] = len(self._gone)
        while len(self._gone) > GRAVES:
            self._gone.pop(next(iter(self._gone)))


GRAVES = 10_000
"""Deleted objects that are remembered; late events come within seconds."""


def key_of(kind: str, value: Json) -> Key:
    return Key(kind, value["metadata"].get("namespace", ""), value["metadata"]["name"])


def owner_of(metadata: Json) -> str | None:
    """Uid of the controller of an object."""
    return next((owner["uid"] for owner in metadata.get("ownerReferences") or [] if owner.get("controller")), None)


def _parsed(content: bytes | Pod) -> Json:
    assert isinstance(content, bytes)
    value: Json = json.loads(content)
    return value


def _slim(metadata: Json) -> Json:
    """Without managedFields, which are larger than the rest."""
    return {name: value for name, value in metadata.items() if name != "managedFields"}
