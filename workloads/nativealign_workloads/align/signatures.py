"""Keys and signatures of texts for deduplication: folded words, shingles, MinHash, bands. Pure.

Words are the folded words of text.fold; a shingle is a run of k words; its hash mixes the words' xxh3 hashes. The signature is
rensa's R-MinHash (its ALGORITHM_VERSION belongs to the step's version); a band is the hash of r neighbouring permutations.
"""

from functools import lru_cache

import numpy as np
import xxhash
from numpy.typing import NDArray

from nativealign_api.align import Fuzzy

U64 = NDArray[np.uint64]
U32 = NDArray[np.uint32]
_MIX = np.uint64(0x9E3779B97F4A7C15)


@lru_cache(maxsize=1 << 16)
def _word_hash(word: str) -> int:
    return xxhash.xxh3_64_intdigest(word)


def exact_key(tokens: list[str]) -> bytes:
    """16 bytes that are equal for texts of the same folded words."""
    return xxhash.xxh3_128_digest(" ".join(tokens))


def shingles(tokens: list[str], size: int) -> U64:
    """Hashes of all runs of `size` words, shape (words - size + 1,); empty for shorter texts."""
    hashes = np.fromiter(map(_word_hash, tokens), np.uint64, len(tokens))
    count = len(tokens) - size + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    mixed = np.zeros(count, np.uint64)
    for offset in range(size):
        mixed = (mixed ^ hashes[offset : offset + count]) * _MIX
        mixed ^= mixed >> np.uint64(29)
    return mixed


def signatures(token_lists: list[list[str]], settings: Fuzzy) -> U32:
    """MinHash signatures, shape (texts, bands * rows); a text shorter than a shingle has all bits set."""
    from rensa import RMinHash

    permutations = settings.bands * settings.rows
    parts = [shingles(tokens, settings.shingle_words) for tokens in token_lists]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.uint64)
    flat = np.concatenate(parts) if parts else np.empty(0, np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, permutations, settings.seed)
    return np.array(matrix.to_rows(), np.uint32).reshape(len(token_lists), permutations)


def bands(matrix: U32, settings: Fuzzy) -> U64:
    """Hash of each band of each signature, shape (texts, bands); bands of different numbers never meet."""
    rows = np.ascontiguousarray(matrix).reshape(len(matrix), settings.bands, settings.rows)
    hashed = [[xxhash.xxh3_64_intdigest(band.tobytes(), seed=number) for number, band in enumerate(text)] for text in rows]
    return np.array(hashed, np.uint64).reshape(len(matrix), settings.bands)


def similarity(first: U32, others: U32) -> NDArray[np.float64]:
    """Estimated Jaccard similarity of one signature to several, shape (others,)."""
    shares: NDArray[np.float64] = (others == first).mean(axis=1)
    return shares
