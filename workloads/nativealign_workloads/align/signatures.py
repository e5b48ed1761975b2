"""What deduplication compares of texts: exact keys, MinHash sketches, bands. Pure.

A shingle is a run of k folded words. The signature is rensa's R-MinHash of the shingles (its ALGORITHM_VERSION belongs to the
step's version); a band is the hash of r neighbouring permutations. The sketch of a text is the lowest byte of its permutations
(b-bit minwise hashing, Li and König 2010, with b = 8).
"""

from itertools import pairwise

import numpy as np
import xxhash
from numpy.typing import NDArray

from nativealign_api.align import Fuzzy
from nativealign_workloads.text.hashes import Counts, run_hashes

U64 = NDArray[np.uint64]
U32 = NDArray[np.uint32]
U8 = NDArray[np.uint8]

MOST_SKETCH_BYTES = 128

CHANCE = 1 / 256
"""Share of the bytes of two unrelated sketches that are equal."""


def exact_keys(hashes: U64, counts: Counts) -> U64:
    """Two numbers for each text that are equal for texts of the same folded words, shape (texts, 2).

    hashes, counts: as text.hashes.word_hashes gives them.
    """
    data = hashes.tobytes()
    bounds = np.concatenate([[0], np.cumsum(counts)]) * hashes.itemsize
    return np.frombuffer(b"".join(xxhash.xxh3_128_digest(data[a:b]) for a, b in pairwise(bounds.tolist())), "<u8").reshape(-1, 2)


def signatures(hashes: U64, counts: Counts, settings: Fuzzy) -> U32:
    """MinHash signatures of the texts that have a shingle, in order, shape (texts, bands * rows)."""
    from rensa import RMinHash

    shingles, runs = run_hashes(hashes, counts, settings.shingle_words)
    offsets = np.concatenate([[0], np.cumsum(runs[runs > 0])]).astype(np.uint64)
    permutations = settings.bands * settings.rows
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets, permutations, settings.seed)
    return np.array(matrix.to_rows(), np.uint32).reshape(-1, permutations)


def bands(matrix: U32, settings: Fuzzy) -> U64:
    """Hash of each band of each signature, shape (texts, bands); bands of different numbers never meet."""
    data, size = np.ascontiguousarray(matrix).data.cast("B"), 4 * settings.rows
    count = len(matrix) * settings.bands
    hashed = (xxhash.xxh3_64_intdigest(data[n * size : n * size + size], n % settings.bands) for n in range(count))
    return np.fromiter(hashed, np.uint64, count).reshape(len(matrix), settings.bands)


def sketch_bytes(settings: Fuzzy) -> int:
    """Bytes of a sketch: one for each permutation, no more than tell similar texts apart well enough."""
    return min(MOST_SKETCH_BYTES, settings.bands * settings.rows)


def sketches(matrix: U32, settings: Fuzzy) -> U8:
    """The lowest bytes of the first permutations, shape (texts, sketch_bytes)."""
    return matrix[:, : sketch_bytes(settings)].astype(np.uint8)


def agreement(similarity: float) -> float:
    """Share of equal bytes to be expected of two sketches of this Jaccard similarity."""
    return similarity + (1 - similarity) * CHANCE
