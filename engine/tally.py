"""Statistics of an update, added up over micro-batches and processes: sums and counts, never means of means."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor


class Tally:
    """Sums, counts and extremes by name."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, float] = {}
        self._maxima: dict[str, float] = {}
        self._minima: dict[str, float] = {}

    def mean(self, name: str, values: Tensor, mask: Tensor) -> None:
        """Add the values where the mask is true to the mean of that name."""
        kept = torch.where(mask, values.detach().float(), 0.0)
        self.add(name, float(kept.sum()), float(mask.sum()))

    def add(self, name: str, total: float, count: float = 1.0) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + total
        self._counts[name] = self._counts.get(name, 0.0) + count

    def maximum(self, name: str, values: Tensor, mask: Tensor) -> None:
        """The largest value where the mask is true."""
        if bool(mask.any()):
            largest = float(values.detach().float()[mask].max())
            self._maxima[name] = max(self._maxima.get(name, largest), largest)

    def minimum(self, name: str, values: Tensor, mask: Tensor) -> None:
        """The smallest value where the mask is true."""
        if bool(mask.any()):
            smallest = float(values.detach().float()[mask].min())
            self._minima[name] = min(self._minima.get(name, smallest), smallest)

    def total(self, name: str, value: float) -> None:
        """Add to a plain sum."""
        self._sums[name] = self._sums.get(name, 0.0) + value

    def results(self, accelerator: Accelerator) -> dict[str, float]:
        """Means, sums and extremes over all processes; collective."""
        parts = [(self._sums, self._counts, self._maxima, self._minima)]
        if accelerator.num_processes > 1:
            parts = gather_object(parts)
        merged = Tally()
        for sums, counts, maxima, minima in parts:
            for name, value in sums.items():
                merged._sums[name] = merged._sums.get(name, 0.0) + value
            for name, value in counts.items():
                merged._counts[name] = merged._counts.get(name, 0.0) + value
            for name, value in maxima.items():
                merged._maxima[name] = max(merged._maxima.get(name, value), value)
            for name, value in minima.items():
                merged._minima[name] = min(merged._minima.get(name, value), value)
        results = {**merged._maxima, **merged._minima}
        for name, value in merged._sums.items():
            count = merged._counts.get(name)
            if count is None:
                results[name] = value
            elif count > 0:
                results[name] = value / count
        return results
