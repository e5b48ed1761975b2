"""rensa: its own MinHash over sets of strings and its own LSH, the fastest package for this that is known to us.

Arguments as for datasketch_lsh.py. rensa leaves words and shingles to the caller.
"""

import gzip
import json
import re
import sys
from pathlib import Path

from rensa import RMinHash, RMinHashLSH

WORD = re.compile(r"\w+")
SIZE, BANDS, ROWS, THRESHOLD = 5, 14, 8, 0.75


def shingles(text: str) -> list[str]:
    tokens = WORD.findall(text.lower())
    return [" ".join(tokens[start : start + SIZE]) for start in range(len(tokens) - SIZE + 1)]


def main(corpus: str, folder: str) -> None:
    index = RMinHashLSH(threshold=THRESHOLD, num_perm=BANDS * ROWS, num_bands=BANDS)
    sketches: list[RMinHash] = []
    with gzip.open(corpus) as file, gzip.open(Path(folder) / "kept.jsonl.gz", "wb", compresslevel=1) as kept:
        for number, line in enumerate(file):
            sketch = RMinHash(num_perm=BANDS * ROWS, seed=42)
            sketch.update(shingles(json.loads(line)["text"]))
            if not any(sketches[other].jaccard(sketch) >= THRESHOLD for other in index.query(sketch)):
                kept.write(line)
            index.insert(number, sketch)
            sketches.append(sketch)


main(*sys.argv[1:3])
