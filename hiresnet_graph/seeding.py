"""Random numbers derived from what they are used for, so that one use never shifts the numbers of another.

Hashes instead of a generator: no library guarantees the stream of its generator for ever.
"""

from __future__ import annotations

import hashlib

MAX_SEED = 2**63 - 1
"""The largest random seed, which a ledger can store."""


def derive_seed(seed: int, *name: object) -> int:
    """A seed of 63 bits for one use of randomness, from the seed of a run and the name of the use."""
    digest = hashlib.blake2b("/".join(map(str, (seed, *name))).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def draw_integer(*name: object, bits: int = 256) -> int:
    """A pseudorandom integer of some bits, from the name of its use (which includes the seed)."""
    digest = hashlib.shake_256("/".join(map(str, name)).encode()).digest((bits + 7) // 8)
    return int.from_bytes(digest, "big") & ((1 << bits) - 1)
