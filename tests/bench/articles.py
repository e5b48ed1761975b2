"""Made-up Arabic articles with a known law of duplicates, for measurements of deduplication.

Of every 100,000 documents 80,000 are unlike all others; 5,000 are copies of one article, which goes on through the corpus (50,000
copies in a million); the others are in clusters of their block, of k documents with a probability in proportion to k^-2.5, 2 to
1,000. Lengths are lognormal, median 350 words; words are drawn by Zipf's law from 50,000. A copy is its original as it is (3 of
10), in another spelling that folding takes back (2 of 10), or with each word replaced with probability 0.002 to 0.05.
"""

import gzip
import json
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 100_000
UNIQUE, GREAT = 0.80, 0.05
MEDIAN_WORDS, SPREAD = 350, 0.5
VOCABULARY = 50_000
LETTERS = "ابتثجحخدذرزسشصضطظعغفقكلمنهوي"
SPELLINGS = str.maketrans({"ا": "أ", "ي": "ى", "ه": "ة"})
SENTENCE_WORDS, PARAGRAPH_SENTENCES = 14, 4


def write(path: Path, documents: int, seed: int = 1) -> None:
    """Writes `documents` records {id, text} as JSON lines with gzip; the first of a longer corpus are the same."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        for block in range(0, documents, BLOCK):
            for record in islice(_records(seed, block), documents - block):
                file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")


def _records(seed: int, block: int) -> Iterator[dict[str, Any]]:
    """The records of a block."""
    words = vocabulary(seed)
    weights = np.cumsum(1 / np.arange(1, len(words) + 1))
    rng = np.random.default_rng([seed, 1, block])
    originals = {0: _draw(np.random.default_rng([seed, 0]), weights, MEDIAN_WORDS)}
    for number, cluster in enumerate(_clusters(rng).tolist()):
        if cluster < 0:
            text = _text(words[_draw(rng, weights, _length(rng))])
        else:
            original = originals.get(cluster)
            if original is None:
                original = originals[cluster] = _draw(rng, weights, _length(rng))
            text = _copy(rng, words, weights, original)
        yield {"id": f"doc-{block + number}", "text": text}


def _length(rng: np.random.Generator) -> int:
    return int(np.clip(MEDIAN_WORDS * np.exp(SPREAD * rng.standard_normal()), 20, 5000))


@cache
def vocabulary(seed: int) -> np.ndarray:
    """Different made-up words of 2 to 10 letters; frequent ones, which come first, are shorter."""
    rng = np.random.default_rng(seed)
    means = np.linspace(4, 6, 2 * VOCABULARY)
    lengths = np.clip(rng.normal(means, 1.2).round().astype(int), 2, 10)
    found = dict.fromkeys("".join(rng.choice(list(LETTERS), length)) for length in lengths)
    return np.array(list(found)[:VOCABULARY], object)


def _clusters(rng: np.random.Generator) -> np.ndarray:
    """For each document of a block: -1 where it is like no other, 0 for the great cluster, else its cluster's number."""
    sizes = np.arange(2, 1001)
    chance = sizes**-2.5
    left, labels, cluster = BLOCK - int(BLOCK * UNIQUE) - int(BLOCK * GREAT), [0] * int(BLOCK * GREAT), 1
    while left > 1:
        size = min(left, int(rng.choice(sizes, p=chance / chance.sum())))
        labels += [cluster] * size
        left, cluster = left - size, cluster + 1
    labels += [-1] * (BLOCK - len(labels))
    return rng.permutation(np.array(labels))


def _draw(rng: np.random.Generator, weights: np.ndarray, length: int) -> np.ndarray:
    return np.searchsorted(weights, rng.random(length) * weights[-1])


def _copy(rng: np.random.Generator, words: np.ndarray, weights: np.ndarray, original: np.ndarray) -> str:
    kind = rng.random()
    if kind < 0.3:
        return _text(words[original])
    if kind < 0.5:
        return _text(words[original]).translate(SPELLINGS)
    changed = rng.random(len(original)) < rng.uniform(0.002, 0.05)
    edited = original.copy()
    edited[changed] = _draw(rng, weights, int(changed.sum()))
    return _text(words[edited])


def _text(words: np.ndarray) -> str:
    sentences = [" ".join(words[start : start + SENTENCE_WORDS]) + "." for start in range(0, len(words), SENTENCE_WORDS)]
    return "\n\n".join(" ".join(sentences[n : n + PARAGRAPH_SENTENCES]) for n in range(0, len(sentences), PARAGRAPH_SENTENCES))
