"""Pairs of hashes that differ in few bits, found without comparing all pairs."""

from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
from numba import int64, uint64
from numba.extending import intrinsic

from histofeat.features import HASH_BITS
from histofeat.images import compiled

_CHUNK_BITS = 16
_N_CHUNKS = HASH_BITS // _CHUNK_BITS
_KEYS = 1 << _CHUNK_BITS


def near_pairs(codes, distance, *, flip=(0, 0), n_jobs=None):
    """Find all pairs of hashes that differ in at most `distance` bits.

    Parameters
    ----------
    codes : ndarray of shape (n, 2), uint64
        Hashes of 128 bits.
    distance : int
        Bits that may differ, 0 to 31: for more the search is no faster than comparing all pairs.
    flip : sequence of two uint64, default=(0, 0)
        Bits that are flipped in one of the two before they are compared, such as a row of `mirror_masks`.
    n_jobs : int, optional
        Threads; None is 1, -1 all cores. The result does not depend on it.

    Returns
    -------
    pairs : ndarray of shape (m, 2), int64
        Row numbers, the smaller first, in ascending order. No row is compared with itself.
    distances : ndarray of shape (m,), int64
        The number of bits that differ.

    Notes
    -----
    Multi-index hashing (Norouzi, Punjani and Fleet, doi:10.1109/TPAMI.2013.231): of eight chunks of 16 bits, two
    hashes at distance 8 r + a have one among the first a + 1 chunks that differs in at most r bits, or one among the
    others that differs in at most r - 1. Only hashes that share such a chunk are compared in full.

    Examples
    --------
    >>> pairs, distances = near_pairs(np.array([[0, 0], [2**64 - 1, 0], [5, 0]], dtype=np.uint64), 2)
    >>> pairs.tolist(), distances.tolist()
    ([[0, 2]], [2])
    """
    codes, flip = np.ascontiguousarray(codes), np.array(flip, dtype=np.uint64)
    radius, rest = divmod(distance, _N_CHUNKS)
    # Bits that may differ in each chunk; -1 where a chunk need not be searched.
    radii = np.array([radius - (chunk > rest) for chunk in range(_N_CHUNKS)], dtype=np.int64)
    chunks = [chunk for chunk in range(_N_CHUNKS) if radii[chunk] >= 0]
    with ThreadPoolExecutor(min(joblib.effective_n_jobs(n_jobs), len(chunks))) as pool:
        found = list(pool.map(lambda chunk: _search_chunk(codes, chunk, radii, distance, flip), chunks))
    triples = np.concatenate(found)
    triples = triples[np.lexsort((triples[:, 1], triples[:, 0]))]
    return triples[:, :2], triples[:, 2]


def _search_chunk(codes, chunk, radii, distance, flip):
    """Find the near pairs that this chunk finds and no earlier one does."""
    word, shift = chunk // 4, np.uint64(_CHUNK_BITS * (chunk % 4))
    keys = ((codes[:, word] >> shift) & np.uint64(_KEYS - 1)).astype(np.int64)
    order = np.argsort(keys, kind="stable")
    starts = np.zeros(_KEYS + 1, dtype=np.int64)
    np.cumsum(np.bincount(keys, minlength=_KEYS), out=starts[1:])
    every = np.arange(_KEYS)
    masks = every[np.bitwise_count(every) <= radii[chunk]]
    flipped = int((flip[word] >> shift) & np.uint64(_KEYS - 1))
    # In the word of the chunk two hashes agree more often than not: the other one tells them apart sooner.
    words = (np.ascontiguousarray(codes[order, 1 - word]), np.ascontiguousarray(codes[order, word]))
    flips, room = (flip[1 - word], flip[word]), 1 << 14
    while True:  # once more with room for all pairs, where there were more than that
        out = np.empty((room, 3), dtype=np.int64)
        found = _compare_buckets(*words, order, starts, masks ^ flipped, chunk, radii, distance, *flips, out)
        if found <= room:
            return out[:found]
        room = found


@intrinsic
def _bits_set(typing_context, word):
    """Count the bits of a uint64: one instruction, which Numba has no name for."""
    return int64(uint64), lambda context, builder, signature, values: builder.ctpop(values[0])


@compiled
def _compare_buckets(other, own, order, starts, masks, chunk, radii, distance, flip_other, flip_own, out):
    """Compare all hashes whose keys of one chunk differ by one of `masks`; return the number of near pairs.

    Their (row, row, distance) are written into `out` while there is room.

    `own` is the word of the hashes that holds the chunk, `other` the other one, both in the order of their keys.
    """
    found = 0
    for key in range(len(starts) - 1):
        if starts[key] == starts[key + 1]:
            continue
        for mask in masks:
            near_key = key ^ mask
            if near_key < key:  # met from the other side
                continue
            for i in range(starts[key], starts[key + 1]):
                flipped = other[i] ^ flip_other
                for j in range(max(starts[near_key], i + 1), starts[near_key + 1]):
                    gap = _bits_set(flipped ^ other[j])
                    if gap > distance:
                        continue
                    rest = own[i] ^ own[j] ^ flip_own
                    gap += _bits_set(rest)
                    if gap <= distance and not _met_before(flipped ^ other[j], rest, chunk, radii):
                        if found < len(out):
                            out[found, 0] = min(order[i], order[j])
                            out[found, 1] = max(order[i], order[j])
                            out[found, 2] = gap
                        found += 1
    return found


@compiled
def _met_before(other, own, chunk, radii):
    """Whether an earlier chunk has brought this pair together."""
    for earlier in range(chunk):
        word = own if earlier // 4 == chunk // 4 else other
        part = (word >> np.uint64(16 * (earlier % 4))) & np.uint64(0xFFFF)
        if _bits_set(part) <= radii[earlier]:
            return True
    return False
