"""What may go from a store: digests that no job names, and what failed attempts left in those that are committed.

    inputs/<digest>/…, steps/<step>/<digest>/…   all of it, where nothing names the digest and nothing in it is young
    steps/<step>/<digest>/<phase>/answers/…, …/budget/…, parts that no record names     where the digest is committed
    self-test/…                                   where it is old

A digest is named by a job, or by the manifest of a digest that is named. Named and not committed: left alone whatever its age.
Everything else in the bucket is somebody else's. A job that comes meanwhile claims what it finds (claim.py) before it relies on it;
the manifest goes first and comes back if there is a claim then, and nothing goes after a claim.
"""

import json
import re
from collections.abc import Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any

from nativealign_workloads.errors import ConfigError
from nativealign_workloads.gc.claim import CLAIM
from nativealign_workloads.store import NotFound, ObjectInfo, ObjectStore

MANIFEST = "manifest.json"
FOLDER = re.compile(r"(?:inputs|steps/[a-z-]+)/([0-9a-f]{32})(?=/)")
DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
LEFT = re.compile(r"/answers/\d{5}/|/budget/|-\d{5}-[0-9A-Za-z-]+\.[^/]+$")
"""Progress inside a shard, who had which part of a budget, or the end of a part's key: shard, writer, suffix."""
SELF_TEST = "self-test/"
BATCH, THREADS = 64, 16


@dataclass(frozen=True)
class Folder:
    """All objects of one digest."""

    prefix: str
    digest: str
    objects: int
    size: int
    newest: float
    """When any of them was written last, in POSIX seconds."""
    committed: bool


@dataclass(frozen=True)
class Waste:
    """Something that may go."""

    prefix: str
    why: str
    objects: int
    size: int
    keys: tuple[str, ...] = ()
    """Which objects; none named where it is all of a digest."""


@dataclass
class Found:
    """What is in a store."""

    waste: list[Waste] = field(default_factory=list)
    in_use: int = 0
    young: int = 0


def folders(store: ObjectStore) -> Iterator[Folder]:
    """Every digest in the store."""
    for root in ("inputs/", "steps/"):
        ours = ((match, info) for info in store.list(root) if (match := FOLDER.match(info.key)))
        for prefix, group in groupby(ours, lambda pair: pair[0].group()):
            infos = [info for _, info in group]
            yield Folder(
                prefix,
                prefix.rpartition("/")[2],
                len(infos),
                sum(info.size for info in infos),
                max(info.modified for info in infos),
                any(info.key == f"{prefix}/{MANIFEST}" for info in infos),
            )


def in_use(store: ObjectStore, every: Iterable[Folder], named: Set[str]) -> set[str]:
    """The digests that jobs name, and those that their manifests name in turn."""
    committed: dict[str, list[str]] = {}
    for folder in every:
        if folder.committed:
            committed.setdefault(folder.digest, []).append(folder.prefix)
    known, rest = set(named), list(named)
    while rest:
        for prefix in committed.get(rest.pop(), []):
            new = set(DIGEST.findall(store.read(f"{prefix}/{MANIFEST}").decode())) - known
            known |= new
            rest += new & committed.keys()
    return known


def look(store: ObjectStore, named: Set[str], before: float) -> Found:
    """What may go. `before`: POSIX seconds; what was written later is young.

    Raises ConfigError NothingInUse where jobs name none of the digests: the names are rather those of another cluster.
    """
    every = list(folders(store))
    used = in_use(store, every, named)
    if every and not any(folder.digest in used for folder in every):
        raise ConfigError(
            "NothingInUse",
            f"{store} holds {len(every)} digests, and no job names any of them",
            "check context, namespaces and store; where it is true, remove the whole prefix by other means",
        )
    found = Found()
    for folder in every:
        if folder.digest in used:
            found.in_use += 1
            if folder.committed:
                found.waste += leftovers(store, folder, before)
        elif folder.newest >= before:
            found.young += 1
        else:
            found.waste.append(Waste(folder.prefix, "no job names it", folder.objects, folder.size))
    found.waste += _waste(SELF_TEST, "tests of the store", [info for info in store.list(SELF_TEST) if info.modified < before])
    return found


def leftovers(store: ObjectStore, folder: Folder, before: float) -> list[Waste]:
    """What led to a committed step and is named by no record: answers, and the parts of writers that lost or died."""
    infos = list(store.list(f"{folder.prefix}/"))
    spare = [info for info in infos if info.modified < before and _may_be_left(info.key)]
    if spare:
        records = [info.key for info in infos if "/shards/" in info.key or info.key == f"{folder.prefix}/{MANIFEST}"]
        with ThreadPoolExecutor(THREADS) as pool:
            named = {key for text in pool.map(store.read, records) for key in _strings(json.loads(text))}
        spare = [info for info in spare if info.key not in named]
    return _waste(folder.prefix, "left by attempts that did not commit", spare)


def _may_be_left(key: str) -> bool:
    """Whether an object is of a kind that attempts leave; checkpoints and records are not."""
    return bool(LEFT.search(key)) and not any(name in key for name in ("/shards/", "/checkpoints/"))


def _strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, wherever it stands."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _waste(prefix: str, why: str, infos: list[ObjectInfo]) -> list[Waste]:
    keys = tuple(info.key for info in infos)
    return [Waste(prefix.rstrip("/"), why, len(keys), sum(info.size for info in infos), keys)] if keys else []


def remove(store: ObjectStore, waste: Waste, before: float) -> bool:
    """Removes it; False where a job has claimed it meanwhile. May be broken off anywhere and begun again."""
    if waste.keys:
        _delete(store, waste.keys)
        return True
    infos = list(store.list(f"{waste.prefix}/"))
    if any(info.modified >= before for info in infos):
        return False
    try:
        manifest = store.read(f"{waste.prefix}/{MANIFEST}")
    except NotFound:
        manifest = None
    store.delete(f"{waste.prefix}/{MANIFEST}")
    if _claimed(store, waste.prefix, before):
        if manifest is not None:
            store.create(f"{waste.prefix}/{MANIFEST}", manifest)
        return False
    keys = iter(sorted((info.key for info in infos), key=_last))
    while batch := list(islice(keys, BATCH)):
        if _claimed(store, waste.prefix, before):
            return False
        _delete(store, batch)
    return True


def _last(key: str) -> tuple[int, str]:
    """Records before the parts that they name, so that no record is left of what is gone; the claim at the very end."""
    return (2 if key.endswith(f"/{CLAIM}") else 0 if "/shards/" in key or key.endswith(".json") else 1, key)


def _claimed(store: ObjectStore, prefix: str, before: float) -> bool:
    claim = store.stat(f"{prefix}/{CLAIM}")
    return claim is not None and claim.modified >= before


def _delete(store: ObjectStore, keys: Iterable[str]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(store.delete, keys))
