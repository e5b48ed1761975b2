"""datasketch: MinHash with bulk hashing, LSH of the same bands and rows, candidates checked by their estimated similarity.

Arguments: corpus (gzip JSON lines), folder for kept.jsonl.gz and for clusters.json, which document stands for which.
"""

import gzip
import json
import re
import sys
from pathlib import Path

import xxhash
from datasketch import MinHash, MinHashLSH

WORD = re.compile(r"\w+")
SIZE, BANDS, ROWS, THRESHOLD = 5, 14, 8, 0.75


def shingles(text: str) -> list[bytes]:
    tokens = WORD.findall(text.lower())
    return [" ".join(tokens[start : start + SIZE]).encode() for start in range(len(tokens) - SIZE + 1)]


def hashed(value: bytes) -> int:
    return xxhash.xxh3_64_intdigest(value) & 0xFFFFFFFF


def head(stands_for: dict[str, str], name: str) -> str:
    while stands_for[name] != name:
        name = stands_for[name]
    return name


def main(corpus: str, folder: str) -> None:
    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    sketches: dict[str, MinHash] = {}
    stands_for: dict[str, str] = {}
    with gzip.open(corpus) as file, gzip.open(Path(folder) / "kept.jsonl.gz", "wb", compresslevel=1) as kept:
        for line in file:
            record = json.loads(line)
            name, sketch = record["id"], MinHash(num_perm=BANDS * ROWS, hashfunc=hashed)
            sketch.update_batch(shingles(record["text"]))
            stands_for[name] = name
            near = [other for other in index.query(sketch) if sketches[other].jaccard(sketch) >= THRESHOLD]
            for other in near:
                stands_for[head(stands_for, other)] = head(stands_for, name)
            index.insert(name, sketch)
            sketches[name] = sketch
            if not near:
                kept.write(line)
    clusters = {name: head(stands_for, name) for name in stands_for}
    (Path(folder) / "clusters.json").write_text(json.dumps(clusters))


main(*sys.argv[1:3])
