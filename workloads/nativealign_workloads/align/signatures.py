"""What deduplication compares of texts: exact keys, MinHash bands, sketches. Pure.

A shingle is a run of k folded words. Signatures are rensa's R-MinHash of the shingles (its ALGORITHM_VERSION belongs to the step's
version). A band is the hash of r neighbouring permutations. A sketch is the lowest bit of each of 512 other permutations (b-bit
minwise hashing, Li and König 2010, with b = 1): 64 bytes that estimate a similarity of 0.75 with a standard deviation of 0.03.
"""

from itertools import pairwise

import numpy as np
import xxhash
from numpy.typing import NDArray

from nativealign_api.align import Fuzzy
from nativealign_workloads.text.hashes import Counts

U64 = NDArray[np.uint64]
U32 = NDArray[np.uint32]
U8 = NDArray[np.uint8]

SKETCH_BITS = 512

TOLERANCE = 0.01
"""How far an estimate may lie below the similarity that is asked for: pairs just above it would else be missed half of the time."""

CHANCE = 0.5
"""Share of the bits of two unrelated sketches that are equal."""


def exact_keys(hashes: U64, counts: Counts) -> U64:
    """Two numbers for each text that are equal for texts of the same folded words, shape (texts, 2).

    hashes, counts: as text.hashes.word_hashes gives them.
    """
    data = hashes.tobytes()
    bounds = np.concatenate([[0], np.cumsum(counts)]) * hashes.itemsize
    return np.frombuffer(b"".join(xxhash.xxh3_128_digest(data[a:b]) for a, b in pairwise(bounds.tolist())), "<u8").reshape(-1, 2)


def signatures(shingles: U64, runs: Counts, permutations: int, seed: int) -> U32:
    """MinHash signatures of the texts that have a shingle, in order, shape (texts, permutations).

    shingles, runs: as text.hashes.run_hashes gives them.
    """
    from rensa import RMinHash

    offsets = np.concatenate([[0], np.cumsum(runs[runs > 0])]).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets, permutations, seed)
    return np.array(matrix.to_rows(), np.uint32).reshape(-1, permutations)


def bands(shingles: U64, runs: Counts, settings: Fuzzy) -> U64:
    """Hash of each band of each text that has a shingle, shape (texts, bands); bands of different numbers never meet."""
    matrix = signatures(shingles, runs, settings.bands * settings.rows, settings.seed)
    data, size = matrix.data.cast("B"), 4 * settings.rows
    count = len(matrix) * settings.bands
    hashed = (xxhash.xxh3_64_intdigest(data[n * size : n * size + size], n % settings.bands) for n in range(count))
    return np.fromiter(hashed, np.uint64, count).reshape(len(matrix), settings.bands)


def sketches(shingles: U64, runs: Counts, settings: Fuzzy) -> U8:
    """Sketches of the texts that have a shingle, shape (texts, SKETCH_BITS / 8)."""
    return np.packbits(signatures(shingles, runs, SKETCH_BITS, settings.seed + 1).astype(np.uint8) & 1, axis=1)


def agreement(similarity: float) -> float:
    """Share of equal bits to be expected of two sketches of this Jaccard similarity."""
    return similarity + (1 - similarity) * CHANCE


def least_agreement(similarity: float) -> float:
    """Share of equal bits from which on two texts count as this similar."""
    return agreement(max(0.0, similarity - TOLERANCE))
