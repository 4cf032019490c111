"""Every random number, as a function of what it is for.

There is no global generator. A stream is named by a key such as ``("response", seed, step, prompt id, index, try)``;
the same key gives the same numbers in any process, on any device and however the work is batched, so tokens depend
neither on compaction, micro-batches and retries nor on how often a run was resumed.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt


def stream(*key: str | int) -> np.random.Generator:
    """The generator named by ``key``: Philox, a counter-based generator, keyed with a 128-bit digest."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def response_noise(
    seed: int, step: int, prompt_id: str, index: int, length: int, attempt: int = 0
) -> npt.NDArray[np.float64]:
    """One uniform number in [0, 1) for each token that a response may have.

    :param index: of the response in its group.
    :param attempt: counts repeated tries at the same response.
    :returns: shape [length]; a longer request begins with the numbers of a shorter one.
    """
    return stream("response", seed, step, prompt_id, index, attempt).random(length)


def evaluation_noise(seed: int, prompt_id: str, length: int) -> npt.NDArray[np.float64]:
    """The same for the answer to a held-out prompt: equal in every evaluation, so that only the policy differs."""
    return stream("evaluation", seed, prompt_id).random(length)


def held_out_noise(seed: int, prompt_id: str, index: int, length: int) -> npt.NDArray[np.float64]:
    """The same for one of several samples of it."""
    return stream("held-out sample", seed, prompt_id, index).random(length)


def permutation(*key: str | int, n: int) -> npt.NDArray[np.int64]:
    """A permutation of 0..n-1 named by ``key``."""
    return stream("permutation", *key).permutation(n)
