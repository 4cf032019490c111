"""What the device can do: bytes a second of a large copy, operations a second of large matrix products.

    python -m benchmarks.gpu.roofline [--device cuda] [--tiny]

Prints one line of JSON. The best of several repetitions counts: this is a limit, not a typical speed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch


@dataclass(frozen=True, slots=True)
class Roofline:
    """Limits of a device.

    :ivar bandwidth: bytes a second, reads and writes together.
    :ivar fp32: operations a second of matrix products in fp32, as torch is set to do them.
    :ivar bf16: the same in bf16.
    """

    device: str
    bandwidth: float
    fp32: float
    bf16: float


def best_seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """The shortest of so many runs, after one that does not count."""

    def run() -> float:
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        return time.perf_counter() - began

    run()
    return min(run() for _ in range(repeats))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bandwidth(device: torch.device, size: int, repeats: int) -> float:
    """Bytes a second of copying ``size`` bytes, which are read and written."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / best_seconds(lambda: target.copy_(source), device, repeats)


def matrix_rate(device: torch.device, n: int, dtype: torch.dtype, repeats: int) -> float:
    """Operations a second of an n x n product: 2 n^3 over its time."""
    a = torch.randn(n, n, device=device).to(dtype)
    b = torch.randn(n, n, device=device).to(dtype)
    return 2 * n**3 / best_seconds(lambda: a @ b, device, repeats)


def measure(device: torch.device, *, tiny: bool = False) -> Roofline:
    """Measure a device; ``tiny`` takes well under a second and says little."""
    size, n, repeats = (2**22, 128, 2) if tiny else (2**30, 8192, 10)
    if device.type == "cpu" and not tiny:
        size, n = 2**28, 1024
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Roofline(
        name,
        bandwidth(device, size, repeats),
        matrix_rate(device, n, torch.float32, repeats),
        matrix_rate(device, n, torch.bfloat16, repeats),
    )


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args(words)
    print(json.dumps(asdict(measure(torch.device(given.device), tiny=given.tiny))))


if __name__ == "__main__":
    main(sys.argv[1:])
