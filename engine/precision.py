"""Which floating-point type long sums are taken in."""

from __future__ import annotations

import torch


def wide(device: torch.device) -> torch.dtype:
    """The widest floating-point type of a device: MPS has no fp64."""
    return torch.float32 if device.type == "mps" else torch.float64
