"""Memory: what a process holds, what it may still take, and where a step's bytes go, counted."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import sys
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from engine.knobs import Knobs
from engine.lengths import Survival, longest_of
from engine.passes import KEPT_LIMIT, LOGITS_LIMIT
from engine.policy import Policy
from engine.sampling import KEEP_BATCH
from engine.scorer import logits_chunk
from engine.sizes import Sizes
from engine.work import Rollout, has_values, stepped
from sessions.errors import Refused

TRPO_COPIES = 6
"""fp32 vectors as long as the trainable parameters: the old parameters, the gradient, and of conjugate gradient the
solution, its product, the residual and the direction."""
MOMENTS = 2
"""Copies of the trainable parameters that AdamW keeps."""
SAVED = 1 + MOMENTS
"""Copies that are kept to go back to while an update takes several optimizer steps."""
PICKING = 24
"""Bytes a row and entry of the vocabulary while tokens are drawn: logits and log-probabilities in fp32, probabilities
and their cumulative sums in fp64."""
GRAPH = 3.0
"""What a graph that is differentiated twice keeps, in that of a plain forward pass."""


# -------------------------------------------------------------------------------------------- measured


def available_memory(device: torch.device) -> int:
    """Bytes that this process may still take on a device; of main memory what the system says is available."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def total_memory(device: torch.device) -> int:
    """Bytes of the machine, or of its GPU."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_memory() -> int:
    """Largest resident memory of this process so far, or of its GPU where it has one; bytes."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def held_memory() -> int:
    """The same at this moment; where the system does not tell, the largest so far."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.memory_allocated())
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak_memory()


# --------------------------------------------------------------------------------------------- counted


@dataclass(frozen=True, slots=True)
class Held:
    """What a process has made already and keeps, whatever the hyperparameters say now.

    :ivar value_model: its kind; empty: there is none.
    """

    optimizer: bool = False
    reference: bool = False
    value_model: str = ""


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of a step by their names.

    :ivar kept: from step to step.
    :ivar phases: what each phase of a step takes beside them, and gives back.
    """

    kept: dict[str, float]
    phases: dict[str, dict[str, float]]

    @property
    def resident(self) -> float:
        """Bytes that stay."""
        return sum(self.kept.values())

    @property
    def widest(self) -> dict[str, float]:
        """The phase that takes most."""
        return max(self.phases.values(), key=lambda parts: sum(parts.values()))

    @property
    def passing(self) -> float:
        """Bytes that come and go."""
        return sum(self.widest.values())


def need(
    sizes: Sizes,
    rollout: Rollout,
    alive: Survival,
    knobs: Knobs,
    micro_tokens: int,
    shortcuts: Set[str],
    held: Held,
    *,
    evaluated: int,
    on_cuda: bool = False,
) -> Need:
    """Where the memory of a step goes.

    :param alive: the survival function of the responses' lengths.
    :param held: what the process has already.
    :param evaluated: held-out prompts answered at once.
    :param on_cuda: whether what is saved to go back to, and checkpoints, are in another memory than the model.
    """
    kept: dict[str, float] = {"weights": sizes.weights}
    steps_policy = knobs.text("algorithm") != "trpo"
    compares = knobs.number("kl_coefficient") > 0 or knobs.whole("reference_every") > 0
    if steps_policy or held.optimizer:
        kept["optimizer"] = MOMENTS * sizes.trainable
    if compares or held.reference or knobs.whole("reference_refresh_steps") > 0:
        kept["reference"] = sizes.learned
    value_model = knobs.text("value_model") if has_values(knobs) else held.value_model
    if value_model:
        kept["value model"] = (1 + MOMENTS) * (sizes.head + (sizes.trunk if value_model == "separate" else 0))
    phases = {"sampling": sampling_memory(sizes, rollout.rows, rollout.width, alive)}
    if knobs.whole("evaluate_every"):
        phases["evaluating"] = sampling_memory(sizes, evaluated, rollout.width, alive)
    if compares and not held.reference:
        phases["loading the reference"] = {"the reference's file": sizes.learned}
    phases["updating"] = learning_memory(sizes, rollout, knobs, micro_tokens, shortcuts, on_cuda=on_cuda)
    if not on_cuda and knobs.whole("checkpoint_steps"):  # written while the next step is made
        kept["checkpoint"] = sizes.learned + kept.get("optimizer", 0.0) + kept.get("value model", 0.0)
    return Need(kept, phases)


def sampling_memory(sizes: Sizes, rows: float, width: float, alive: Survival) -> dict[str, float]:
    """The cache of keys and values at its largest, and the distributions that tokens are drawn from.

    At decode step t the batch holds the rows that have not ended, and those not dropped yet; each has the prompt and t
    tokens in the cache, of which one layer at a time is copied when it grows.
    """
    steps = max(1, math.ceil(longest_of(alive, rows)))
    batch = rows * np.minimum(1.0, alive[:steps] / KEEP_BATCH)
    tokens = float((batch * (width + 1 + np.arange(len(batch)))).max())
    return {
        "cache": tokens * sizes.cache * (1 + 1 / sizes.layers),
        "sampling's logits": rows * sizes.vocabulary * PICKING,
    }


def learning_memory(
    sizes: Sizes, rollout: Rollout, knobs: Knobs, micro_tokens: int, shortcuts: Set[str], *, on_cuda: bool
) -> dict[str, float]:
    """The largest micro-batch's activations and logits, the gradients, and what is kept to go back to."""
    trpo = knobs.text("algorithm") == "trpo"
    micro, answered = micro_batch(rollout, knobs, micro_tokens, shortcuts)
    limit = KEPT_LIMIT if trpo else LOGITS_LIMIT
    if "chunked_logits" in shortcuts and not trpo:
        limit = logits_chunk(on_cuda=on_cuda)
    at_once = min(answered * sizes.vocabulary, float(limit)) / sizes.vocabulary
    parts = {"activations": micro * sizes.activation, "logits": at_once * sizes.logits}
    separate = has_values(knobs) and knobs.text("value_model") == "separate"
    if separate:
        parts["activations"] *= 2
        parts["gradients"] = float(sizes.trunk)
    if trpo:
        parts["activations"] *= GRAPH
        parts["logits"] *= GRAPH
        parts["TRPO's vectors"] = TRPO_COPIES * 4 * sizes.parameters
        parts["Fisher graph's gradient"] = float(sizes.trainable)
        return parts
    parts["gradients"] = parts.get("gradients", 0.0) + sizes.trainable
    if stepped(knobs, rollout.groups) > 1 and not on_cuda:
        parts["weights to go back to"] = SAVED * (sizes.trainable + (sizes.trunk if separate else 0))
    return parts


def micro_batch(rollout: Rollout, knobs: Knobs, micro_tokens: int, shortcuts: Set[str]) -> tuple[float, float]:
    """Tokens of the largest micro-batch, and how many of them are of responses: what fits, but at least one row."""
    tree = "tree" in shortcuts
    parts = 1.0 if knobs.text("algorithm") == "trpo" else min(float(knobs.whole("minibatches")), rollout.groups)
    minibatch = rollout.tokens(tree=tree) / parts
    micro = max(min(minibatch, float(micro_tokens)), rollout.width + rollout.longest)
    answered = rollout.sampled / rollout.tokens(tree=True) if tree else rollout.longest
    return micro, micro * (answered if tree else answered / (rollout.width + rollout.longest))


def check_memory(algorithm: str, policy: Policy, graph: float = 0.0) -> None:
    """Refuse an algorithm that cannot fit.

    :param graph: bytes of the graph that Fisher products differentiate, as far as that is known.
    :raises Refused: with what it needs, what there is, and what would help.
    """
    if algorithm != "trpo":
        return
    parameters = sum(p.numel() for p in policy.parameters)
    vectors, available = TRPO_COPIES * 4 * parameters, available_memory(policy.device)
    if vectors + graph > available:
        also = f", and about {_gb(graph)} for the graph of its Fisher products" if graph else ""
        fewer = "fewer or shorter responses, an adapter, " if graph else "train an adapter, or use "
        raise Refused(
            f"trpo needs {TRPO_COPIES} fp32 copies of the {parameters:,} trainable parameters: {TRPO_COPIES} x 4 x "
            f"{parameters:,} bytes = {_gb(vectors)}{also}, and {_gb(available)} is available on {policy.device}; "
            f"{fewer}ppo or grpo" + (" would fit" if graph else "")
        )


def _gb(size: float) -> str:
    return f"{size / 1e9:.3g} GB"
