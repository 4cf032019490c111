"""Whether an algorithm's working memory fits, with the arithmetic for people."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import torch

from engine.policy import Policy
from sessions.errors import Refused

TRPO_COPIES = 6
"""fp32 vectors as long as the trainable parameters: the old parameters, the gradient, and of conjugate gradient the
solution, its product, the residual and the direction."""


def available_memory(device: torch.device) -> int:
    """Bytes that this process may still take on a device; of main memory what the system says is available."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_memory(algorithm: str, policy: Policy) -> None:
    """Refuse an algorithm that cannot fit.

    :raises Refused: with what it needs, what there is, and what would help.
    """
    if algorithm != "trpo":
        return
    parameters = sum(p.numel() for p in policy.parameters)
    needed, available = TRPO_COPIES * 4 * parameters, available_memory(policy.device)
    if needed > available:
        raise Refused(
            f"trpo needs {TRPO_COPIES} fp32 copies of the {parameters:,} trainable parameters: {TRPO_COPIES} x 4 x "
            f"{parameters:,} bytes = {_gb(needed)}, and {_gb(available)} is available on {policy.device}; "
            "train an adapter, or use ppo or grpo"
        )


def _gb(size: float) -> str:
    return f"{size / 1e9:.3g} GB"
