"""Every shortcut of the engine, once: what it saves, and that it changes no result beyond rounding.

``workbench run --plain NAME`` (or ``all``) turns one off, so that a doubt about it can be settled in minutes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sessions.errors import UnknownName

ALL = "all"


@dataclass(frozen=True, slots=True)
class Shortcut:
    """One way of doing less for the same result.

    :ivar help: what is done.
    :ivar plain: what is done without it.
    """

    name: str
    help: str
    plain: str


SHORTCUTS: dict[str, Shortcut] = {
    shortcut.name: shortcut
    for shortcut in (
        Shortcut(
            "tree",
            "A group is trained on as one tree: its prompt's tokens once, then its responses, each token seeing only "
            "its own past; responses that begin alike share that beginning too.",
            "every response is a padded row with its prompt before it",
        ),
        Shortcut(
            "skip_zero",
            "Responses whose advantage is exactly 0 are left out where no other term of the loss reaches them "
            "(kl_coefficient 0, no entropy bonus).",
            "every response has its forward and backward pass",
        ),
        Shortcut(
            "sampler_logprobs",
            "In fp32 the sampler's own log-probabilities are l_old, when those of the first response tokens differ by "
            "less than 1e-4 from a forward pass of training.",
            "l_old is a pass without gradient over the whole rollout before its first optimizer step",
        ),
        Shortcut(
            "chunked_logits",
            "Logits are made for response tokens only, a bounded number at a time, and made again in the backward "
            "pass.",
            "the logits of a whole micro-batch are held from the forward to the backward pass",
        ),
        Shortcut(
            "fused_adamw",
            "AdamW in one kernel a tensor.",
            "AdamW as a loop over operations",
        ),
        Shortcut(
            "shared_prefill",
            "A prompt is read once and its cache expanded to its group.",
            "every response reads its prompt",
        ),
        Shortcut(
            "compaction",
            "Finished responses leave the batch while others are still sampled.",
            "they stay until all are finished",
        ),
        Shortcut(
            "decode_weights",
            "Sampling reads weights laid out for it: packed for few rows on a CPU, in bf16 on CUDA.",
            "sampling reads the weights that are trained",
        ),
        Shortcut(
            "decode_graph",
            "On CUDA a decode step is recorded once a length bucket and replayed.",
            "every operation of every decode step is launched by itself",
        ),
    )
}


def active(plain: Iterable[str]) -> frozenset[str]:
    """The shortcuts to take when those named (``all``: every one) are turned off.

    :raises UnknownName: naming the nearest.
    """
    off = set(plain)
    for name in off - {ALL}:
        if name not in SHORTCUTS:
            raise UnknownName("shortcut", name, SHORTCUTS)
    return frozenset() if ALL in off else frozenset(SHORTCUTS) - off
