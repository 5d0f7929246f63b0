"""All randomness: a stream is a pure function of (seed, purpose, identity).

Nothing is ever drawn from a global stream, so the same case gets the same patch, augmentation or
corruption on every rank, in every worker and after a resume.
"""

import hashlib

import numpy as np


def derived_seed(seed: int, purpose: str, *identity: str | int) -> int:
    """A 63-bit seed from SHA-256 of its arguments; the same on every machine and Python."""
    text = "\x1f".join([str(seed), purpose, *map(str, identity)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str, *identity: str | int) -> np.random.Generator:
    """A NumPy generator for one purpose and one identity (a case, a sample number, a site)."""
    return np.random.default_rng(derived_seed(seed, purpose, *identity))
