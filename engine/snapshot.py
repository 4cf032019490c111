"""What a checkpoint holds, as it was at one moment: copies in main memory that training cannot change any more.

A snapshot costs one copy of the policy's weights, of the optimizers' states, of the value model and of a refreshed
reference, until it is written; there is one at a time. The memory of a small one is kept for the next, which saves the
system from clearing it anew; that of a large one is given back, because an update may need it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sessions.checkpoints import HeldRollout, NotFinite, TrainingState

Named = Mapping[str, Tensor]


@dataclass(frozen=True)
class Snapshot:
    """One moment of a learner.

    :ivar weights: the policy's by name; tied weights are the same tensor.
    :ivar files: name -> the tensors of ``NAME.safetensors``; one without tensors is not written.
    :ivar reason: why it was taken, for people.
    :ivar rollout: groups of the next step that wait for their update.
    """

    state: TrainingState
    weights: Named
    files: Mapping[str, Named] = field(default_factory=dict)
    reason: str = ""
    rollout: HeldRollout | None = None

    def check_finite(self, trained: Iterable[str]) -> None:
        """Refuse weights that nothing can be learned from: checkpoints of them would push out those that are whole.

        :param trained: names of weights; a model's other tensors, such as a mask, may hold infinities.
        :raises NotFinite: naming the weights.
        """
        weights = {name: self.weights[name] for name in trained if name in self.weights}
        for name, tensor in {**weights, **self.files.get("value", {})}.items():
            if tensor.is_floating_point() and tensor.numel() and not _finite(tensor):
                raise NotFinite(
                    f"the weights of step {self.state.step} are not finite ({name}) and no checkpoint is made of them; "
                    "rewind to a step before they were, with changes that keep them finite"
                )


def _finite(tensor: Tensor) -> bool:
    """Whether no number of it is infinite or NaN; needs no memory."""
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) and torch.isfinite(high))


KEPT = 2**26
"""Bytes of a snapshot whose memory is kept for the next one."""


class Copies:
    """The memory of one snapshot after the other.

    Taken on the compute thread, given back from any.
    """

    def __init__(self) -> None:
        self._memory: dict[tuple[str, str], Tensor] = {}
        self._in_use = threading.Event()

    @property
    def in_use(self) -> bool:
        """Whether a snapshot still needs its memory."""
        return self._in_use.is_set()

    def give_back(self) -> None:
        """The snapshot is not read any more."""
        if sum(copy.nbytes for copy in self._memory.values()) > KEPT:
            self._memory = {}
        self._in_use.clear()

    def take(self, files: Mapping[str, Named]) -> dict[str, dict[str, Tensor]]:
        """Copy tensors, whatever device they are on; they stay as they are until :meth:`give_back` and the next call.

        :param files: name of a file -> tensors by name. Names of one tensor in the same file get one copy.
        :raises RuntimeError: if the snapshot before is still in use.
        """
        if self.in_use:
            raise RuntimeError("a snapshot was taken before the one before it was given back")
        self._in_use.set()
        before, self._memory = self._memory, {}
        try:
            return {file: self._file(file, named, before) for file, named in files.items()}
        except BaseException:  # memory ran out: what was copied is of no use, and the next try may take it
            self.give_back()
            raise

    def _file(self, file: str, named: Named, before: Mapping[tuple[str, str], Tensor]) -> dict[str, Tensor]:
        copies: dict[str, Tensor] = {}
        copied: dict[tuple[object, ...], Tensor] = {}
        for name, tensor in named.items():
            place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
            if place not in copied or tensor.numel() == 0:
                memory = before.get((file, name))
                if memory is None or memory.shape != tensor.shape or memory.dtype != tensor.dtype:
                    memory = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
                copied[place] = self._memory[file, name] = memory.copy_(tensor.detach())
            copies[name] = copied[place]
        return copies
